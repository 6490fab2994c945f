"""`logd events`: what happens to containers, images, networks and volumes, as it happens."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from logd.cli.client import Client, Response
from logd.cli.command import Command
from logd.cli.formats import FILTER, Template, print_lines
from logd.cli.references import parse_filters
from logd.units import NS

OLD_FIELDS: Final = {"status": "Status", "id": "ID", "from": "From"}
"""Fields of the API's first versions, by the names that docker's templates have for them."""


@click.command(
    cls=Command,
    examples=(
        "logd events",
        "logd events --since 1h --until 0s --filter type=container --filter event=die",
        "logd events --format '{{.Time}} {{.Action}} {{.Actor.Attributes.name}}'",
        "logd events --format json | jq -r .Action",
    ),
)
@click.option("--since", metavar="TIME", help="From this time on: RFC 3339, Unix seconds, or how long ago (10m).")
@click.option("--until", metavar="TIME", help="Up to this time, and end then.")
@FILTER
@click.option("--format", "form", default="", metavar="FORMAT", help="json, or a Go template.")
@click.pass_obj
def events(client: Client, *, since: str | None, until: str | None, filters: Sequence[str], form: str) -> None:
    """Show what happens, until Ctrl-C or --until."""
    template = None if form in {"", "json"} else Template(form)
    query = {"since": since, "until": until, "filters": parse_filters(filters)}
    with client.request("GET", "/events", query) as response:
        for event in _events(response):
            if template is not None:
                print_lines([template.fill(_as_document(event))])
            elif form:
                sys.stdout.write(f"{json.dumps(event)}\n")
            else:
                print_lines([line(event)])
            sys.stdout.flush()


def _events(response: Response) -> Iterator[dict[str, Any]]:
    rest = b""
    while not response.ended:
        *lines, rest = (rest + response.receive()).split(b"\n")
        yield from (json.loads(text) for text in lines if text.strip())


def _as_document(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event by Go's names of its fields, which templates use."""
    return {
        **{shown: event.get(name, "") for name, shown in OLD_FIELDS.items()},
        "Type": event["Type"],
        "Action": event["Action"],
        "Actor": event["Actor"],
        "Scope": event.get("scope", ""),
        "Time": event["time"],
        "TimeNano": event["timeNano"],
    }


def line(event: Mapping[str, Any]) -> str:
    """Return an event as docker prints it: time, type, action, id, and attributes in parentheses."""
    actor = event["Actor"]
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    tail = f" ({attributes})" if attributes else ""
    return f"{_time(event['timeNano'])} {event['Type']} {event['Action']} {actor['ID']}{tail}"


def _time(time_ns: int) -> str:
    """Return local time with nine digits and the zone, as docker does."""
    seconds, fraction = divmod(time_ns, NS)
    moment = datetime.fromtimestamp(seconds).astimezone()
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}{zone}"
