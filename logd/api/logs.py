"""GET /containers/{name}/logs, as the docker CLI and the SDKs read it.

Source: Docker Engine API 1.47, ContainerLogs; details, content types and words, dockerd 27.
"""

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from logd.api.call import Call, Route, Version
from logd.api.details import details
from logd.api.lineframes import LineEncoder, describe_gap
from logd.api.logstream import BUDGET, LogStream
from logd.engine.logopts import logging_of
from logd.errors import Conflict, Forbidden, InvalidParameter, Unsupported
from logd.logstore.selection import Selection
from logd.record import Gap
from logd.units import parse_time

if TYPE_CHECKING:
    from logd.container import Container

MULTIPLEXED_STREAM: Final = "application/vnd.docker.multiplexed-stream"
RAW_STREAM: Final = "application/vnd.docker.raw-stream"
BYTE_COPIERS: Final = ("Docker-Client/", "logd/")
"""User agents of clients that copy bytes, to which a frame of many lines is the same as many frames of one line."""
PREFIXED_BUDGET: Final = BUDGET // 4
"""With a prefix before each line a run may grow thirtyfold; so less is read at a time."""


async def logs(call: Call) -> web.StreamResponse:
    """Stream a container's log: everything is checked before the stream begins."""
    selection = parse_selection(call)
    if call.viewer and call.flag("details"):
        raise Forbidden("details: this socket is for viewers, who are shown no environment variables")
    container = readable(call)
    timestamps, prefixed = call.flag("timestamps"), call.flag("timestamps") or call.flag("details")
    multiplexed = not container.spec.tty
    encoder = LineEncoder(
        multiplexed=multiplexed,
        per_line=not call.request.headers.get("User-Agent", "").startswith(BYTE_COPIERS),
        timestamps=timestamps,
        details=details(container) if call.flag("details") else None,
    )
    budget = PREFIXED_BUDGET if prefixed else BUDGET
    stream = LogStream(call.parts, container, selection, follow=call.flag("follow"), budget=budget, times=timestamps)
    async with stream:
        response = await call.stream(stream_type(call, multiplexed=multiplexed))
        if not call.flag("details"):  # whose prefixes may be long
            stream.push_to(partial(call.write_at_once, response, encoder.encode))
        while items := await stream.next():
            lost = next((item for item in items if isinstance(item, Gap) and is_behind(item)), None)
            if lost is not None:
                await response.write(encoder.encode(items[: items.index(lost)]) + encoder.error(describe_gap(lost)))
                break
            await response.write(encoder.encode(items))
    return response


def stream_type(call: Call, *, multiplexed: bool) -> str:
    """Return the content type of a log stream for the client's version."""
    return MULTIPLEXED_STREAM if multiplexed and call.version >= Version(1, 42) else RAW_STREAM


def readable(call: Call) -> "Container":
    """Return the container in the path. Raises what dockerd does if it has no log that can be read."""
    container = call.engine.get(call.name)
    if container.state.removing or container.state.dead:
        raise Conflict("can not get logs from container which is dead or marked for removal")
    if not logging_of(container.host.log_config).is_readable:
        raise Unsupported("configured logging driver does not support reading")
    return container


def is_behind(gap: Gap) -> bool:
    """Say whether the gap is this reader's: it was too slow, and what it had not read has been deleted meanwhile.

    Retention takes the oldest first, so a reader that starts with the oldest meets this reason only when it is late.
    """
    return gap.reason == "retention"


def parse_selection(call: Call, **changes: Any) -> Selection:
    """Read stdout, stderr, since, until and tail. Raises InvalidParameter in Docker's words."""
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not (stdout or stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    return Selection(
        stdout=stdout,
        stderr=stderr,
        since_ns=_time(call, "since"),
        until_ns=_time(call, "until"),
        tail=_tail(call.text("tail")),
        **changes,
    )


def _tail(text: str) -> int | None:
    """Return a count of lines; what is no number, or is negative, means all of them, as for dockerd."""
    return int(text) if re.fullmatch(r"\+?[0-9]{1,18}", text) else None


def _time(call: Call, key: str) -> int | None:
    """Return a time parameter; "0", like none, is no limit."""
    text = call.text(key)
    if text in {"", "0"}:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise InvalidParameter(f'invalid value for "{key}": {error}') from error


ROUTES: Final = [Route("GET", "/containers/{name}/logs", logs, stream="logs", viewers=True)]
