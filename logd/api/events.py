"""GET /events: what happens to containers and images, one JSON object a line, until the client goes.

Source: Docker Engine API 1.47, SystemEvents.
"""

import time
from typing import Final

from aiohttp import web

from logd.api import viewers
from logd.api.call import Call, Route, Version, json_line
from logd.api.filters import parse_filters
from logd.errors import InvalidParameter
from logd.units import parse_time


async def stream_events(call: Call) -> web.StreamResponse:
    """Send the kept events of the time that was asked for, and then each as it happens."""
    since_ns, until_ns = _time(call, "since"), _time(call, "until")
    if until_ns is not None and since_ns is not None and until_ns < since_ns:
        raise InvalidParameter(
            f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})"
        )
    filters = parse_filters(call.text("filters"))
    listener = call.parts.events.subscribe(since_ns, until_ns, filters)
    try:
        response = await call.stream("application/json")
        async for event in listener:
            # image create events came with API 1.46
            if call.version >= Version(1, 46) or (event["Type"], event["Action"]) != ("image", "create"):
                await response.write(json_line(viewers.event(event) if call.viewer else event))
        return response
    finally:
        listener.close()


def _time(call: Call, key: str) -> int | None:
    """Return a time parameter in nanoseconds: Unix seconds with a fraction, RFC 3339, or a duration before now."""
    text = call.text(key)
    if not text:
        return None
    try:
        return parse_time(text, time.time_ns())
    except ValueError as error:
        raise InvalidParameter(f'invalid value for "{key}": {error}') from error


ROUTES: Final = [Route("GET", "/events", stream_events, stream="events", viewers=True)]
