"""logd's own endpoints on stores, below /logd: what `logd log status|clear|du|fsck` show and do.

    GET  /logd/containers/{name}/log         how much there is, and what is missing (status)
    POST /logd/containers/{name}/log/clear   forget what was printed so far
    GET  /logd/log/du                        {"containers": [{"id", "name", "bytes"}, …], "total"}, largest first
    POST /logd/containers/{name}/log/fsck    {"bytes" (of both streams), "problems": [text, …]}

All sizes are bytes. Reading a store may wait for its disk, so it is done in the readers' threads.
"""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from logd.api.call import Call, Route, answer, done
from logd.engine.logopts import store_options
from logd.errors import NotFound
from logd.logstore.fsck import verify
from logd.logstore.opening import open_store
from logd.logstore.segment import GAP_REASONS
from logd.logstore.summary import summary
from logd.logstore.totals import read_totals
from logd.record import STREAM_NAMES
from logd.units import format_time

if TYPE_CHECKING:
    from logd.container import Container

T = TypeVar("T")


async def status(call: Call) -> web.Response:
    """GET /logd/containers/{name}/log."""
    container = call.engine.get(call.name)
    shown = {
        "id": container.id,
        "name": container.name,
        "driver": container.host.log_config.type,
        "options": {} if call.viewer else dict(container.host.log_config.config),
        "runs": container.run,
        "ended": container.log_ended.is_set(),
    }
    shown |= await _in_thread(call, lambda: store_status(str(container.log_dir)))
    if call.viewer:
        return answer(shown)  # drivers tell of their errors, and those of addresses
    return answer(shown | {"drivers": await call.engine.deliveries(container.id)})


def store_status(folder: str) -> dict[str, Any]:
    """Return what a store holds, what it has let go, and the gaps in what it holds (blocks)."""
    held = summary(folder)
    stored = (held.stdout_bytes, held.stderr_bytes)
    streams = {
        STREAM_NAMES[number]: {
            "begin": held.begins[number - 1],
            "position": max(held.ends[number - 1], totals.end),  # what is dropped at present is in no index yet
            "stored": stored[number - 1],
            "expired": totals.expired,
            "cleared": totals.cleared,
            "dropped": {GAP_REASONS.get(code, str(code)): count for code, count in enumerate(totals.dropped) if count},
        }
        for number, totals in read_totals(folder).streams.items()
    }
    return {
        "bytes": disk_bytes(folder),
        "segments": held.segments,
        "first": None if held.first_ns is None else format_time(held.first_ns),
        "last": None if held.last_ns is None else format_time(held.last_ns),
        "streams": streams,
        "gaps": [
            {
                "stream": STREAM_NAMES.get(gap.stream, ""),
                "time": format_time(gap.time_ns),
                "position": gap.position,
                "length": gap.length,
                "reason": gap.reason,
            }
            for gap in held.gaps
        ],
    }


def disk_bytes(folder: str) -> int:
    """Return what the files of a store take on the disk (blocks)."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in entries)
    except FileNotFoundError:
        return 0


async def clear(call: Call) -> web.Response:
    """POST /logd/containers/{name}/log/clear: the shim does it while it lives, else we open the store ourselves."""
    container = call.engine.get(call.name)
    async with container.lock:
        if container.removed:
            raise NotFound(f"No such container: {call.name}")
        if container.shim is not None:
            await container.shim.clear()
        else:
            await _in_thread(call, lambda: _clear_stopped(call, container))
    return done()


def _clear_stopped(call: Call, container: "Container") -> None:
    writer = open_store(str(container.log_dir), store_options(container.host.log_config, call.parts.config))
    try:
        writer.clear()
    finally:
        writer.close()


async def fsck(call: Call) -> web.Response:
    """POST /logd/containers/{name}/log/fsck."""
    container = call.engine.get(call.name)
    return answer(await _in_thread(call, lambda: _check(str(container.log_dir))))


def _check(folder: str) -> dict[str, Any]:
    try:
        problems = [str(finding) for finding in verify(folder)]
    except FileNotFoundError:  # it has never been written
        problems = []
    held = summary(folder)
    return {"bytes": held.stdout_bytes + held.stderr_bytes, "problems": problems}


async def disk_use(call: Call) -> web.Response:
    """GET /logd/log/du."""
    containers = call.engine.containers()
    sizes = await _in_thread(call, lambda: [disk_bytes(str(container.log_dir)) for container in containers])
    largest_first = sorted(zip(sizes, containers, strict=True), key=lambda pair: pair[0], reverse=True)
    items = [{"id": container.id, "name": container.name, "bytes": size} for size, container in largest_first]
    return answer({"containers": items, "total": sum(sizes)})


async def _in_thread(call: Call, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(call.parts.readers, function)


ROUTES: Final = [
    Route("GET", "/logd/containers/{name}/log", status, viewers=True),
    Route("POST", "/logd/containers/{name}/log/clear", clear, lasting=True),
    Route("POST", "/logd/containers/{name}/log/fsck", fsck),
    Route("GET", "/logd/log/du", disk_use),
]
