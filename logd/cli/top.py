"""`logd top`: what containers use, live on a terminal, or once for a pipe or a program."""

import os
import time
from collections.abc import Sequence
from typing import Final

import click

from logd.cli.client import Client
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.container_commands import top as processes
from logd.cli.tables import print_json_lines, print_table
from logd.cli.terminal import is_terminal
from logd.cli.top_table import COLUMNS, TITLES, Order, cells
from logd.cli.usage import Usage, as_json, ask, compare

SORTS: Final = (
    "name",
    "cpu",
    "memory",
    "memory-percent",
    "network",
    "io",
    "pressure",
    "pids",
    "log",
    "driver",
    "state",
)
"""The columns' names for --sort, in their order."""
FORMAT = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
ALL = click.option("-a", "--all", "every", is_flag=True, help="Show containers that don't run too.")


@click.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    examples=(
        "logd top",
        "logd top web",
        "logd top --sort log",
        "logd top --once --format json | jq 'select(.cpu_percent > 50)'",
    ),
)
@click.option(
    "-d",
    "--delay",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("-s", "--sort", type=click.Choice(SORTS), default="cpu", show_default=True, help="By which column.")
@click.option("-r", "--reverse", is_flag=True, help="The other way round.")
@ALL
@click.option(
    "--once", is_flag=True, help="Print the table once, after two looks. So it is where there is no terminal."
)
@FORMAT
@click.argument("container", required=False, type=CONTAINER)
@click.argument("ps_options", nargs=-1, type=click.UNPROCESSED, metavar="[PS_OPTIONS]")
@click.pass_context
def top(
    ctx: click.Context,
    /,
    *,
    delay: float,
    sort: str,
    reverse: bool,
    every: bool,
    once: bool,
    form: str,
    container: str | None,
    ps_options: Sequence[str],
) -> None:
    """Show what containers use, live: CPU, memory, network, I/O, pressure, logs. Press ? for the keys.

    With a container, show its processes, once, as `docker top` does.
    """
    if container is not None:
        ctx.invoke(processes, container=container, ps_options=ps_options)
        return
    client: Client = ctx.obj
    order = Order(SORTS.index(sort), reverse)
    live = not once and form == "table" and is_terminal(0) and is_terminal(1) and os.environ.get("TERM") != "dumb"
    if live:
        from logd.cli import top_screen  # noqa: PLC0415  # it brings rich

        top_screen.run(client, delay, order, every=every)
        return
    usages = order.sort(twice(client, delay, every=every))
    if form == "json":
        print_json_lines(as_json(usages))
    else:
        print_table(TITLES, map(cells, usages), state_column=len(COLUMNS) - 1)


def twice(client: Client, delay_s: float, *, every: bool) -> list[Usage]:
    """Return what is used over a time."""
    earlier = ask(client, every=every)
    time.sleep(delay_s)
    return compare(earlier, ask(client, every=every))
