"""`… prune`: what nobody needs any more."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import click

from logd.cli.client import Client
from logd.cli.command import Command
from logd.cli.image_verbs import print_removed
from logd.cli.references import parse_filters
from logd.cli.terminal import visible
from logd.units import format_size

FORCE: Final = click.option("-f", "--force", is_flag=True, help="Don't ask.")
FILTERS: Final = click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Those that fit alone.")
WARNINGS: Final = {
    "container": "all stopped containers",
    "image": "all dangling images",
    "all images": "all images without at least one container associated to them",
    "network": "all custom networks not used by at least one container",
    "volume": "anonymous local volumes not used by at least one container",
    "all volumes": "all local volumes not used by at least one container",
}
"""docker's words for what goes."""


def confirm(what: Sequence[str]) -> None:
    """Ask whether it may go; end with exit status 1 unless the answer is yes (docker's; no answer is no)."""
    if len(what) == 1:
        sys.stdout.write(f"WARNING! This will remove {what[0]}.\n")
    else:
        sys.stdout.write("WARNING! This will remove:\n" + "".join(f"  - {one}\n" for one in what) + "\n")
    sys.stdout.write("Are you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise SystemExit(1)


@click.command("prune", cls=Command, examples=("logd container prune -f --filter until=24h",))
@FORCE
@FILTERS
@click.pass_obj
def containers(client: Client, *, force: bool, filters: Sequence[str]) -> None:
    """Remove all stopped containers, and with them their logs."""
    query = _asked(["container"], filters, force=force)
    _total(_containers(client, query))


@click.command("prune", cls=Command, examples=("logd image prune -f", "logd image prune -af --filter until=240h"))
@click.option("-a", "--all", "every", is_flag=True, help="Those with a name that no container is made from, too.")
@FORCE
@FILTERS
@click.pass_obj
def images(client: Client, *, every: bool, force: bool, filters: Sequence[str]) -> None:
    """Remove images without a name that no container is made from."""
    query = _asked(["all images" if every else "image"], [*filters, f"dangling={'01'[not every]}"], force=force)
    _total(_images(client, query))


@click.command("prune", cls=Command, examples=("logd network prune -f",))
@FORCE
@FILTERS
@click.pass_obj
def networks(client: Client, *, force: bool, filters: Sequence[str]) -> None:
    """Remove networks that no container is in."""
    _networks(client, _asked(["network"], filters, force=force))


@click.command("prune", cls=Command, examples=("logd volume prune -f", "logd volume prune -af --filter label=tmp"))
@click.option("-a", "--all", "every", is_flag=True, help="Those with a name that no container uses, too.")
@FORCE
@FILTERS
@click.pass_obj
def volumes(client: Client, *, every: bool, force: bool, filters: Sequence[str]) -> None:
    """Remove volumes without a name that no container uses."""
    words = [*filters, "all=1"] if every else filters
    query = _asked(["all volumes" if every else "volume"], words, force=force)
    _total(_volumes(client, query))


@click.command("prune", cls=Command, examples=("logd system prune -f", "logd system prune -af --volumes"))
@click.option("-a", "--all", "every", is_flag=True, help="Images with a name that no container is made from, too.")
@click.option("--volumes", "with_volumes", is_flag=True, help="Volumes without a name that no container uses, too.")
@FORCE
@FILTERS
@click.pass_obj
def system(client: Client, *, every: bool, with_volumes: bool, force: bool, filters: Sequence[str]) -> None:
    """Remove stopped containers, unused networks and images without a name."""
    parts = ["container", "network", *(["volume"] if with_volumes else []), "all images" if every else "image"]
    query = _asked(parts, filters, force=force)
    of_images = {"filters": parse_filters([*filters, f"dangling={'01'[not every]}"])}
    reclaimed = _containers(client, query)
    _networks(client, query)
    reclaimed += _volumes(client, query) if with_volumes else 0
    reclaimed += _images(client, of_images)
    _total(reclaimed)


def _asked(parts: Iterable[str], filters: Sequence[str], *, force: bool) -> dict[str, str | None]:
    """Return the query, once the person agrees."""
    query = {"filters": parse_filters(filters)}
    if not force:
        confirm([WARNINGS[part] for part in parts])
    return query


def _containers(client: Client, query: Mapping[str, str | None]) -> int:
    answer = client.json("POST", "/containers/prune", query)
    _list("Deleted Containers", answer.get("ContainersDeleted"))
    return int(answer["SpaceReclaimed"])


def _images(client: Client, query: Mapping[str, str | None]) -> int:
    answer = client.json("POST", "/images/prune", query)
    if deleted := answer.get("ImagesDeleted"):
        sys.stdout.write("Deleted Images:\n")
        for item in deleted:
            print_removed({key.capitalize(): value for key, value in item.items()})
        sys.stdout.write("\n")
    return int(answer["SpaceReclaimed"])


def _networks(client: Client, query: Mapping[str, str | None]) -> None:
    _list("Deleted Networks", client.json("POST", "/networks/prune", query).get("NetworksDeleted"))


def _volumes(client: Client, query: Mapping[str, str | None]) -> int:
    answer = client.json("POST", "/volumes/prune", query)
    _list("Deleted Volumes", answer.get("VolumesDeleted"))
    return int(answer["SpaceReclaimed"])


def _list(title: str, names: Sequence[str] | None) -> None:
    if names:
        lines = "".join(f"{visible(name)}\n" for name in names)
        sys.stdout.write(f"{title}:\n{lines}\n")


def _total(reclaimed: int) -> None:
    sys.stdout.write(f"Total reclaimed space: {format_size(reclaimed)}\n")
