"""`logd volume …`: folders that outlive containers, as `docker volume` has it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from logd.cli.client import Client
from logd.cli.command import Command, Group
from logd.cli.completion import VOLUME
from logd.cli.formats import FILTER, FORMAT, TABLE, Columns, print_rows
from logd.cli.inspect_command import inspect_of
from logd.cli.references import parse_filters
from logd.cli.remove_command import rm_of
from logd.cli.words import labels, pairs

SHOWN: Final = ("Driver", "Name")
TITLES: Final = {
    "Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
}  # fmt: skip
UNKNOWN: Final = "N/A"


@click.group(cls=Group)
def volume() -> None:
    """Make, show and remove volumes."""


@volume.command(cls=Command, examples=("logd volume ls", "logd volume ls -q --filter dangling=true"))
@click.option("-q", "--quiet", is_flag=True, help="Print names alone.")
@FILTER
@FORMAT
@click.pass_obj
def ls(client: Client, *, quiet: bool, filters: Sequence[str], form: str) -> None:
    """List volumes."""
    answer = client.json("GET", "/volumes", {"filters": parse_filters(filters)})
    items = sorted(answer["Volumes"] or (), key=lambda one: str(one["Name"]))
    for warning in answer.get("Warnings") or ():
        sys.stderr.write(f"logd: warning: {warning}\n")
    if quiet and form == TABLE:
        for item in items:
            sys.stdout.write(f"{item['Name']}\n")
        return
    labels_of = {item["Name"]: item.get("Labels") or {} for item in items}
    print_rows(form, Columns(SHOWN, TITLES), map(row, items), labels_of)


def row(item: Mapping[str, Any]) -> dict[str, str]:
    """Return what docker shows of a volume; the size is known to `system df` alone."""
    return {
        "Availability": UNKNOWN,
        "Driver": item["Driver"],
        "Group": UNKNOWN,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())),
        "Links": UNKNOWN,
        "Mountpoint": item["Mountpoint"],
        "Name": item["Name"],
        "Scope": item["Scope"],
        "Size": UNKNOWN,
        "Status": UNKNOWN,
    }


@volume.command(
    cls=Command,
    examples=(
        "logd volume create data",
        "logd volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch",
    ),
)
@click.option("-d", "--driver", default="local", show_default=True, help="Driver of the volume.")
@click.option("-o", "--opt", "opts", multiple=True, metavar="KEY=VALUE", help="Option of the driver.")
@click.option("--label", "label_words", multiple=True, metavar="KEY[=VALUE]", help="Attach a label.")
@click.argument("name", required=False)
@click.pass_obj
def create(client: Client, *, driver: str, opts: Sequence[str], label_words: Sequence[str], name: str | None) -> None:
    """Create a volume and print its name (default: one is made up)."""
    body = {"Name": name or "", "Driver": driver, "DriverOpts": pairs("--opt", opts), "Labels": labels(label_words)}
    sys.stdout.write(f"{client.json('POST', '/volumes/create', json_body=body)['Name']}\n")


volume.add_command(inspect_of("volume", VOLUME))
volume.add_command(rm_of("volume", VOLUME, "Remove volumes that no container uses, and what is in them."))
