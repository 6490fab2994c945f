"""GET /containers/{name}/stats: what a container uses, once or each second, as `docker stats` wants it.

Source: Docker Engine API 1.47, ContainerStats; what dockerd 20.10 answers of containers that stop, start and go.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from logd.api.call import JSON, Call, Route, Version, answer, json_line
from logd.errors import InvalidParameter
from logd.sampling import docker
from logd.units import ZERO_TIME

if TYPE_CHECKING:
    from logd.container import Container

INTERVAL_S: Final = 1.0
"""Between two answers of a stream, as dockerd's."""


def since(earlier: docker.Json | None, now: docker.Json) -> docker.Json:
    """Return an answer: a reading with what clients compare it with, of an earlier one or of none."""
    if earlier is None:
        return {**now, "preread": ZERO_TIME, "precpu_stats": docker.no_cpu()}
    return {**now, "preread": earlier["read"], "precpu_stats": earlier["cpu_stats"]}


async def stats(call: Call) -> web.StreamResponse:
    """GET /containers/{name}/stats."""
    streaming = call.flag("stream", default=True)
    one_shot = call.version >= Version(1, 41) and call.flag("one-shot")
    if streaming and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    container = call.engine.get(call.name)
    readings, samples = call.parts.readings, call.engine.samples
    if streaming:
        return await _stream(call, container)
    if one_shot or not container.state.running:
        return answer(since(None, readings.fresh(samples, container)))
    earlier = readings.recent(samples, container)
    await _passes(container, INTERVAL_S)
    return answer(since(earlier, readings.recent(samples, container)))


async def _stream(call: Call, container: "Container") -> web.StreamResponse:
    """Answer each second until the container is removed, or the client goes; empty statistics while it does not run."""
    readings, samples = call.parts.readings, call.engine.samples
    response = await call.stream(JSON)
    earlier, due = None, time.monotonic()
    while True:
        now = readings.recent(samples, container)
        await response.write(json_line(since(earlier, now)))
        earlier, due = now, max(due + INTERVAL_S, time.monotonic())
        if not await _passes(container, due - time.monotonic()):
            return response


async def _passes(container: "Container", seconds: float) -> bool:
    """Wait, and tell whether the container is there still; its removal ends the wait."""
    removal: asyncio.Future[Any] = container.wait("removed")
    try:
        done, _ = await asyncio.wait({removal}, timeout=seconds)
        return not done
    finally:
        removal.cancel()


ROUTES: Final = [Route("GET", "/containers/{name}/stats", stats, stream="stats", viewers=True)]
