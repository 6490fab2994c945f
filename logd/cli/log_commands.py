"""`logd log status|clear|du|fsck`: what is known of the logs, and what can be done to them. `logs` only reads."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from logd.cli.client import Client, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.container_commands import SHORT_ID, each
from logd.cli.tables import print_fields, print_json, print_json_lines, print_table
from logd.errors import LogdError
from logd.units import format_size

FORMAT = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
CONTAINERS = click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")


@click.group()
def log() -> None:
    """Look after containers' logs: state, clearing, disk use, checks."""


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
            print_fields([("Container", name), *((label, text) for label, text in flat(state))])

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


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the fields of nested JSON, each with the path to it as its name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and any(isinstance(inner, (dict, list)) for inner in value):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{prefix}[{index}]")
    else:
        yield prefix, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return _joined(value)
    return "" if value is None else str(value)


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
