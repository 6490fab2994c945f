"""`logd system df`: what takes room on the daemon's disk."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from logd.cli import image_commands, ps_command, volume_commands
from logd.cli.client import Client
from logd.cli.command import Command
from logd.cli.formats import FORMAT, TABLE, Columns, Row, print_document, print_rows
from logd.cli.tables import print_table
from logd.units import format_size

SHOWN: Final = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
TITLES: Final = {
    "Active": "ACTIVE", "Reclaimable": "RECLAIMABLE", "Size": "SIZE", "TotalCount": "TOTAL", "Type": "TYPE",
}  # fmt: skip
UNUSED_CACHE: Final = ("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED")
"""Of the images that are built here: there are none."""
SECTIONS: Final = (
    ("Images", "Images", image_commands.TITLES,
     ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")),
    ("Containers", "Containers", ps_command.TITLES,
     ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")),
    ("Volumes", "Local Volumes", volume_commands.TITLES, ("Name", "Links", "Size")),
)  # fmt: skip
"""Of `-v`: the name that templates have for it, docker's words, titles, and what a table shows."""


@click.command(
    cls=Command,
    examples=(
        "logd system df",
        "logd system df -v",
        "logd system df --format '{{.Type}}: {{.Reclaimable}}'",
        "logd system df -v --format json | jq -r '.Volumes[].Name'",
    ),
)
@click.option("-v", "--verbose", is_flag=True, help="Show each image, container and volume.")
@FORMAT
@click.pass_obj
def df(client: Client, *, verbose: bool, form: str) -> None:
    """Show what images, containers and volumes take on the disk. For logs: `logd log du`."""
    answer = client.json("GET", "/system/df")
    if not verbose:
        print_rows(form, Columns(SHOWN, TITLES), rows_of_disk(answer))
    elif form == TABLE:
        _print_sections(_rows_of_each(answer, whole=False))
    else:
        print_document(form, {**_rows_of_each(answer, whole=True), "BuildCache": []})


def _print_sections(rows: Mapping[str, Sequence[Row]]) -> None:
    for name, words, titles, shown in SECTIONS:
        sys.stdout.write(f"{words} space usage:\n\n")
        print_rows(TABLE, Columns(shown, titles), rows[name])
        sys.stdout.write("\n")
    sys.stdout.write("Build cache usage: 0B\n\n")
    print_table(UNUSED_CACHE, ())


def _rows_of_each(answer: Mapping[str, Any], *, whole: bool) -> dict[str, list[dict[str, str]]]:
    """Return what docker shows of each thing, of an image its first name; `whole`: with nothing cut off."""
    images = (next(image_commands.rows_of_image(item, whole=whole)) for item in answer.get("Images") or ())
    return {
        "Images": [{**row, "Digest": ""} for row in images],
        "Containers": [_row_of_container(item, whole=whole) for item in answer.get("Containers") or ()],
        "Volumes": [_row_of_volume(item) for item in answer.get("Volumes") or ()],
    }


def _row_of_container(item: Mapping[str, Any], *, whole: bool) -> dict[str, str]:
    """Return what docker shows of a container: what it has written, without its image."""
    return ps_command.row({**item, "SizeRootFs": 0}, whole=whole, size=True)


def _row_of_volume(item: Mapping[str, Any]) -> dict[str, str]:
    used = item.get("UsageData") or {}
    row = volume_commands.row(item)
    if used.get("RefCount", -1) >= 0:
        row["Links"] = str(used["RefCount"])
    if used.get("Size", -1) >= 0:
        row["Size"] = format_size(used["Size"])
    return row


def rows_of_disk(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the rows of `docker system df`: a kind of thing each."""
    used = [image for image in answer.get("Images") or () if image["Containers"] > 0]
    shared = sum(image["Size"] - max(image["SharedSize"], 0) for image in used)
    layers = answer.get("LayersSize") or 0
    containers = answer.get("Containers") or ()
    stopped = [one for one in containers if one["State"].lower() not in {"running", "paused", "restarting"}]
    volumes = [one for one in answer.get("Volumes") or () if one.get("UsageData")]
    unused = [one for one in volumes if not one["UsageData"]["RefCount"]]
    sizes = [max(one["UsageData"]["Size"], 0) for one in volumes]
    written = sum(one.get("SizeRw") or 0 for one in containers)
    return [
        _row("Images", len(answer.get("Images") or ()), len(used), layers, layers - shared),
        _row(
            "Containers",
            len(containers),
            len(containers) - len(stopped),
            written,
            sum(one.get("SizeRw") or 0 for one in stopped),
        ),
        _row(
            "Local Volumes",
            len(volumes),
            len(volumes) - len(unused),
            sum(sizes),
            sum(max(one["UsageData"]["Size"], 0) for one in unused),
        ),
        {**_row("Build Cache", 0, 0, 0, 0), "Reclaimable": "0B"},
    ]


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size > 0 else ""
    return {
        "Active": str(active),
        "Reclaimable": format_size(reclaimable) + share,
        "Size": format_size(size),
        "TotalCount": str(total),
        "Type": kind,
    }
