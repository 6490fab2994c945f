"""Move a container's output into its store: pipe → staging pipe → segment, two splices and an index entry a batch.

No output ever lies in this process's memory, and none is lost with it: what is in the staging pipe when the shim
dies is held by the keeper and goes first when the next shim begins.
"""

import os
import time
from collections.abc import Callable
from errno import EIO
from typing import Final

from logd.logstore.writer import StoreWriter
from logd.record import STDERR, STDOUT
from logd.runtime.pipes import PIPE_BYTES, capacity

RATE_WINDOW: Final = 16
BUSY_WINDOW_NS: Final = RATE_WINDOW * 50_000
"""16 batches in less than 0.8 ms, so over 20,000 a second: then larger batches are worth a short wait."""
BUSY_ALONE_NS: Final = RATE_WINDOW * 500_000
"""The same while only one stream comes, whose order nothing can disturb: 2,000 a second."""
PAUSE_S: Final = 0.0003
LONGEST_PAUSE_S: Final = 0.004
"""While only one stream comes, the pause is doubled up to this until batches are no longer small: where many containers
share few cores each writes little in 0.3 ms, and waking for it costs more than moving it."""
SMALL_BATCH_BYTES: Final = 256 << 10
FULL_PARTS: Final = 5, 8
"""A pipe this full is emptied at once, and the pause begins anew: the container must not find it full."""
CALM_BATCH_BYTES: Final = 8 << 10
"""A batch that stays below this in spite of the pause ends the busy period: 8 KiB in 0.3 ms are 27 MB/s."""
NS_PER_BYTE_ALONE: Final = 500
"""While only one stream comes, a busy period lasts as long as there are at least so many bytes: 2 MB/s."""
LEASE_LAG_BYTES: Final = 8 << 20
"""How far a lossless reader may lie behind before the container waits for it."""


class Source:
    """One stream of the container: its pipe, or the master of its terminal, and the staging pipe behind it."""

    __slots__ = ("pipe", "stage_in", "stage_out", "staged", "stream")

    def __init__(self, stream: int, pipe: int, stage_out: int, stage_in: int, staged: int) -> None:
        self.stream = stream
        self.pipe = pipe
        self.stage_out = stage_out
        self.stage_in = stage_in
        self.staged = staged
        """Bytes in the staging pipe; not zero only after a crash or while the disk is full."""


class Capture:
    """The movement of both streams of one container into its store."""

    def __init__(self, writer: StoreWriter, sources: list[Source]) -> None:
        self.writer = writer
        self.sources: dict[int, Source] = {}
        """By the pipe's descriptor; a stream that has ended is gone from it."""
        self._batches = self._moved = 0
        """Since the window began."""
        self._window_began_ns = 0
        self._busy = False
        self._pause = PAUSE_S
        self._full = PIPE_BYTES
        self._latest = 0
        """The stream of the last batch."""
        self._alone = 0
        """How many batches in a row were of that stream."""
        self.begins = self.ends
        """Where the streams stood when this process took them over."""
        self.cut_in: Callable[[Source], None] | None = None
        """Called before what is staged is stored, while an exec's output waits for the end of a line."""
        for source in sources:
            self.sources[source.pipe] = source
            self._full = capacity(source.pipe) * FULL_PARTS[0] // FULL_PARTS[1]
            if source.staged:
                self._store(source)

    @property
    def ends(self) -> tuple[int, int]:
        """The positions after the last byte taken of stdout and of stderr."""
        return self.writer.ends[STDOUT], self.writer.ends[STDERR]

    @property
    def held_back(self) -> bool:
        """Whether the container has to wait: its lossless reader lags, or, with mode=blocking, a disk or a driver."""
        if self.writer.blocked or any(source.staged for source in self.sources.values()):
            return True
        protected = self.writer.protected
        if protected is None:
            return False
        # A stream that nobody reads is acknowledged far beyond its end; it must not outweigh the other one.
        return sum(max(0, end - at) for end, at in zip(self.ends, protected, strict=True)) > LEASE_LAG_BYTES

    def move(self, source: Source) -> bool:
        """Move one batch, if there is one. Return False once the stream has ended."""
        if source.staged and not self._store(source):
            return True
        want = min(PIPE_BYTES, self.writer.room())
        try:
            moved = os.splice(source.pipe, source.stage_in, want, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != EIO:  # a terminal's way to say that nobody has it any more
                raise
            return False
        if not moved:
            return False
        source.staged = moved
        self._store(source)
        self._wait_for_more(source.stream, moved)
        return True

    def _store(self, source: Source) -> bool:
        """Bring what is staged into the store; False if it has to stay (disk full, mode=blocking)."""
        if self.cut_in is not None:
            self.cut_in(source)
        while source.staged:
            part = min(source.staged, self.writer.room())
            left = self.writer.take(source.stream, source.stage_out, part)
            source.staged -= part - left
            if left:
                if self.writer.options.mode == "blocking":
                    return False
                self.writer.drop(source.stream, source.stage_out, source.staged)
                source.staged = 0
        return True

    def _wait_for_more(self, stream: int, moved: int) -> None:
        """In a busy period give the container a moment to fill its pipe: fewer and larger batches cost less.

        While both streams come and there are less than 20,000 batches a second nothing waits, so that their order
        stays as good as it can be.
        """
        if stream != self._latest:
            self._latest = stream
            self._alone = 0
        self._alone += 1
        self._batches += 1
        self._moved += moved
        is_alone = self._alone > RATE_WINDOW
        if self._batches == RATE_WINDOW:
            self._judge(is_alone)
        if not self._busy:
            return
        if moved < CALM_BATCH_BYTES and not is_alone:
            self._busy = False
        elif moved >= self._full:
            self._pause = PAUSE_S
        else:
            if is_alone and moved < SMALL_BATCH_BYTES and self._pause < LONGEST_PAUSE_S:
                self._pause += self._pause
            time.sleep(self._pause)

    def _judge(self, is_alone: bool) -> None:
        """End a window: decide whether the period is busy, by its batches, and while one stream comes by its bytes."""
        now = time.monotonic_ns()
        elapsed = now - self._window_began_ns
        if is_alone:
            self._busy = (self._busy or elapsed < BUSY_ALONE_NS) and self._moved * NS_PER_BYTE_ALONE > elapsed
        else:
            self._busy = self._busy or elapsed < BUSY_WINDOW_NS
        self._window_began_ns = now
        self._batches = self._moved = 0

    def finish(self, source: Source) -> None:
        """The stream has ended: close its pipes."""
        del self.sources[source.pipe]
        for descriptor in (source.pipe, source.stage_in, source.stage_out):
            os.close(descriptor)

    def retry(self) -> None:
        """Try again what a full disk stopped."""
        if self.writer.dropping:
            self.writer.resume()
        for source in self.sources.values():
            if source.staged:
                self._store(source)
