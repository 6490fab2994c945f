"""`logd rmi`, `tag`, `history`: what is done to images that are there."""

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from logd.cli.client import Client, quote
from logd.cli.command import Command
from logd.cli.completion import IMAGE
from logd.cli.formats import FORMAT, NO_TRUNC, QUIET, TABLE, Columns, print_rows
from logd.cli.image_commands import split_reference
from logd.cli.references import each, short_id
from logd.cli.tables import ago, shorten
from logd.cli.terminal import visible
from logd.units import format_size, format_time_short

SHOWN: Final = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
TITLES: Final = {
    "Comment": "COMMENT", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "CreatedSince": "CREATED",
    "ID": "IMAGE", "Size": "SIZE",
}  # fmt: skip
NS: Final = 1_000_000_000
CREATED_BY_LENGTH: Final = 45


@click.command(cls=Command, examples=("logd rmi shop:1.1", "logd rmi $(logd images -q --filter dangling=true)"))
@click.option("-f", "--force", is_flag=True, help="Remove it even if stopped containers are made from it.")
@click.option("--no-prune", is_flag=True, help="Keep its parents that have no name.")
@click.argument("images", nargs=-1, required=True, type=IMAGE, metavar="IMAGE...")
@click.pass_obj
def rmi(client: Client, *, force: bool, no_prune: bool, images: Sequence[str]) -> None:
    """Remove images: a name, and with its last name the image."""

    def remove(name: str) -> None:
        for item in client.json("DELETE", f"/images/{quote(name)}", {"force": force, "noprune": no_prune}):
            print_removed(item)

    each(images, remove, echo=False)


def print_removed(item: dict[str, str]) -> None:
    """Print what has been removed: a name, or content."""
    for key in ("Untagged", "Deleted"):
        if key in item:
            sys.stdout.write(f"{key}: {visible(item[key])}\n")


@click.command(cls=Command, examples=("logd tag shop:1.2 shop:latest",))
@click.argument("image", type=IMAGE)
@click.argument("name", metavar="REPOSITORY[:TAG]")
@click.pass_obj
def tag(client: Client, *, image: str, name: str) -> None:
    """Give an image one more name."""
    repository, tag_name = split_reference(name)
    client.request("POST", f"/images/{quote(image)}/tag", {"repo": repository, "tag": tag_name or None}).close()


@click.command(cls=Command, examples=("logd history shop:1.2", "logd history --format '{{.CreatedBy}}' shop"))
@click.option("-H", "--human/--no-human", default=True, help="Sizes and dates for people (default), or exact.")
@NO_TRUNC
@QUIET
@FORMAT
@click.argument("image", type=IMAGE)
@click.pass_obj
def history(client: Client, *, human: bool, no_trunc: bool, quiet: bool, form: str, image: str) -> None:
    """Show the layers of an image and how each was made, the last one first."""
    items = client.json("GET", f"/images/{quote(image)}/history")
    rows = [_row(item, whole=no_trunc, human=human) for item in items]
    if quiet and form == TABLE:
        for row in rows:
            sys.stdout.write(f"{row['ID']}\n")
        return
    print_rows(form, Columns(SHOWN, TITLES), rows)


def _row(item: dict[str, Any], *, whole: bool, human: bool) -> dict[str, str]:
    made_by = str(item["CreatedBy"]).replace("\t", " ")
    created = format_time_short(item["Created"] * NS)
    return {
        "Comment": item["Comment"],
        "CreatedAt": created,
        "CreatedBy": made_by if whole else shorten(made_by, CREATED_BY_LENGTH),
        "CreatedSince": ago(item["Created"]) if human else created,
        "ID": item["Id"] if whole else short_id(item["Id"]),
        "Size": format_size(item["Size"], 3) if human else str(item["Size"]),
    }
