"""Volumes: those that an image asks for. Each is made with its container and may outlive it (`docker rm` without -v).

Source: Docker Engine API 1.47, Volume. A volume is a folder <data-root>/volumes/<name>/_data.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from logd.api.call import Call, Route, answer, done
from logd.api.filters import Filters, parse_filters
from logd.engine.removal import folder_bytes
from logd.errors import Conflict, NotFound
from logd.units import format_time_short

LIST_FILTERS: Final = frozenset(("dangling", "driver", "label", "name"))
PRUNE_FILTERS: Final = frozenset(("all", "label", "label!"))
LABELS: Final = {"com.docker.volume.anonymous": ""}
"""What dockerd puts on volumes that it named itself."""


def _volumes(call: Call) -> dict[str, dict[str, Any]]:
    """Return all volumes by name (blocks)."""
    volumes: dict[str, dict[str, Any]] = {}
    try:
        folders = sorted((call.parts.config.data_root / "volumes").iterdir())
    except FileNotFoundError:
        folders = []
    for folder in folders:
        volumes[folder.name] = {
            "CreatedAt": format_time_short(folder.stat().st_mtime_ns),
            "Driver": "local",
            "Labels": LABELS,
            "Mountpoint": str(folder / "_data"),
            "Name": folder.name,
            "Options": None,
            "Scope": "local",
        }
    return volumes


async def list_volumes(call: Call) -> web.Response:
    """GET /volumes."""
    filters = parse_filters(call.text("filters")).only(LIST_FILTERS)
    users = call.engine.volume_users()
    dangling = filters.flag("dangling")
    shown = [
        volume
        for name, volume in (await asyncio.to_thread(_volumes, call)).items()
        if filters.matches("name", name)
        and filters.equals("driver", "local")
        and filters.has_labels("label", LABELS)
        and dangling in {None, name not in users}
    ]
    return answer({"Volumes": shown, "Warnings": None})


async def list_with_sizes(call: Call) -> list[dict[str, Any]]:
    """Return all volumes with what they take on the disk and how many containers have them (for /system/df)."""
    volumes = await asyncio.to_thread(_volumes, call)
    users = call.engine.volume_users()
    for name, volume in volumes.items():
        size = await asyncio.to_thread(folder_bytes, Path(volume["Mountpoint"]))
        volume["UsageData"] = {"Size": size, "RefCount": len(users.get(name, ()))}
    return list(volumes.values())


async def inspect_volume(call: Call) -> web.Response:
    """GET /volumes/{name}."""
    volume = (await asyncio.to_thread(_volumes, call)).get(call.name)
    if volume is None:
        raise NotFound(f"get {call.name}: no such volume")
    return answer(volume)


async def delete_volume(call: Call) -> web.Response:
    """DELETE /volumes/{name}."""
    volume = (await asyncio.to_thread(_volumes, call)).get(call.name)
    if volume is None:
        if call.flag("force"):
            return done()
        raise NotFound(f"get {call.name}: no such volume")
    users = call.engine.volume_users().get(call.name)
    if users:
        raise Conflict(f"remove {call.name}: volume is in use - [{', '.join(users)}]")
    await asyncio.to_thread(shutil.rmtree, Path(volume["Mountpoint"]).parent)
    call.parts.events.publish("volume", "destroy", call.name, {"driver": "local"})
    return done()


async def prune(call: Call) -> web.Response:
    """POST /volumes/prune: remove what no container has."""
    filters = parse_filters(call.text("filters")).only(PRUNE_FILTERS)
    volumes = await asyncio.to_thread(_volumes, call)
    users = call.engine.volume_users()
    deleted, reclaimed = [], 0
    for name, volume in volumes.items():
        folder = Path(volume["Mountpoint"]).parent
        if name not in users and _labels_fit(filters):
            reclaimed += await asyncio.to_thread(folder_bytes, folder)
            await asyncio.to_thread(shutil.rmtree, folder)
            call.parts.events.publish("volume", "destroy", name, {"driver": "local"})
            deleted.append(name)
    call.parts.events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
    return answer({"VolumesDeleted": deleted or None, "SpaceReclaimed": reclaimed})


def _labels_fit(filters: Filters) -> bool:
    unwanted = "label!" in filters and filters.has_labels("label!", LABELS)
    return filters.has_labels("label", LABELS) and not unwanted


ROUTES: Final = [
    Route("GET", "/volumes", list_volumes),
    Route("GET", "/volumes/{name}", inspect_volume),
    Route("DELETE", "/volumes/{name}", delete_volume, lasting=True),
    Route("POST", "/volumes/prune", prune, lasting=True),
]
