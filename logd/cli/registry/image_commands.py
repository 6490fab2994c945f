"""`logd pull`, `push`, `save` and `search`."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from logd.cli.client import Client, Query
from logd.cli.command import Command
from logd.cli.completion import IMAGE
from logd.cli.formats import FILTER, FORMAT, NO_TRUNC, Columns, print_rows
from logd.cli.output import STDOUT_FD, write_all
from logd.cli.progress import progress
from logd.cli.references import parse_filters
from logd.cli.registry import transfers
from logd.cli.tables import shorten
from logd.cli.terminal import is_terminal
from logd.errors import InvalidParameter

ARCHIVE_MODE: Final = 0o600
DESCRIPTION_LENGTH: Final = 45
SEARCH_TITLES: Final = {
    "Description": "DESCRIPTION", "IsOfficial": "OFFICIAL", "Name": "NAME", "StarCount": "STARS",
}  # fmt: skip


@click.command(
    cls=Command,
    examples=("logd pull redis:7", "logd pull --platform linux/arm64 registry.example.org/shop", "logd pull -a redis"),
)
@click.option("-a", "--all-tags", "every", is_flag=True, help="All images of the repository.")
@click.option("--platform", metavar="OS/ARCH", help="Which of an image's platforms (default: the daemon's own).")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's name alone.")
@click.argument("name", type=IMAGE, metavar="NAME[:TAG|@DIGEST]")
@click.pass_obj
def pull(client: Client, *, every: bool, platform: str | None, quiet: bool, name: str) -> None:
    """Take an image from its registry."""
    transfers.pull(client, name, every=every, platform=platform, quiet=quiet)


@click.command(cls=Command, examples=("logd tag shop:1.2 localhost:5000/shop:1.2", "logd push localhost:5000/shop:1.2"))
@click.option("-a", "--all-tags", "every", is_flag=True, help="All tags of the repository.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's name alone.")
@click.argument("name", type=IMAGE, metavar="NAME[:TAG]")
@click.pass_obj
def push(client: Client, *, every: bool, quiet: bool, name: str) -> None:
    """Give an image to its registry."""
    transfers.push(client, name, every=every, quiet=quiet)


@click.command(
    cls=Command, examples=("logd save shop:1.2 | gzip > shop.tar.gz", "logd save -o shop.tar shop:1.2 redis")
)
@click.option("-o", "--output", metavar="FILE", help="Write to this file instead of standard output.")
@click.argument("images", nargs=-1, required=True, type=IMAGE, metavar="IMAGE...")
@click.pass_obj
def save(client: Client, *, output: str | None, images: Sequence[str]) -> None:
    """Write images as a tar archive, which `logd load` takes."""
    if output is None and is_terminal(STDOUT_FD):
        raise InvalidParameter("cowardly refusing to save to a terminal (use -o FILE, or a pipe)")
    what = images[0] if len(images) == 1 else f"{len(images)} images"
    with (
        client.request("GET", "/images/get", {"names": list(images)}) as response,
        _archive(output) as descriptor,
        progress(f"Saving {what}") as advance,
    ):
        while not response.ended:
            data = response.receive()
            write_all(descriptor, data)
            advance(len(data))


@contextlib.contextmanager
def _archive(output: str | None) -> Iterator[int]:
    """Give where an archive goes. A file is there when it is whole; a device or a FIFO is written to."""
    if output is None:
        yield STDOUT_FD
        return
    place = os.path.realpath(output)
    try:
        is_file = not os.path.exists(place) or stat.S_ISREG(os.stat(place).st_mode)
        name = f"{place}.{os.getpid()}.part" if is_file else place
        flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if is_file else 0)
        descriptor = os.open(name, flags, ARCHIVE_MODE)
    except OSError as error:
        raise InvalidParameter(f"--output: {output}: {error.strerror}") from error
    try:
        yield descriptor
        if is_file:
            os.rename(name, place)
    except BaseException:
        if is_file:
            os.unlink(name)
        raise
    finally:
        os.close(descriptor)


@click.command(cls=Command, examples=("logd search --limit 5 redis",))
@FILTER
@click.option("--limit", type=int, metavar="N", help="At most so many.")
@NO_TRUNC
@FORMAT
@click.argument("term")
@click.pass_obj
def search(client: Client, *, filters: Sequence[str], limit: int | None, no_trunc: bool, form: str, term: str) -> None:
    """Search Docker Hub for images, where the daemon can."""
    query: Query = {"term": term, "limit": limit, "filters": parse_filters(filters)}
    found: list[dict[str, Any]] = client.json("GET", "/images/search", query)
    print_rows(form, Columns(("Name", "Description", "StarCount", "IsOfficial"), SEARCH_TITLES), [
        {
            "Name": item["name"],
            "Description": item["description"] if no_trunc else shorten(item["description"], DESCRIPTION_LENGTH),
            "StarCount": str(item["star_count"]),
            "IsOfficial": "[OK]" if item["is_official"] else "",
        }
        for item in found
    ])  # fmt: skip
