"""POST /containers/{name}/attach: a client on a container's standard streams.

The connection leaves HTTP (see hijack). It is answered before the container starts: `docker run` attaches first and
then starts, and loses nothing.

Source: Docker Engine API 1.47, ContainerAttach; what the end of stdin means, dockerd 27.
"""

import asyncio
import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from logd.api.call import Call, Route
from logd.api.hijack import Connection, Hijacked, take_over
from logd.api.lineframes import LineEncoder, describe_gap
from logd.api.logs import readable, stream_type
from logd.api.logstream import LogStream
from logd.errors import Conflict, InvalidParameter
from logd.logstore.selection import Selection
from logd.record import Gap

if TYPE_CHECKING:
    from logd.container import Container
    from logd.engine.attach import Attachment

DETACH_KEYS: Final = re.compile(r"(?:[\x00-\x7f]|ctrl-[a-z@\[\\\]^_])(?:,(?:[\x00-\x7f]|ctrl-[a-z@\[\\\]^_]))*")


async def attach(call: Call) -> web.StreamResponse:
    """Answer once attached, then carry the streams until the output ends or the client goes."""
    keys = call.text("detachKeys")
    if keys and not DETACH_KEYS.fullmatch(keys):
        raise InvalidParameter(f"Invalid detach keys ({keys}) provided")
    container = call.engine.get(call.name)
    _check_attachable(call, container)
    if call.flag("logs"):
        readable(call)
    multiplexed = not container.spec.tty
    encoder = LineEncoder(multiplexed=multiplexed)
    streams = call.flag("stdin"), call.flag("stdout"), call.flag("stderr")
    replay = call.flag("logs") and not (call.flag("stream") and container.state.running)
    attachment = call.engine.attach(call.name, stdin=streams[0], stdout=streams[1], stderr=streams[2])
    async with attachment:
        connection = take_over(call, stream_type(call, multiplexed=multiplexed))
        if replay:
            await _replay(call, container, encoder, connection)
        if call.flag("stream"):
            await _carry(container, attachment, encoder, connection, stdin=streams[0] and container.spec.open_stdin)
    await connection.farewell()
    return Hijacked()


def _check_attachable(call: Call, container: "Container") -> None:
    if container.state.paused:
        raise Conflict(f"container {call.name} is paused, unpause the container before attach")
    if container.state.restarting:
        raise Conflict(f"container {call.name} is restarting, wait until the container is running")


async def _replay(call: Call, container: "Container", encoder: LineEncoder, connection: Connection) -> None:
    """Send what the log holds."""
    selection = Selection(stdout=call.flag("stdout"), stderr=call.flag("stderr"))
    if not (selection.stdout or selection.stderr):
        return
    async with LogStream(call.parts, container, selection, follow=False) as stream:
        while items := await stream.next():
            await connection.write(encoder.encode(items))


async def _carry(
    container: "Container", attachment: "Attachment", encoder: LineEncoder, connection: Connection, *, stdin: bool
) -> None:
    """Carry input and output until the output ends, or the client has gone or detached."""
    output = asyncio.create_task(_send(attachment, encoder, connection), name="attach: output")
    source = asyncio.create_task(
        _receive(attachment, connection, stdin=stdin, once=container.spec.stdin_once), name="attach: input"
    )
    try:
        await asyncio.wait((output, source), return_when=asyncio.FIRST_COMPLETED)
        for task in (output, source):
            if task.done():
                task.result()
    except ConnectionResetError:
        pass  # the client has gone: nothing to tell it
    finally:
        output.cancel()
        source.cancel()
        await asyncio.wait((output, source))


async def _send(attachment: "Attachment", encoder: LineEncoder, connection: Connection) -> None:
    """Send output as it comes, until its end or a stretch that this client came too late for."""
    while items := await attachment.read():
        lost = items[-1]
        if isinstance(lost, Gap) and not attachment.lossless:
            await connection.write(encoder.encode(items[:-1]) + encoder.error(describe_gap(lost)))
            return
        await connection.write(encoder.encode(items))


async def _receive(attachment: "Attachment", connection: Connection, *, stdin: bool, once: bool) -> None:
    """Pass input on. Returns when the client has gone, or when the end of its input means that it detaches."""
    while data := await connection.read():
        if stdin:
            await attachment.write_stdin(data)
    if stdin:
        await attachment.close_stdin()
    if connection.lost or (stdin and not once):
        return
    await connection.wait_lost()


ROUTES: Final = [Route("POST", "/containers/{name}/attach", attach)]
