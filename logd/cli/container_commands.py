"""`logd ps`, `start`, `stop`, `kill`, `rm`, `inspect`."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click

from logd.cli.client import Client, Refused, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.tables import ago, print_json, print_json_lines, print_table, shorten
from logd.errors import InvalidParameter, LogdError

SHORT_ID: Final = 12


class Several(LogdError):
    """More than one thing went wrong; `errors` has them in order."""

    def __init__(self, errors: Sequence[LogdError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


def parse_filters(words: Iterable[str]) -> str | None:
    """Return the API's `filters` for `key=value` words. Raises InvalidParameter for one without a key."""
    filters: dict[str, list[str]] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise InvalidParameter(f"--filter: invalid value {word!r} (write key=value, such as status=exited)")
        filters.setdefault(key.strip().lower(), []).append(value.strip())
    return json.dumps(filters) if filters else None


@click.command(
    cls=Command,
    examples=(
        "logd ps",
        "logd ps -a --filter status=exited --filter label=app=web",
        "logd ps -a --format json | jq -r '.Names[0], .Status'",
    ),
)
@click.option("-a", "--all", "every", is_flag=True, help="Show all containers (default: only those that run).")
@click.option("-q", "--quiet", is_flag=True, help="Print ids alone.")
@click.option("-n", "--last", type=int, default=None, help="Show the N containers created last, running or not.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Show those that fit (repeatable).")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_obj
def ps(
    client: Client, *, every: bool, quiet: bool, last: int | None, filters: Sequence[str], no_trunc: bool, form: str
) -> None:
    """List containers."""
    query = {"all": every, "limit": last, "filters": parse_filters(filters)}
    items = client.json("GET", "/containers/json", query)
    if quiet:
        for item in items:
            sys.stdout.write(f"{item['Id'] if no_trunc else item['Id'][:SHORT_ID]}\n")
    elif form == "json":
        print_json_lines(items)
    else:
        titles = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")
        print_table(titles, (_row(item, whole=no_trunc) for item in items), state_column=4)


def _row(item: dict[str, Any], *, whole: bool) -> Sequence[str]:
    command = json.dumps(item["Command"], ensure_ascii=False)
    names = ",".join(name.removeprefix("/") for name in item["Names"])
    identity, image = (item["Id"], item["Image"]) if whole else (item["Id"][:SHORT_ID], _short_image(item["Image"]))
    state = item["Status"] or item["State"].capitalize()
    return (identity, image, command if whole else shorten(command, 20), ago(item["Created"]), state, names)


def _short_image(image: str) -> str:
    return image.removeprefix("sha256:")[:SHORT_ID] if image.startswith("sha256:") else image


@click.command(
    cls=Command,
    examples=("logd start web db",),
)
@click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")
@click.pass_obj
def start(client: Client, containers: Sequence[str]) -> None:
    """Start containers that do not run."""
    each(containers, lambda one: client.request("POST", f"/containers/{quote(one)}/start").close())


@click.command(
    cls=Command,
    examples=(
        "logd stop web",
        "logd stop -t 60 -s INT db",
    ),
)
@click.option(
    "-s", "--signal", "signal_name", help="Signal to send first (default: the image's STOPSIGNAL, else TERM)."
)
@click.option("-t", "--timeout", "--time", type=int, help="Seconds before SIGKILL; -1 waits for ever (default: 10).")
@click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")
@click.pass_obj
def stop(client: Client, *, signal_name: str | None, timeout: int | None, containers: Sequence[str]) -> None:
    """Stop containers: a signal first, and SIGKILL if that does not do."""
    query = {"signal": signal_name, "t": timeout}
    each(containers, lambda one: client.request("POST", f"/containers/{quote(one)}/stop", query).close())


@click.command(
    cls=Command,
    examples=("logd kill -s HUP nginx",),
)
@click.option("-s", "--signal", "signal_name", help="Signal to send (default: KILL).")
@click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")
@click.pass_obj
def kill(client: Client, *, signal_name: str | None, containers: Sequence[str]) -> None:
    """Send a signal to the main process of containers."""
    query = {"signal": signal_name}
    each(containers, lambda one: client.request("POST", f"/containers/{quote(one)}/kill", query).close())


@click.command(
    cls=Command,
    examples=(
        "logd rm web",
        "logd rm -f $(logd ps -aq)",
    ),
)
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes too.")
@click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")
@click.pass_obj
def rm(client: Client, *, force: bool, volumes: bool, containers: Sequence[str]) -> None:
    """Remove containers, and with them their logs."""
    query = {"force": force, "v": volumes}
    each(containers, lambda one: client.request("DELETE", f"/containers/{quote(one)}", query).close())


@click.command(
    cls=Command,
    examples=(
        "logd inspect web",
        "logd inspect web | jq '.[0].State'",
    ),
)
@click.option("--type", "kind", type=click.Choice(["container", "image"]), help="Look among these alone.")
@click.argument("names", nargs=-1, required=True, type=CONTAINER, metavar="NAME...")
@click.pass_obj
def inspect(client: Client, *, kind: str | None, names: Sequence[str]) -> None:
    """Show everything about containers or images, as a JSON list."""
    found: list[Any] = []
    try:
        each(names, lambda name: found.append(_details(client, name, kind)), echo=False)
    finally:
        print_json(found)


def _details(client: Client, name: str, kind: str | None) -> object:
    places = {"container": "/containers/{}/json", "image": "/images/{}/json"}
    for place in [places[kind]] if kind else places.values():
        try:
            return client.json("GET", place.format(quote(name)))
        except Refused as error:
            if error.status != 404:
                raise
    raise Refused(404, f"No such {kind or 'object'}: {name}")


def each(names: Sequence[str], do: Callable[[str], object], *, echo: bool = True) -> None:
    """Do it to each, printing the names of those where it went well; go on after an error, and fail at the end."""
    errors: list[LogdError] = []
    for name in names:
        try:
            do(name)
        except LogdError as error:
            errors.append(error)
        else:
            if echo:
                sys.stdout.write(f"{name}\n")
    if errors:
        sys.stdout.flush()
        raise errors[0] if len(errors) == 1 else Several(errors)
