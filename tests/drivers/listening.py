"""A server whose every step a test decides, and the wait for what it shall see."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

TIMEOUT_S = 20.0


class Listener:
    """A server whose every step the test decides. `take` accepts a connection."""

    def __init__(self, where: str | Path = "", port: int = 0, receive_buffer: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX if where else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.bind(str(where) if where else ("127.0.0.1", port))
        self._socket.listen()
        self._socket.setblocking(False)
        self.port = 0 if where else self._socket.getsockname()[1]
        self.address = f"unix://{where}" if where else f"tcp://127.0.0.1:{self.port}"
        self._taken: list[socket.socket] = []

    async def take(self) -> socket.socket:
        async with asyncio.timeout(TIMEOUT_S):
            taken, _ = await self._loop.sock_accept(self._socket)
        self._taken.append(taken)
        return taken

    def close(self) -> None:
        for one in (self._socket, *self._taken):
            one.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.005)
