"""`logd ps`: containers, in the columns and under the names of `docker ps`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from logd.cli.client import Client
from logd.cli.command import Command
from logd.cli.formats import FILTER, FORMAT, NO_TRUNC, QUIET, TABLE, Columns, print_rows
from logd.cli.references import SHORT_ID, parse_filters, short_id
from logd.cli.tables import ago, local_time, shorten
from logd.units import format_size

SHOWN: Final = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
TITLES: Final = {
    "Command": "COMMAND", "CreatedAt": "CREATED AT", "ID": "CONTAINER ID", "Image": "IMAGE", "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES", "Mounts": "MOUNTS", "Names": "NAMES", "Networks": "NETWORKS", "Ports": "PORTS",
    "RunningFor": "CREATED", "Size": "SIZE", "State": "STATE", "Status": "STATUS",
}  # fmt: skip
COMMAND_LENGTH: Final = 20
MOUNT_LENGTH: Final = 15


@click.command(
    cls=Command,
    examples=(
        "logd ps",
        "logd ps -a --filter status=exited --filter label=app=web",
        "logd ps --format 'table {{.Names}}\\t{{.Status}}\\t{{.Ports}}'",
        "logd ps -a --format json | jq -r '.Names, .Status'",
    ),
)
@click.option("-a", "--all", "every", is_flag=True, help="Show all containers (default: only those that run).")
@QUIET
@click.option("-n", "--last", type=int, default=None, help="Show the N containers created last, running or not.")
@click.option("-l", "--latest", is_flag=True, help="Show the container created last, running or not.")
@FILTER
@NO_TRUNC
@click.option("-s", "--size", is_flag=True, help="Show how much each has written, and how large it is with its image.")
@FORMAT
@click.pass_obj
def ps(
    client: Client,
    *,
    every: bool,
    quiet: bool,
    last: int | None,
    latest: bool,
    filters: Sequence[str],
    no_trunc: bool,
    size: bool,
    form: str,
) -> None:
    """List containers."""
    limit = 1 if latest and last is None else last
    size = size or ".Size" in form
    query = {"all": every, "limit": limit, "size": size or None, "filters": parse_filters(filters)}
    items = client.json("GET", "/containers/json", query)
    if quiet and form == TABLE:
        for item in items:
            sys.stdout.write(f"{item['Id'] if no_trunc else short_id(item['Id'])}\n")
        return
    rows = [row(item, whole=no_trunc, size=size) for item in items]
    labels = {shown["ID"]: item.get("Labels") or {} for shown, item in zip(rows, items, strict=True)}
    columns = Columns((*SHOWN, "Size") if size else SHOWN, TITLES, state="Status")
    print_rows(form, columns, rows, labels)


def row(item: Mapping[str, Any], *, whole: bool, size: bool) -> dict[str, str]:
    """Return what docker shows of an item of GET /containers/json."""
    command = json.dumps(item["Command"] if whole else shorten(item["Command"], COMMAND_LENGTH), ensure_ascii=False)
    mounts = [str(mount.get("Name") or mount.get("Source", "")) for mount in item.get("Mounts") or ()]
    return {
        "Command": command,
        "CreatedAt": local_time(item["Created"]),
        "ID": item["Id"] if whole else short_id(item["Id"]),
        "Image": item["Image"] if whole else _image(item),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in item.get("Mounts") or ())),
        "Mounts": ",".join(mounts if whole else (shorten(one, MOUNT_LENGTH) for one in mounts)),
        "Names": ",".join(name.removeprefix("/") for name in item["Names"]),
        "Networks": ",".join(sorted((item.get("NetworkSettings") or {}).get("Networks") or ())),
        "Ports": ports(item.get("Ports") or ()),
        "RunningFor": ago(item["Created"]),
        "Size": _size(item) if size else "0B",
        "State": item["State"],
        "Status": item["Status"] or item["State"].capitalize(),
    }


def ports(items: Iterable[Mapping[str, Any]]) -> str:
    """Return published and exposed ports as docker writes them: neighbours that are only exposed are one range."""
    found: list[str] = []
    groups: dict[str, list[int]] = {}  # by protocol, with the address before it: first and last port
    published: list[str] = []
    for item in sorted(items, key=_port_key):
        port, key, address = item["PrivatePort"], item["Type"], item.get("IP") or ""
        if address:
            if item.get("PublicPort") != port:
                published.append(f"{_bracketed(address)}:{item.get('PublicPort')}->{port}/{key}")
                continue
            key = f"{_bracketed(address)}/{key}"
        group = groups.get(key)
        if group is not None and port == group[1] + 1:
            group[1] = port
            continue
        if group is not None:
            found.append(_range(key, *group))
        groups[key] = [port, port]
    found += [_range(key, *group) for key, group in groups.items()]
    return ", ".join(found + published)


def _port_key(item: Mapping[str, Any]) -> tuple[Any, ...]:
    return (item["PrivatePort"], item.get("IP") or "", item.get("PublicPort") or 0, item["Type"])


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _range(key: str, first: int, last: int) -> str:
    address, _, protocol = key.rpartition("/")
    span = str(first) if first == last else f"{first}-{last}"
    return f"{address}:{span}->{span}/{protocol}" if address else f"{span}/{protocol}"


def _image(item: Mapping[str, Any]) -> str:
    image = str(item["Image"])
    identity = short_id(str(item.get("ImageID") or ""))
    if not image:
        return "<no image>"
    if image.startswith("sha256:"):
        return image.removeprefix("sha256:")[:SHORT_ID]
    if identity and image[:SHORT_ID] == identity:
        return identity
    return image.partition("@")[0]


def _size(item: Mapping[str, Any]) -> str:
    own, whole = item.get("SizeRw") or 0, item.get("SizeRootFs") or 0
    shown = format_size(own, 3)
    return f"{shown} (virtual {format_size(whole, 3)})" if whole > 0 else shown
