"""Bytes to the two outputs, in order, in few writes; and what `logs` itself has to say."""

import os
import select
from typing import Final

from logd.cli import terminal
from logd.cli.frames import Failure
from logd.cli.streams import LogStream
from logd.record import STREAM_NAMES, Gap

STDOUT_FD: Final = 1
STDERR_FD: Final = 2
BATCH_BYTES: Final = 256 * 1024


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, to a descriptor that may be in non-blocking mode too (ssh makes terminals so)."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Output:
    """Stdout and stderr. What is written to one reaches it before what is written to the other later.

    Whoever writes calls `flush` before waiting for more, so that nothing is held back.
    """

    def __init__(self) -> None:
        self._descriptor = STDOUT_FD
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, descriptor: int, data: bytes) -> None:
        """Write, now or with what follows at once."""
        if descriptor != self._descriptor or self._size > BATCH_BYTES:
            self.flush()
            self._descriptor = descriptor
        self._pieces.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Write what is held."""
        if self._pieces:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces, self._size = [], 0
            write_all(self._descriptor, data)


class Notices:
    """What is said on stderr about a log: gaps and failures. `failed` is set by one of these."""

    def __init__(self, output: Output) -> None:
        self.failed = False
        self._output = output
        self._colour = terminal.wants_colour("auto", STDERR_FD)

    def show(self, stream: LogStream, event: Gap | Failure) -> None:
        """Write one line."""
        if isinstance(event, Failure):
            self.failed = True
            self._line(f"{stream.container.name}: {event.text}")
            return
        amount = f"{event.length} bytes" if event.length else "an unknown number of bytes"
        source = STREAM_NAMES.get(event.stream, "output")
        self._line(f"{stream.container.name}: {amount} of {source} missing here: {event.reason}")

    def _line(self, text: str) -> None:
        data = f"logs: {terminal.visible(text)}".encode()
        marked = terminal.GAP_COLOUR + data + terminal.RESET if self._colour else data
        self._output.write(STDERR_FD, marked + b"\n")
