"""POST /containers/{name}/attach: a client on a container's standard streams.

The connection leaves HTTP (see hijack). It is answered before the container starts: `docker run` attaches first and
then starts, and loses nothing.

Source: Docker Engine API 1.47, ContainerAttach; what the end of stdin means, dockerd 27.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from logd.api.call import Call, Route
from logd.api.hijack import Connection, Hijacked, take_over
from logd.api.lineframes import LineEncoder, describe_gap
from logd.api.logs import readable, stream_type
from logd.api.logstream import LogStream
from logd.engine.detach import DetachKeys, parse_detach_keys
from logd.errors import Conflict
from logd.logstore.selection import Selection
from logd.record import Gap

if TYPE_CHECKING:
    from logd.container import Container
    from logd.engine.attach import Attachment


async def attach(call: Call) -> web.StreamResponse:
    """Answer once attached, then carry the streams until the output ends or the client goes."""
    parse_detach_keys(call.text("detachKeys"))
    container = call.engine.get(call.name)
    _check_attachable(call, container)
    if call.flag("logs"):
        readable(call)
    if call.flag("logs") and container.state.running:
        return await _attach_after_replay(call, container)
    async with _attachment(call) as attachment:
        client = _Client(call, container)
        if call.flag("logs"):
            await client.replay(finish=True)
        if call.flag("stream"):
            await client.carry(attachment)
    await client.connection.farewell()
    return Hijacked()


async def _attach_after_replay(call: Call, container: "Container") -> web.StreamResponse:
    """Send what was printed so far, and go on exactly there."""
    run = container.run
    client = _Client(call, container)
    cursor = await client.replay(finish=not call.flag("stream"))
    if call.flag("stream"):
        if container.state.running and container.run == run:
            async with _attachment(call, cursor) as attachment:
                await client.carry(attachment)
        else:  # it has ended meanwhile
            await client.replay(finish=True, after=cursor)
    await client.connection.farewell()
    return Hijacked()


def _attachment(call: Call, start: tuple[int, int] | None = None) -> "Attachment":
    wanted = {name: call.flag(name) for name in ("stdin", "stdout", "stderr")}
    return call.engine.attach(call.name, **wanted, start=start)


def _check_attachable(call: Call, container: "Container") -> None:
    if container.state.paused:
        raise Conflict(f"container {call.name} is paused, unpause the container before attach")
    if container.state.restarting:
        raise Conflict(f"container {call.name} is restarting, wait until the container is running")


class _Client:
    """A client that was answered and whose connection carries the streams from here on."""

    def __init__(self, call: Call, container: "Container") -> None:
        multiplexed = not container.spec.tty
        self._call = call
        self._container = container
        self._encoder = LineEncoder(multiplexed=multiplexed)
        self.connection = take_over(call, stream_type(call, multiplexed=multiplexed))

    async def replay(self, *, finish: bool, after: tuple[int, int] | None = None) -> tuple[int, int]:
        """Send what the log holds, with `finish` a last line without a newline too; return where that ends."""
        stdout, stderr = self._call.flag("stdout"), self._call.flag("stderr")
        if not (stdout or stderr):
            return self._container.ended_positions
        selection = Selection(stdout=stdout, stderr=stderr, after=after)
        stream = LogStream(self._call.parts, self._container, selection, follow=False, times=False, finish=finish)
        async with stream:
            while items := await stream.next():
                await self.connection.write(self._encoder.encode(items))
            return stream.cursor

    async def carry(self, attachment: "Attachment") -> None:
        """Carry input and output until the output ends, or the client has gone or detached."""
        connection = self.connection
        output = asyncio.create_task(_send(attachment, self._encoder, connection), name="attach: output")
        source = asyncio.create_task(self._receive(attachment), name="attach: input")
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

    async def _receive(self, attachment: "Attachment") -> None:
        """Pass input on. Returns when the client has gone, has left, or the end of its input means that it leaves."""
        spec, connection = self._container.spec, self.connection
        if not (self._call.flag("stdin") and spec.open_stdin):
            while await connection.read():
                pass
            await connection.wait_lost()
        elif spec.tty:
            await self._receive_typed(attachment)
        else:
            while data := await connection.read():
                await attachment.write_stdin(data)
            await attachment.close_stdin()
            if spec.stdin_once and not connection.lost:
                await connection.wait_lost()

    async def _receive_typed(self, attachment: "Attachment") -> None:
        """Pass on what is typed, until its end or the detach keys; either leaves the container as it is."""
        keys = DetachKeys(parse_detach_keys(self._call.text("detachKeys")))
        while data := await self.connection.read():
            await attachment.write_stdin(keys.feed(data))
            if keys.found:
                attachment.detach()
                return
        await attachment.write_stdin(keys.finish())


async def _send(attachment: "Attachment", encoder: LineEncoder, connection: Connection) -> None:
    """Send output as it comes, until its end or a stretch that this client came too late for."""
    while items := await attachment.read():
        lost = items[-1]
        if isinstance(lost, Gap) and not attachment.lossless:
            await connection.write(encoder.encode(items[:-1]) + encoder.error(describe_gap(lost)))
            return
        await connection.write(encoder.encode(items))


ROUTES: Final = [Route("POST", "/containers/{name}/attach", attach, stream="attach")]
