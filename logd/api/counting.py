"""Counts requests for the metrics: by the route that answers, how it ended, and how long what it did took."""

import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final

from aiohttp import web

from logd.api.call import Call, Route

CLIENT_GONE: Final = 499
"""nginx's number for a request whose client went before there was an answer."""
LOGS: Final = "logs"


async def count(
    route: Route, call: Call, answer: Callable[[Route, Call], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Return the answer. One that was begun counts as 200 when its client goes, and as 500 when it was cut off."""
    daemon = call.parts.metrics.daemon
    begun_s, code = time.perf_counter(), CLIENT_GONE
    try:
        with daemon.streaming(route.stream) if route.stream else nullcontext():
            response = await answer(route, call)
        code = response.status
        if route.action is not None and response.status < 300:
            daemon.took(*route.action, time.perf_counter() - begun_s)
        return response
    finally:
        if call.cut:
            code = 500
        elif call.begun:
            code = 200
        if route.stream == LOGS and code >= 500:
            daemon.logger.reads_failed += 1
        daemon.answered(route.method, route.path, code)
