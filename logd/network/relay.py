"""TCP connections to a published port at ::1, carried to the container by the daemon.

The kernel leads no packet with the address ::1 out of the loopback interface, so that rules can't do it as for
127.0.0.1. These connections end with the daemon, and are refused until the next one; a client that tries both
addresses of `localhost` goes on with 127.0.0.1.
"""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Final

from logd.network.ports import Published

log = logging.getLogger(__name__)

LOOPBACK: Final = "::1"
ALL: Final = "::"
CONNECTIONS: Final = 256
CONNECT_WAIT_S: Final = 10.0
PAUSE_S: Final = 0.1
CHUNK_BYTES: Final = 1 << 16


def is_relayed(published: Published) -> bool:
    """Tell whether connections to ::1 are among those that a published port takes."""
    return published.protocol == "tcp" and published.host_ip in {LOOPBACK, ALL}


class Relay:
    """Takes connections from a listening socket, which is its owner's, until it is closed."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self.target = target
        self._listener = listener
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pausing: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """End all of its connections; to be called before the socket is closed."""
        if self._pausing:
            self._pausing.cancel()
        self._loop.remove_reader(self._listener)
        for task in self._connections:
            task.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors, perhaps
            log.warning("relay to %s: %s", self.target[0], error)
            self._loop.remove_reader(self._listener)
            self._pausing = self._loop.call_later(PAUSE_S, self._listen)
            return
        if client.getsockname()[0] != LOOPBACK or len(self._connections) >= CONNECTIONS:
            client.close()
            return
        task = self._loop.create_task(self._carry(client), name="relayed connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry(self, client: socket.socket) -> None:
        near = await asyncio.open_connection(sock=client)
        try:
            async with asyncio.timeout(CONNECT_WAIT_S):
                far = await asyncio.open_connection(*self.target)
        except (OSError, TimeoutError) as error:
            log.debug("relay to %s: %s", self.target[0], error)
            near[1].transport.abort()  # a reset, as if nobody listened
            return
        try:
            await asyncio.gather(_copy(near[0], far[1]), _copy(far[0], near[1]))
        finally:
            for _, writer in (near, far):
                writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction to its end, and hand the end on; the other one may go on."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()
    except OSError:
        writer.transport.abort()
