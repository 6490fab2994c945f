"""`logd stats`: the figures of `docker stats` in its columns, of all containers with one question a second."""

import sys
import time
from collections.abc import Sequence
from typing import Final

import click

from logd.cli.client import Client
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.formats import FORMAT, NO_TRUNC, TABLE, Columns, print_rows
from logd.cli.references import SHORT_ID
from logd.cli.terminal import is_terminal
from logd.cli.usage import Usage, amount, ask, compare, memory_size, pair, percent
from logd.errors import NotFound

INTERVAL_S: Final = 1.0
SHOWN: Final = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
TITLES: Final = {
    "BlockIO": "BLOCK I/O", "CPUPerc": "CPU %", "Container": "CONTAINER", "ID": "CONTAINER ID", "MemPerc": "MEM %",
    "MemUsage": "MEM USAGE / LIMIT", "Name": "NAME", "NetIO": "NET I/O", "PIDs": "PIDS",
}  # fmt: skip
REDRAW: Final = "\x1b[H\x1b[J"
"""The cursor to the upper left, and what is there away (ECMA-48: CUP, ED)."""


@click.command(
    cls=Command,
    examples=(
        "logd stats",
        "logd stats --no-stream web db",
        "logd stats --no-stream --format json | jq -r '.Name, .CPUPerc'",
    ),
)
@click.option("-a", "--all", "every", is_flag=True, help="Show containers that don't run too.")
@click.option("--no-stream", is_flag=True, help="Print the figures once.")
@NO_TRUNC
@FORMAT
@click.argument("containers", nargs=-1, type=CONTAINER, metavar="[CONTAINER...]")
@click.pass_obj
def stats(
    client: Client, *, every: bool, no_stream: bool, no_trunc: bool, form: str, containers: Sequence[str]
) -> None:
    """Show what containers use, each second, as `docker stats` does. See `logd top` for more."""
    every = every or bool(containers)
    earlier = ask(client, every=every)
    select(compare(None, earlier), containers)  # a name that is wrong is said at once
    while True:
        time.sleep(INTERVAL_S)
        now = ask(client, every=every)
        _print(select(compare(earlier, now), containers), form, redraw=not no_stream, whole=no_trunc)
        if no_stream:
            return
        earlier = now


def select(usages: Sequence[Usage], references: Sequence[str]) -> list[Usage]:
    """Return those with these names or beginnings of ids, or all. Raises NotFound for one that there is not."""
    if not references:
        return list(usages)
    found = []
    for reference in references:
        fits = [one for one in usages if one.name == reference.removeprefix("/")]
        fits = fits or [one for one in usages if one.id.startswith(reference)]
        if len(fits) != 1:
            raise NotFound(f"No such container: {reference}")
        found.append(fits[0])
    return found


def row(one: Usage, *, whole: bool = False) -> dict[str, str]:
    """Return the fields of a container, written as docker writes them."""
    runs = one.pids > 0
    network, blocks = ((one.rx_bytes, one.tx_bytes), (one.read_bytes, one.written_bytes)) if runs else ((0, 0), (0, 0))
    identity = one.id if whole else one.id[:SHORT_ID]
    return {
        "BlockIO": pair(*map(amount, blocks)),
        "CPUPerc": percent(one.cpu_percent if runs else 0.0),
        "Container": identity,
        "ID": identity,
        "MemPerc": percent(one.memory_percent),
        "MemUsage": pair(memory_size(one.memory), memory_size(one.memory_limit if runs else 0)),
        "Name": one.name,
        "NetIO": pair(*map(amount, network)),
        "PIDs": str(one.pids),
    }


def _print(usages: Sequence[Usage], form: str, *, redraw: bool, whole: bool) -> None:
    if redraw and form.startswith(TABLE) and is_terminal(1):
        sys.stdout.write(REDRAW)
    print_rows(form, Columns(SHOWN, TITLES), [row(one, whole=whole) for one in usages])
    sys.stdout.flush()
