"""A named pipe through which a plugin reads a container's output, and what the kernel knows of it: pipe(7), fifo(7).

The writer keeps the pipe open for writing only. So poll tells when there is no reader (POLLERR), and FIONREAD what is
in the pipe that the plugin has not read, even after its death: nothing that it had not read counts as sent.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import select
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PIPE_BYTES: Final = 256 << 10
WRITE_BYTES: Final = 128 << 10
SHORTEST_POLL_S: Final = 0.0005
LONGEST_POLL_S: Final = 0.02
SEPARATOR: Final = "@"
"""In the name of a pipe; neither plugins' names nor containers' ids have it."""


class Pipe:
    """A pipe of ours, from its making until `close`. It stands in `folder` under a name that begins with `prefix`."""

    def __init__(self, folder: Path, prefix: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / f"{prefix}{SEPARATOR}{secrets.token_hex(8)}"
        os.mkfifo(self.path, 0o600)
        try:
            self._fd = _open_for_writing(self.path)
        except OSError:
            self.path.unlink()
            raise
        self._written = 0

    @property
    def read(self) -> int:
        """How many bytes the plugin has read."""
        (unread,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))
        return self._written - int(unread)

    async def opened(self) -> None:
        """Return once the plugin has opened the pipe."""
        wait_s = SHORTEST_POLL_S
        while not self._has_reader():
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_POLL_S)

    async def write(self, data: bytes) -> None:
        """Put all of it into the pipe, as there is room. Raises ConnectionError if the plugin closes it."""
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._fd, view[:WRITE_BYTES])
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError as error:
                raise _closed() from error
            else:
                self._written += count
                view = view[count:]

    async def drained(self) -> None:
        """Return once the plugin has read everything. Raises ConnectionError if it closes the pipe before."""
        wait_s = 0.0
        while self.read < self._written:
            if not self._has_reader() and self.read < self._written:
                raise _closed()
            await asyncio.sleep(wait_s)
            wait_s = min(max(2 * wait_s, SHORTEST_POLL_S), LONGEST_POLL_S)

    def close(self) -> None:
        """Close and remove it."""
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _has_reader(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, 0)
        return not poll.poll(0)  # POLLERR is told without being asked for

    async def _writable(self) -> None:
        """Wait for room; for the end of the plugin too."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._fd, _settle, waiter)
        try:
            await waiter
        finally:
            loop.remove_writer(self._fd)


def abandoned(folder: Path, prefix: str) -> Iterator[Path]:
    """Give the pipes with this beginning whose writer is gone: it was killed. They are removed after their turn."""
    try:
        found = [path for path in folder.iterdir() if path.name.startswith(f"{prefix}{SEPARATOR}")]
    except FileNotFoundError:
        return
    for path in found:
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            yield path
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        finally:
            os.close(fd)


def _open_for_writing(path: Path) -> int:
    """Return a descriptor that writes although nobody reads yet, and is no reader itself; it is locked."""
    both = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(both)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with contextlib.suppress(PermissionError):  # beyond pipe-user-pages-soft, without privileges
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return fd


def _closed() -> ConnectionResetError:
    return ConnectionResetError("the plugin has closed the pipe")


def _settle(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
