"""The standard streams of an exec, as far as a client is at them; read at the client's pace, which the process keeps.

When the process has ended, what it left in its pipes is handed out to the last byte. What it leaves behind may hold
them open and go on writing: that is followed for two seconds, as in Docker, and then left to the exec's shim.
"""

import asyncio
import os
import time
from types import TracebackType
from typing import Any, Final, Self

from logd.runtime.exec_client import ExecSession
from logd.runtime.exec_protocol import TTY

READ_BYTES: Final = 64 << 10
LINGER_S: Final = 2.0
"""How long output is followed once the process has ended."""
OWED_BYTES: Final = 64 << 10
"""What a pipe holds: so much may be left of the process's own output when it has ended."""
OWED_LOGGED_BYTES: Final = 4 * OWED_BYTES
"""The same if it comes by way of the exec's shim: two pipes, what that has read, and some room."""
EXIT_WAIT_S: Final = 10.0
"""Output ends with the process, as a rule; a process that closes it and goes on is not waited for longer."""


class ExecStream:
    """Our ends of the streams, by name; use it with `async with`, or `close` it."""

    def __init__(self, session: ExecSession, ends: dict[str, int], *, is_wanted: bool, is_logged: bool = False) -> None:
        self._session = session
        self._has_own_stdin = "stdin" in ends
        """Or else it is the terminal, which is closed with the output."""
        self._stdin = ends.pop("stdin", ends.get(TTY, -1))
        self._outputs = ends
        self._owed = OWED_LOGGED_BYTES if is_logged else OWED_BYTES
        self._is_terminal = TTY in ends
        self._left: dict[str, int] = {}
        """What may still be read of each output after the exit, once the time for it is over."""
        self._ended_at = 0.0
        self._write_lock = asyncio.Lock()
        for descriptor in {*ends.values(), self._stdin} - {-1}:
            os.set_blocking(descriptor, False)
        if not is_wanted:
            self._leave_output()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take part no more: input ends, and the shim drains the output."""
        self.close_stdin()
        self._leave_output()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs: stdout, stderr, or that of the terminal."""
        return tuple(self._outputs)

    async def exited(self) -> None:
        """Return when the process has ended, or for all that its output tells never will."""
        await asyncio.wait({self._session.exited}, timeout=EXIT_WAIT_S if self._outputs else None)

    async def read(self, name: str) -> bytes:
        """Return the next bytes of an output, waiting for them; b"" at its end."""
        descriptor = self._outputs[name]
        while not self._is_over(name):
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                if not await self._readable(descriptor):
                    return b""
                continue
            except OSError:  # EIO: nobody has the terminal open
                return b""
            if self._session.exited.done():
                self._left[name] = self._left.get(name, self._owed) - len(data)
            return data
        return b""

    def _is_over(self, name: str) -> bool:
        """Whether all that is left of an output is somebody else's."""
        return self._left.get(name, self._owed) <= 0 and self._remaining_s() <= 0

    def _remaining_s(self) -> float:
        """Return how long output is followed still; call it when the process has ended."""
        self._ended_at = self._ended_at or time.monotonic()
        return self._ended_at + LINGER_S - time.monotonic()

    async def _readable(self, descriptor: int) -> bool:
        """Return True when there is something to read; False if nothing comes any more."""
        loop, exited = asyncio.get_running_loop(), self._session.exited
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, _settle, ready)
        try:
            if not exited.done():
                await _first_of(ready, exited)
            if not ready.done():
                await asyncio.wait({ready}, timeout=max(0.0, self._remaining_s()))
            return ready.done()
        finally:
            loop.remove_reader(descriptor)

    async def write(self, data: bytes) -> None:
        """Write to the process's input, waiting while it is full; without effect if nobody reads it any more."""
        view = memoryview(data)
        async with self._write_lock:
            while view and self._stdin >= 0 and not self._session.exited.done():
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await self._writable(self._stdin)
                except OSError:  # EPIPE, or a terminal that nobody has open
                    self.close_stdin()

    async def _writable(self, descriptor: int) -> None:
        """Return when there is room, or nobody reads any more."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(descriptor, _settle, ready)
        try:
            await _first_of(ready, self._session.exited)
        finally:
            loop.remove_writer(descriptor)

    def close_stdin(self) -> None:
        """Let the process see the end of its input; on a terminal there is none but what is typed."""
        if self._stdin >= 0 and self._has_own_stdin:
            os.close(self._stdin)
        self._stdin = -1

    def _leave_output(self) -> None:
        if self._is_terminal:
            self.close_stdin()
        for descriptor in self._outputs.values():
            os.close(descriptor)
        self._outputs = {}
        self._session.leave()


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
