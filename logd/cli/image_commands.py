"""`logd images`, `import`, `load`."""

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import click

from logd.cli.client import Client, Query, Response
from logd.cli.command import Command
from logd.cli.completion import IMAGE
from logd.cli.formats import FILTER, FORMAT, NO_TRUNC, QUIET, TABLE, Columns, print_rows
from logd.cli.json_stream import results
from logd.cli.progress import progress
from logd.cli.references import parse_filters, short_id
from logd.cli.tables import ago, local_time
from logd.cli.terminal import visible
from logd.errors import InvalidParameter
from logd.units import format_size

BLOCK_BYTES: Final = 256 * 1024
NONE: Final = "<none>"
UNKNOWN: Final = "N/A"


SHOWN: Final = ("Repository", "Tag", "ID", "CreatedSince", "Size")
TITLES: Final = {
    "Containers": "CONTAINERS", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Digest": "DIGEST",
    "ID": "IMAGE ID", "Repository": "REPOSITORY", "SharedSize": "SHARED SIZE", "Size": "SIZE", "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE", "VirtualSize": "VIRTUAL SIZE",
}  # fmt: skip


@click.command(
    cls=Command,
    examples=(
        "logd images",
        "logd images busybox",
        "logd images -q --filter dangling=true",
        "logd images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
    ),
)
@click.option("-a", "--all", "every", is_flag=True, help="Show intermediate images too.")
@click.option("--digests", is_flag=True, help="Show digests.")
@QUIET
@FILTER
@NO_TRUNC
@FORMAT
@click.argument("repository", required=False, type=IMAGE)
@click.pass_obj
def images(
    client: Client,
    *,
    every: bool,
    digests: bool,
    quiet: bool,
    filters: Sequence[str],
    no_trunc: bool,
    form: str,
    repository: str | None,
) -> None:
    """List images."""
    words = [*filters, f"reference={repository}"] if repository else filters
    items = client.json("GET", "/images/json", {"all": every, "filters": parse_filters(words)})
    if quiet and form == TABLE:
        for identity in dict.fromkeys(item["Id"] for item in items):
            sys.stdout.write(f"{identity if no_trunc else short_id(identity)}\n")
        return
    rows = [row for item in items for row in rows_of_image(item, whole=no_trunc)]
    shown = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size") if digests else SHOWN
    print_rows(form, Columns(shown, TITLES), rows)


def rows_of_image(item: Mapping[str, Any], *, whole: bool) -> Iterator[dict[str, str]]:
    """Yield what docker shows of an item of GET /images/json: a row for each of its tags."""
    digests = {repository: digest for repository, _, digest in map(_parted, item.get("RepoDigests") or ())}
    for tag in item.get("RepoTags") or [f"{NONE}:{NONE}"]:
        repository, name = split_reference(tag)
        yield {
            "Containers": UNKNOWN if item.get("Containers", -1) < 0 else str(item["Containers"]),
            "CreatedAt": local_time(item["Created"]),
            "CreatedSince": ago(item["Created"]),
            "Digest": digests.get(repository) or NONE,
            "ID": item["Id"] if whole else short_id(item["Id"]),
            "Repository": repository,
            "SharedSize": _size(item.get("SharedSize", -1)),
            "Size": format_size(item["Size"], 3),
            "Tag": name or NONE,
            "UniqueSize": _size(item["Size"] - item["SharedSize"] if item.get("SharedSize", -1) >= 0 else -1),
            "VirtualSize": format_size(item["Size"], 4),
        }


def _size(size: int) -> str:
    return UNKNOWN if size < 0 else format_size(size)


def _parted(reference: str) -> tuple[str, str, str]:
    return reference.partition("@")


@click.command(
    "import",
    cls=Command,
    examples=(
        "logd import rootfs.tar.gz base:1",
        "tar -C rootfs -c . | logd import -c 'CMD [\"/bin/sh\"]' - base",
    ),
)
@click.option(
    "-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Apply an instruction, such as 'CMD sh'."
)
@click.option("-m", "--message", help="Note in the image's history.")
@click.option("--platform", help="Platform of the image, such as linux/amd64.")
@click.argument("file", metavar="FILE|-")
@click.argument("name", required=False, metavar="[REPOSITORY[:TAG]]")
@click.pass_obj
def import_(
    client: Client, *, changes: Sequence[str], message: str | None, platform: str | None, file: str, name: str | None
) -> None:
    """Make an image of a tar archive of a root file system ("-" reads it from standard input)."""
    repository, tag = split_reference(name or "")
    query: Query = {
        "fromSrc": "-", "repo": repository or None, "tag": tag or None, "message": message, "platform": platform,
        "changes": list(changes),
    }  # fmt: skip
    for item in results(upload(client, "/images/create", query, file)):
        if "status" in item:
            sys.stdout.write(f"{visible(item['status'])}\n")


@click.command(
    cls=Command,
    examples=(
        "logd load -i shop.tar",
        "zcat shop.tar.gz | logd load",
    ),
)
@click.option("-i", "--input", "file", default="-", metavar="FILE", help="Read this file instead of standard input.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_obj
def load(client: Client, *, file: str, quiet: bool) -> None:
    """Load images from an archive of `docker save` or an OCI layout."""
    if file == "-" and sys.stdin.isatty():
        raise InvalidParameter("requested load from stdin, but stdin is empty (use -i FILE, or a pipe)")
    for item in results(upload(client, "/images/load", {"quiet": True}, file, quiet=quiet)):
        if "stream" in item and not quiet:
            sys.stdout.write(f"{visible(item['stream'].rstrip())}\n")


def split_reference(name: str) -> tuple[str, str]:
    """Return repository and tag; a colon before the last slash belongs to a registry's port."""
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "")


def upload(client: Client, path: str, query: Query, file: str, *, quiet: bool = False) -> Response:
    """Send a file, or standard input for `-`, and return the answer. Raises InvalidParameter if it can't be read."""
    with opened(file) as source:
        status = os.fstat(source.fileno())
        total = status.st_size if stat.S_ISREG(status.st_mode) else None
        with progress(f"Sending {'standard input' if file == '-' else file}", total, quiet=quiet) as advance:
            return client.request("POST", path, query, body=blocks(source, advance))


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """Open a file to read, or standard input for `-`. Raises InvalidParameter where that fails."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = open(file, "rb")  # noqa: SIM115  # it is closed below; here only its own errors are met
    except OSError as error:
        raise InvalidParameter(f"{file}: {error.strerror}") from error
    with source:
        yield source


def blocks(source: BinaryIO, advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the source's bytes, and tell how many they are."""
    while block := source.read(BLOCK_BYTES):
        advance(len(block))
        yield block
