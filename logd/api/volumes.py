"""Volumes: made by name or with a container, listed, removed.

Source: Docker Engine API 1.47, Volume; the words are dockerd's.
"""

import asyncio
from typing import Any, Final

import msgspec
from aiohttp import web

from logd.api.call import Call, Route, Version, answer, done
from logd.api.filters import Filters, parse_filters
from logd.engine.removal import delete_folder, folder_bytes
from logd.engine.volume_files import VolumeRecord
from logd.engine.volumes import DRIVER
from logd.errors import InvalidParameter, LogdError, NotFound
from logd.spec import DockerStruct, convert
from logd.units import format_time_short

LIST_FILTERS: Final = frozenset(("dangling", "driver", "label", "name"))
PRUNE_FILTERS: Final = frozenset(("all", "label", "label!"))
ALL_PRUNED_BEFORE: Final = Version(1, 42)
"""From this version of the API on, `prune` leaves volumes with a name alone unless it is told otherwise."""


class VolumeRequest(DockerStruct, frozen=True):
    """The body of POST /volumes/create; without a name it gets one."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    cluster_volume_spec: dict[str, Any] | None = None


def _shown(call: Call, record: VolumeRecord) -> dict[str, Any]:
    return {
        "CreatedAt": format_time_short(record.created_ns),
        "Driver": DRIVER,
        "Labels": record.labels or None,
        "Mountpoint": str(call.engine.volumes.content(record.name)),
        "Name": record.name,
        "Options": record.options or None,
        "Scope": "local",
    }


async def create_volume(call: Call) -> web.Response:
    """POST /volumes/create."""
    if not call.request.can_read_body:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    request = convert(await call.json(), VolumeRequest)
    if request.cluster_volume_spec:
        raise InvalidParameter("cluster volumes are not supported")
    record = await call.engine.volumes.create(
        request.name, driver=request.driver, options=request.driver_opts, labels=request.labels
    )
    return answer(_shown(call, record), 201)


async def list_volumes(call: Call) -> web.Response:
    """GET /volumes."""
    filters = parse_filters(call.text("filters")).only(LIST_FILTERS)
    users = call.engine.volume_users()
    dangling = filters.flag("dangling")
    shown = [
        _shown(call, record)
        for record in call.engine.volumes.all()
        if filters.matches("name", record.name)
        and filters.equals("driver", DRIVER)
        and filters.has_labels("label", record.labels)
        and dangling in {None, record.name not in users}
    ]
    return answer({"Volumes": shown, "Warnings": None})


async def list_with_sizes(call: Call) -> list[dict[str, Any]]:
    """Return volumes with what they take on the disk and how many containers have them (for /system/df).

    Those with options are left out, as in Docker: what they mount is mostly not on this disk.
    """
    users = call.engine.volume_users()
    shown = []
    for record in call.engine.volumes.all():
        if not record.options:
            size = await asyncio.to_thread(folder_bytes, call.engine.volumes.content(record.name))
            usage = {"Size": size, "RefCount": len(users.get(record.name, ()))}
            shown.append({**_shown(call, record), "UsageData": usage})
    return shown


async def inspect_volume(call: Call) -> web.Response:
    """GET /volumes/{name}."""
    return answer(_shown(call, call.engine.volumes.get(call.name)))


async def delete_volume(call: Call) -> web.Response:
    """DELETE /volumes/{name}."""
    try:
        trash = await call.engine.volumes.remove(call.name)
    except NotFound:
        if not call.flag("force"):
            raise
    else:
        await asyncio.to_thread(delete_folder, trash)
    return done()


async def prune(call: Call) -> web.Response:
    """POST /volumes/prune: remove what no container has; of volumes with a name, all or none."""
    filters = parse_filters(call.text("filters")).only(PRUNE_FILTERS)
    with_names = filters.flag("all") or call.version < ALL_PRUNED_BEFORE
    volumes, deleted, reclaimed = call.engine.volumes, [], 0
    with volumes.pruning():
        for record in volumes.all():
            if record.options or not (with_names or record.anonymous) or not _labels_fit(filters, record.labels):
                continue
            try:
                trash = await volumes.remove(record.name)
            except LogdError:  # a container has it, or it can't be removed now
                continue
            reclaimed += await asyncio.to_thread(folder_bytes, trash / "_data")
            await asyncio.to_thread(delete_folder, trash)
            deleted.append(record.name)
    call.parts.events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
    return answer({"VolumesDeleted": deleted or None, "SpaceReclaimed": reclaimed})


def _labels_fit(filters: Filters, labels: dict[str, str]) -> bool:
    unwanted = "label!" in filters and filters.has_labels("label!", labels)
    return filters.has_labels("label", labels) and not unwanted


ROUTES: Final = [
    Route("GET", "/volumes", list_volumes),
    Route("POST", "/volumes/create", create_volume, lasting=True),
    Route("GET", "/volumes/{name}", inspect_volume),
    Route("DELETE", "/volumes/{name}", delete_volume, lasting=True),
    Route("POST", "/volumes/prune", prune, lasting=True),
]
