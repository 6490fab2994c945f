"""The first bytes of what processes print into a pipe, read in the event loop; the rest is thrown away."""

import asyncio
import os
from typing import Final

PIPE_BYTES: Final = 1 << 16
"""What a pipe holds, and so the most that one read can bring (pipe(7))."""
PAUSE_S: Final = 0.002
"""Between reads of what nobody keeps, so that a process that never stops printing costs the daemon little."""


class OutputHead:
    """A pipe: hand out `writing`, and close it here as soon as the process has it. `close` it in any case."""

    def __init__(self, max_bytes: int) -> None:
        self.kept = bytearray()
        self.is_cut = False
        """Whether there was more."""
        self.reading, self.writing = os.pipe2(os.O_CLOEXEC)
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(self.reading, False)
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self.reading, self._read)

    def _read(self) -> None:
        data = self._take()
        if data is None:
            return
        if not data or self.is_cut:
            self._loop.remove_reader(self.reading)
        if data and self.is_cut:
            self._pause = self._loop.call_later(PAUSE_S, self._watch)

    def _take(self) -> bytes | None:
        """Read once: b"" at the end of the output, None where there is nothing for now."""
        try:
            data = os.read(self.reading, PIPE_BYTES)
        except BlockingIOError:
            return None
        room = self._max_bytes - len(self.kept)
        self.kept += data[:room]
        self.is_cut = self.is_cut or len(data) > room
        return data

    def close_writing(self) -> None:
        """Close our copy of the writing end, so that the end of the output shows."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def drain(self) -> None:
        """Take what is in the pipe now, and no more than it holds: others may go on writing."""
        if not self.is_cut:
            self._take()

    def close(self) -> None:
        """Read no more; a process that still writes gets SIGPIPE."""
        self.close_writing()
        if self.reading >= 0:
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self.reading)
            os.close(self.reading)
            self.reading = -1
