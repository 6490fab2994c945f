"""`logd log …`: what is known of the logs, and what can be done to them. `logs` only reads."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from logd.cli.client import Client, quote
from logd.cli.command import Command, Group
from logd.cli.completion import CONTAINER
from logd.cli.driver_commands import driver, print_drivers
from logd.cli.references import SHORT_ID, each
from logd.cli.tables import print_fields, print_json, print_json_lines, print_table
from logd.errors import LogdError
from logd.units import format_size

FORMAT = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
CONTAINERS = click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")


@click.group(cls=Group)
def log() -> None:
    """Look after containers' logs: state, clearing, disk use, checks."""


log.add_command(driver)


@log.command(cls=Command, examples=("logd log status web", "logd log status --format json web | jq ."))
@FORMAT
@CONTAINERS
@click.pass_obj
def status(client: Client, *, form: str, containers: Sequence[str]) -> None:
    """Show how much there is of a log, and what is missing from it."""

    def show(name: str) -> None:
        state = client.json("GET", f"/logd/containers/{quote(name)}/log")
        if form == "json":
            print_json(state)
        else:
            print_status(state)

    each(containers, show, echo=False)


@log.command(cls=Command, examples=("logd log clear web", "logd log clear $(logd ps -q)"))
@CONTAINERS
@click.pass_obj
def clear(client: Client, containers: Sequence[str]) -> None:
    """Throw away what a container has printed so far. Its container goes on, and so do those who follow its log."""
    each(containers, lambda one: client.request("POST", f"/logd/containers/{quote(one)}/log/clear").close())


@log.command(cls=Command, examples=("logd log du", "logd log du --format json"))
@FORMAT
@click.pass_obj
def du(client: Client, *, form: str) -> None:
    """Show how much disk the logs take, the largest first."""
    report = client.json("GET", "/logd/log/du")
    items = report["containers"]
    if form == "json":
        print_json_lines(items)
        return
    rows = [(item["id"][:SHORT_ID], item["name"], format_size(item["bytes"])) for item in items]
    print_table(("CONTAINER ID", "NAME", "SIZE"), [*rows, ("", "all", format_size(report["total"]))])


@log.command(cls=Command, examples=("logd log fsck web", "logd log fsck"))
@click.argument("containers", nargs=-1, type=CONTAINER, metavar="[CONTAINER...]")
@click.pass_obj
def fsck(client: Client, containers: Sequence[str]) -> None:
    """Check that logs are whole: all of them, or those named. Nothing is changed."""
    names = containers or [item["Id"] for item in client.json("GET", "/containers/json", {"all": True})]
    damaged: list[str] = []

    def check(name: str) -> None:
        report = client.json("POST", f"/logd/containers/{quote(name)}/log/fsck")
        problems = report["problems"]
        for problem in problems:
            sys.stdout.write(f"{name}: {problem}\n")
        if problems:
            damaged.append(name)
        else:
            sys.stdout.write(f"{name}: whole, {format_size(report['bytes'])}\n")

    each(names, check, echo=False)
    if damaged:
        raise LogdError(f"damaged: {', '.join(damaged)}")


def print_status(state: dict[str, Any]) -> None:
    """Print what a store holds and has let go: a field each, a line for each stream, a line for each gap."""
    options = " ".join(f"{key}={value}" for key, value in state["options"].items())
    segments = state["segments"]
    print_fields(
        [
            ("Container", f"{state['name']} ({state['id'][:SHORT_ID]})"),
            ("Log driver", f"{state['driver']} {options}".rstrip()),
            ("On disk", f"{format_size(state['bytes'])} in {segments} segment{'' if segments == 1 else 's'}"),
            ("Output", "has ended" if state["ended"] else "goes on"),
        ]
    )
    titles = ("STREAM", "PRINTED", "KEPT", "EXPIRED", "CLEARED", "LOST")
    print_table(titles, [_stream_row(name, stream) for name, stream in state["streams"].items()])
    if drivers := state.get("drivers"):  # an older daemon has none
        print_drivers(drivers)
    if state["gaps"]:
        rows = [
            (gap["time"], gap["stream"], str(gap["position"]), _length(gap), gap["reason"]) for gap in state["gaps"]
        ]
        print_table(("GAP AT", "STREAM", "POSITION", "BYTES", "REASON"), rows)


def _stream_row(name: str, stream: dict[str, Any]) -> Sequence[str]:
    lost = ", ".join(f"{format_size(count)} {reason}" for reason, count in stream["dropped"].items()) or "0B"
    counts = (stream[key] for key in ("position", "stored", "expired", "cleared"))
    return (name, *map(format_size, counts), lost)


def _length(gap: dict[str, Any]) -> str:
    return str(gap["length"]) if gap["length"] else "unknown"
