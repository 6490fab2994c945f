"""logd's own endpoints on logs, below /logd: what `logs` and `logd log` use.

GET /logd/containers/{name}/logs answers frames of 24 bytes of header, big-endian, and a payload:

    byte 0      kind: 1 stdout, 2 stderr, 3 gap, 4 error, 5 end, 6 start, 7 exec
    bytes 1-3   zero
    bytes 4-7   length of the payload
    bytes 8-15  time, ns since 1970
    bytes 16-23 position: count of the stream's bytes since the container was created

The payload of 1 and 2 is whole lines that share the time, of 3 JSON {"stream", "length", "reason"}, of 4 text, of 5
and 6 the cursor `1:OUT:ERR` after and before the answer; of 7 the beginning of the id of the exec that has printed what
the next frame holds. Parameters are those of Docker's logs, and `after` (OUT,ERR or a cursor: resume there), `grep`
(RE2 syntax: only lines in which it is found) and `execs` (only what execs have printed).
"""

import re
import struct
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

import orjson
import re2
from aiohttp import web

from logd.api.call import Call, Route
from logd.api.logs import parse_selection, readable
from logd.api.logstream import LogStream
from logd.errors import InvalidParameter
from logd.record import STREAM_NAMES, ExecRun, Gap, Run

CONTENT_TYPE: Final = "application/vnd.logd.runs"
HEADER: Final = struct.Struct(">BxxxIQQ")
GAP: Final = 3
ERROR: Final = 4
END: Final = 5
START: Final = 6
EXEC: Final = 7
AFTER: Final = re.compile(r"(?:1:([0-9]{1,19}):([0-9]{1,19})|([0-9]{1,19}),([0-9]{1,19}))")


async def runs(call: Call) -> web.StreamResponse:
    """GET /logd/containers/{name}/logs."""
    selection = parse_selection(call, after=_after(call.text("after")))
    pattern = compile_pattern(call.text("grep")) if call.text("grep") else None
    container = readable(call)
    follow, restarts = call.flag("follow"), call.flag("restarts")
    async with LogStream(call.parts, container, selection, follow=follow, restarts=restarts) as stream:
        response = await call.stream(CONTENT_TYPE)
        await response.write(_cursor_frame(START, stream.cursor))
        encode = partial(_encode, pattern=pattern, only_execs=call.flag("execs"))
        stream.push_to(partial(call.write_at_once, response, encode))
        while items := await stream.next():
            await response.write(encode(items))
        await response.write(_cursor_frame(END, stream.cursor))
    return response


def compile_pattern(text: str) -> Any:
    """Compile a line's pattern; ^ and $ are the ends of a line. Raises InvalidParameter with RE2's words."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(b"(?m)" + text.encode("utf-8", "surrogateescape"), options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise InvalidParameter(f"grep: invalid regular expression {text!r}: {reason}") from error


def matching_runs(run: Run, pattern: Any) -> Iterator[Run]:
    """Yield the stretches of a run's lines in which the pattern is found; neighbours stay together.

    The whole run is searched at once; only where something is found is a line looked at on its own, since a match
    may reach over a line's end.
    """
    data, place, first, last = run.data, 0, 0, 0
    while place < len(data):
        match = pattern.search(data, place)
        if match is None:
            break
        start = data.rfind(b"\n", place, match.start()) + 1 or place
        newline = data.find(b"\n", start)
        end = len(data) if newline < 0 else newline + 1
        if pattern.search(data[start : end if newline < 0 else newline]):
            if start != last:
                if last > first:
                    yield run._replace(position=run.position + first, data=data[first:last])
                first = start
            last = end
        place = end
    if last > first:
        yield run._replace(position=run.position + first, data=data[first:last])


def _encode(items: Iterable[Run | Gap], pattern: Any | None, *, only_execs: bool) -> bytes:
    if only_execs:
        items = (item for item in items if isinstance(item, ExecRun | Gap))
    return b"".join(_frames(items, pattern))


def _frames(items: Iterable[Run | Gap], pattern: Any | None) -> Iterator[bytes]:
    for item in items:
        if isinstance(item, Gap):
            payload = orjson.dumps(
                {"stream": STREAM_NAMES.get(item.stream, ""), "length": item.length, "reason": item.reason}
            )
            yield HEADER.pack(GAP, len(payload), item.time_ns, item.position)
            yield payload
            continue
        for run in (item,) if pattern is None else matching_runs(item, pattern):
            if isinstance(run, ExecRun):
                yield HEADER.pack(EXEC, len(run.exec_id), run.time_ns, run.position) + run.exec_id.encode()
            yield HEADER.pack(run.stream, len(run.data), run.time_ns, run.position)
            yield run.data


def _cursor_frame(kind: int, cursor: tuple[int, int]) -> bytes:
    text = f"1:{cursor[0]}:{cursor[1]}".encode()
    return HEADER.pack(kind, len(text), time.time_ns(), 0) + text


def _after(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = AFTER.fullmatch(text)
    if not match:
        raise InvalidParameter(f"after: invalid cursor {text!r} (write the positions OUT,ERR, or a cursor 1:OUT:ERR)")
    out, err = (group for group in match.groups() if group is not None)
    return int(out), int(err)


ROUTES: Final = [
    Route("GET", "/logd/containers/{name}/logs", runs, viewers=True),
]
