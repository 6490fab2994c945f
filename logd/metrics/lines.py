"""The lines of one container's output, and their levels, counted from a position on: for the observer's process."""

from collections import Counter
from typing import Final

from logd.logstore.reader import RawReader
from logd.metrics.levels import UNEXAMINED, count_levels
from logd.record import STDERR, STDOUT, Gap, Run

PIECE_BYTES: Final = 256 << 10
"""Read at a time: what a limit of time may be exceeded by."""
BEGIN_BYTES: Final = 1024
"""What is kept of the begin of a line that goes on; its level stands there if anywhere."""


class LineCounter:
    """Counts from the positions of stdout and stderr in `begin` on. Call `close`.

    `folder` is the store's; while the counter is open its files can be read though they are deleted.
    """

    def __init__(self, folder: str, begin: tuple[int, int]) -> None:
        self.counts = Counter[str]()
        """Lines by level, since `take` was called last."""
        self.skipped = 0
        """Bytes that were passed over, or had gone already."""
        self._folder = folder
        self._begins = {STDOUT: b"", STDERR: b""}
        self._lengths = {STDOUT: 0, STDERR: 0}
        """Of the lines that go on, of which `_begins` has the begin."""
        self.position = begin
        """Up to where stdout and stderr have been read."""
        self._reader: RawReader | None = None

    @property
    def resume(self) -> tuple[int, int]:
        """Where to begin so that no line is counted twice, nor missed."""
        return self.position[0] - self._lengths[STDOUT], self.position[1] - self._lengths[STDERR]

    @property
    def is_open(self) -> bool:
        """Whether it has files open."""
        return self._reader is not None

    @property
    def holds_deleted(self) -> bool:
        """Whether files are open that are deleted, and so take room on the disk."""
        return self._reader is not None and self._reader.holds_deleted

    def take(self) -> tuple[dict[str, int], int]:
        """Return the lines by level and the bytes that were skipped, and begin with zeros."""
        taken = dict(self.counts), self.skipped
        self.counts.clear()
        self.skipped = 0
        return taken

    def read(self, *, examine: bool) -> bool:
        """Count a piece, or, if not `examine`, only its newlines; false when there is nothing more at present."""
        if self._reader is None:
            self._reader = RawReader(self._folder, start=self.position)
        items = self._reader.read(PIECE_BYTES)
        self.position = self._reader.position
        for item in items:
            if isinstance(item, Gap):
                self._lose(item)
            else:
                self._count(item, examine=examine)
        return bool(items)

    def skip(self) -> None:
        """Go on at the present end."""
        self.close()
        self._reader = RawReader(self._folder)
        at = self._reader.position
        self.skipped += max(0, at[0] - self.position[0]) + max(0, at[1] - self.position[1])
        self.position = at
        self._begins, self._lengths = {STDOUT: b"", STDERR: b""}, {STDOUT: 0, STDERR: 0}

    def close(self) -> None:
        """Close the files; a later `read` opens them again, if they are there."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _lose(self, gap: Gap) -> None:
        """A line does not go on beyond a gap."""
        self.skipped += gap.length
        for stream in (gap.stream,) if gap.stream else (STDOUT, STDERR):
            self._begins[stream], self._lengths[stream] = b"", 0

    def _count(self, run: Run, *, examine: bool) -> None:
        stream, data = run.stream, run.data
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._lengths[stream] += len(data)
            if len(self._begins[stream]) < BEGIN_BYTES:
                self._begins[stream] = (self._begins[stream] + data)[:BEGIN_BYTES]
            return
        if examine:
            self.counts.update(count_levels(self._begins[stream] + data[:cut]))
        else:
            self.counts[UNEXAMINED] += data.count(b"\n")
        self._begins[stream], self._lengths[stream] = data[cut : cut + BEGIN_BYTES], len(data) - cut
