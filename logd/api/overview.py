"""GET /logd/stats: what all containers use, in one answer, or in one each second (`stream=1`).

    {"time_ns", "system_cpu_ns", "online_cpus", "memory_total", "containers": [{"id", "name", …}, …]}

Counters are of all runs of a container together. Parameters: `stream`, and `all`, with those that don't run. Who asks
again and again has nothing opened anew, and the log drivers are asked all at once.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import web

from logd.api import host
from logd.api.call import JSON, Call, Route, answer, json_line
from logd.sampling.docker import host_cpu
from logd.usage import Counters, Sample

if TYPE_CHECKING:
    from logd.container import Container
    from logd.engine.engine import Engine

INTERVAL_S: Final = 1.0
DRIVERS_S: Final = 0.5
"""How long the log drivers are waited for: a forwarder that is held up does not hold up this."""
NOTHING: Final = Sample(time_ns=0, counters=Counters())
"""Of a container that does not run."""


class Look(NamedTuple):
    """What was read of a container."""

    sample: Sample
    counters: Counters
    """Of all its runs."""


async def stats(call: Call) -> web.StreamResponse:
    """GET /logd/stats."""
    every = call.flag("all")
    if not call.flag("stream"):
        return answer(await _overview(call, every=every))
    response = await call.stream(JSON)
    due = time.monotonic()
    while True:
        await response.write(json_line(await _overview(call, every=every)))
        due = max(due + INTERVAL_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def _overview(call: Call, *, every: bool) -> dict[str, Any]:
    containers = [one for one in call.engine.containers() if every or one.state.running]
    reading = asyncio.to_thread(_read, call.engine, containers)
    printing = call.parts.printed.of(containers, call.parts.readers)
    drivers, printed, (looks, system_ns, online) = await asyncio.gather(_drivers(call), printing, reading)
    memory_total = host.memory_total()
    return {
        "time_ns": time.time_ns(),
        "system_cpu_ns": system_ns,
        "online_cpus": online,
        "memory_total": memory_total,
        "containers": [
            {
                **_identity(one),
                **_used(one, look, memory_total),
                "log_bytes": printed.get(one.id),
                "driver_state": (worst := drivers.get(one.id, ("", 0.0)))[0],
                "driver_lag_s": worst[1],
            }
            for one, look in zip(containers, looks, strict=True)
        ],
    }


async def _drivers(call: Call) -> Mapping[str, tuple[str, float]]:
    """Return the worst state and lag by container's id; nothing if that takes too long."""
    try:
        async with asyncio.timeout(DRIVERS_S):
            return await call.engine.worst_deliveries()
    except TimeoutError:
        return {}


def _read(engine: "Engine", containers: list["Container"]) -> tuple[list[Look], int, int]:
    """Return a look at each, and the host's CPU time."""
    looks = []
    for container in containers:
        sample, counters = engine.use(container)
        looks.append(Look(sample if sample and container.state.running else NOTHING, counters))
    return looks, *host_cpu(Path("/proc/stat").read_bytes())


def _identity(container: "Container") -> dict[str, Any]:
    health = container.state.health
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image_ref,
        "state": container.state.status,
        "health": health.status if health else "",
        "started_ns": container.state.started_ns,
        "restarts": container.restart_count,
    }


def _used(container: "Container", look: Look, memory_total: int) -> dict[str, Any]:
    sample, counters = look.sample, look.counters
    # The host's interfaces are not the container's.
    interfaces = [] if container.host.network_mode == "host" else [*counters.interfaces.values()]
    devices = counters.devices.values()
    limit = sample.memory_limit
    return {
        "time_ns": sample.time_ns,
        "cpu_ns": counters.cpu_ns,
        "cpu_throttled_ns": counters.cpu_throttled_ns,
        "cpu_limit": sample.cpu_quota_us / sample.cpu_period_us if sample.cpu_quota_us and sample.cpu_period_us else 0,
        "memory_usage": sample.memory_usage,
        "memory_working_set": sample.working_set,
        "memory_limit": min(limit, memory_total) if limit else memory_total,
        "rx_bytes": sum(one.rx_bytes for one in interfaces),
        "tx_bytes": sum(one.tx_bytes for one in interfaces),
        "read_bytes": sum(one.read_bytes for one in devices),
        "written_bytes": sum(one.written_bytes for one in devices),
        "pids": sample.pids,
        "pids_limit": sample.pids_limit,
        "oom_kills": counters.oom_kills,
        "pressure": {
            resource: {"avg10": round(sample.stalled.get(resource, 0.0) * 100, 2), **stall._asdict()}
            for resource, stall in counters.stalls.items()
        },
    }


ROUTES: Final = [Route("GET", "/logd/stats", stats, stream="stats", viewers=True)]
