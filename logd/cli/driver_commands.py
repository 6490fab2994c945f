"""`logd log driver …` and `logd plugins`: where a container's output is delivered, shown and changed while it runs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from logd.cli.client import Client, Refused, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.references import each
from logd.cli.tables import print_json, print_table
from logd.cli.terminal import visible
from logd.cli.words import pairs
from logd.errors import Conflict, NotFound
from logd.units import format_size

FORMAT = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
LOG_OPT = click.option("--log-opt", multiple=True, metavar="KEY=VALUE", help="Option of the driver. Can be repeated.")
FROM = click.option(
    "--from",
    "begin",
    default="now",
    show_default=True,
    metavar="now|start|cursor:NAME",
    help="Where a driver that is new begins.",
)
DROP = click.option("--drop", is_flag=True, help="Don't wait until a driver that goes has delivered what there is.")
ONE = click.argument("container", type=CONTAINER)
SIZES = ("DELIVERED", "UNCONFIRMED", "WAITING")
TITLES = ("NAME", "DRIVER", "STATE", *SIZES, "LAG", "DROPPED", "RETRIES", "OFF BY", "ERROR")


@click.group()
def driver() -> None:
    """Show and change where a container's output is delivered, while it runs."""


@driver.command("ls", cls=Command, examples=("logd log driver ls web",))
@FORMAT
@ONE
@click.pass_obj
def list_drivers(client: Client, *, form: str, container: str) -> None:
    """Show a container's log drivers, how far they have come, and what ails them."""
    drivers = client.json("GET", f"/logd/containers/{quote(container)}/drivers")
    if form == "json":
        print_json(drivers)
    else:
        print_drivers(drivers)


@driver.command(
    "set", cls=Command, examples=("logd log driver set web syslog --log-opt syslog-address=udp://logs:514",)
)
@LOG_OPT
@FROM
@DROP
@ONE
@click.argument("drivers", metavar="DRIVER[,NAME=DRIVER...]")
@click.pass_obj
def set_drivers(
    client: Client, *, container: str, drivers: str, log_opt: Sequence[str], begin: str, drop: bool
) -> None:
    """Replace all log drivers of a container, and their options."""
    body = {"Type": drivers, "Config": pairs("--log-opt", log_opt)}
    _change(client, "PUT", container, "", body, begin=begin, drop=drop)


@driver.command(
    "add", cls=Command, examples=("logd log driver add web audit=fluentd --log-opt fluentd-address=logs --from start",)
)
@LOG_OPT
@FROM
@ONE
@click.argument("driver_name", metavar="[NAME=]DRIVER")
@click.pass_obj
def add_driver(client: Client, *, container: str, driver_name: str, log_opt: Sequence[str], begin: str) -> None:
    """Deliver to one destination more; the others go on."""
    body = {"Driver": driver_name, "Config": pairs("--log-opt", log_opt)}
    _change(client, "POST", container, "", body, begin=begin, drop=False)


@driver.command("remove", cls=Command, examples=("logd log driver remove web audit",))
@DROP
@ONE
@click.argument("name")
@click.pass_obj
def remove_driver(client: Client, *, container: str, name: str, drop: bool) -> None:
    """Deliver to one destination less, after it has got what there is now."""
    _change(client, "DELETE", container, f"/{quote(name)}", None, begin="now", drop=drop)


@driver.command(
    "apply-default",
    cls=Command,
    examples=("logd log driver apply-default web", "logd log driver apply-default --all --from start"),
)
@click.option("--all", "everywhere", is_flag=True, help="All containers that were created with the default.")
@FROM
@DROP
@click.argument("containers", nargs=-1, type=CONTAINER, metavar="[CONTAINER...]")
@click.pass_obj
def apply_default(client: Client, *, containers: Sequence[str], everywhere: bool, begin: str, drop: bool) -> None:
    """Give containers that were created without --log-driver what is the daemon's default now.

    Prints the names of those that have changed.
    """
    if everywhere == bool(containers):
        raise click.UsageError("name containers, or give --all")
    query: dict[str, str | int | bool | list[str] | None] = {"from": begin, "drain": not drop}

    def apply(name: str) -> None:
        try:
            done = client.json("POST", f"/logd/containers/{quote(name)}/drivers/default", query)
        except Refused as error:
            if everywhere and error.status in {Conflict.status, NotFound.status}:
                return  # one with drivers of its own, or removed meanwhile
            raise type(error)(error.status, f"{name}: {error}") from error
        if done["Changed"]:
            sys.stdout.write(f"{visible(name)}\n")

    found = client.json("GET", "/containers/json", {"all": True}) if everywhere else ()
    each([one["Names"][0].removeprefix("/") for one in found] or containers, apply, echo=False)


@click.command(cls=Command, examples=("logd plugins", "logd plugins --format json"))
@FORMAT
@click.pass_obj
def plugins(client: Client, *, form: str) -> None:
    """Show log drivers and line processors, the plugins they come from, and those that are broken."""
    found = client.json("GET", "/logd/plugins")
    if form == "json":
        print_json(found)
        return
    rows = [(one["name"], "log driver", one["plugin"], "") for one in found["drivers"]]
    rows += [(name, "line processor", "", "") for name in found["processors"]]
    rows += [(one["plugin"], "broken", "", one["reason"]) for one in found["broken"]]
    print_table(("NAME", "KIND", "PLUGIN", "REASON"), rows)
    if found["forwarders"]:
        titles = ("FORWARDER", "STATE", "PID", "RESTARTS", "DELIVERIES", "ERROR")
        keys = ("plugin", "state", "pid", "restarts", "routes", "error")
        print_table(titles, [tuple(str(one[key]) for key in keys) for one in found["forwarders"]])


def print_drivers(drivers: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each of a container's drivers."""
    print_table(TITLES, [_row(one) for one in drivers])


def _row(one: Mapping[str, Any]) -> Sequence[str]:
    size: Callable[[str], str] = lambda key: format_size(one.get(key, 0))  # noqa: E731
    dropped = ", ".join(f"{format_size(count)} {reason}" for reason, count in one.get("dropped", {}).items()) or "0B"
    state = one["state"] if one["forwarder"] in {"running", "none"} else one["forwarder"]
    lag = f"{one.get('lag_s', 0.0):.1f}s"
    sizes = (size("delivered"), size("unconfirmed"), size("buffered"))
    counts = (str(one.get("retries", 0)), str(one.get("difference", 0)))
    return (one["name"], one["driver"], state, *sizes, lag, dropped, *counts, one["error"])


def _change(
    client: Client, method: str, container: str, rest: str, body: dict[str, Any] | None, *, begin: str, drop: bool
) -> None:
    query: dict[str, str | int | bool | list[str] | None] = {"from": begin, "drain": not drop}
    client.request(method, f"/logd/containers/{quote(container)}/drivers{rest}", query, json_body=body).close()
