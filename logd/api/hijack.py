"""A connection taken over from HTTP: plain bytes both ways, as attach needs them.

aiohttp's own protocol object is kept behind this one and told when the connection is lost, since it has the task
that runs the handler. The client may close its sending half (the end of stdin) and go on receiving.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

from logd.api.call import Call
from logd.api.hangup import watch_hang_up

INPUT_LIMIT: Final = 256 * 1024
"""Bytes read ahead of who takes them; beyond it the client waits."""
FAREWELL_S: Final = 5.0
"""How long a client has to close its side after ours: dropping bytes of its that are unread would look like an
error to it (unix(7): a socket closed with unread data resets its peer)."""


class Connection(asyncio.Protocol):
    """What remains of a request after `take_over`. Used by one task; all of it in the event loop."""

    def __init__(self, transport: asyncio.Transport, predecessor: asyncio.BaseProtocol, early: bytes) -> None:
        self._transport = transport
        self._predecessor = predecessor
        self._input = deque((early,) if early else ())
        self._input_size = len(early)
        self._input_ended = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._end_watch: Callable[[], None] | None = None

    @property
    def lost(self) -> bool:
        """Whether the client has gone."""
        return self._lost.is_set()

    async def wait_lost(self) -> None:
        """Return when the client has gone."""
        await self._lost.wait()

    async def read(self) -> bytes:
        """Return what the client has sent, b"" once it will send no more."""
        while not self._input:
            if self._input_ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._input.popleft()
        self._input_size -= len(data)
        if self._input_size <= INPUT_LIMIT // 2 and not self._input_ended and not self.lost:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client is behind. Raises ConnectionResetError when it has gone."""
        if self.lost:
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    async def farewell(self) -> None:
        """Tell the client that nothing more comes, and wait a while for it to close its side."""
        if self.lost:
            return
        with contextlib.suppress(OSError):
            self._transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                while await self.read():
                    pass

    def data_received(self, data: bytes) -> None:
        """Keep input until it is read."""
        self._input.append(data)
        self._input_size += len(data)
        if self._input_size > INPUT_LIMIT:
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        """Note the end of input and keep the connection; from here on only a hang-up tells that the client is gone."""
        self._end_input()
        self._end_watch = watch_hang_up(self._transport)
        return True

    def pause_writing(self) -> None:
        """Take no more output."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Take output again."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake who waits, and tell aiohttp, which then cancels the handler."""
        self._lost.set()
        self._end_input()
        self._writable.set()
        if self._end_watch is not None:
            self._end_watch()
        self._predecessor.connection_lost(exc)

    def _end_input(self) -> None:
        self._input_ended = True
        self._arrived.set()


class Hijacked(web.StreamResponse):
    """Stands for the answer that has been written by hand: aiohttp sends nothing and closes the connection."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send no head."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send no end."""

    @property
    def keep_alive(self) -> bool | None:
        """Tell that no further request comes."""
        return False


def take_over(call: Call, content_type: str) -> Connection:
    """Answer that the connection now carries a stream (101 if an upgrade was asked for, else 200), and take it.

    A client reads this answer before it sends, as RFC 9110 section 7.8 wants and Docker's do: of what comes earlier the
    HTTP parser keeps nothing, unless it knows the protocol that is asked for (aiohttp's parser in Python does).
    Raises ConnectionResetError if the client has gone.
    """
    request = call.request
    transport, protocol = request.transport, request.protocol
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    early, protocol._message_tail = protocol._message_tail, b""
    connection = Connection(transport, cast(asyncio.BaseProtocol, protocol), early)
    transport.set_protocol(connection)
    call.begin()
    if not transport.is_reading():
        transport.resume_reading()
    if "Upgrade" in request.headers:
        head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    else:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    transport.write(head.encode())
    return connection
