"""Check a whole store: every entry, every join, every checksum. Reads only; a store in use may be checked.

What a gap entry tells of is no finding: it was counted when it happened.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from logd.logstore.opened import OpenSegment, RawEntry, UnreadableSegmentError, data_size, parse
from logd.logstore.seal import broken_seals
from logd.logstore.segment import HEADER_ENTRIES, Kind, data_name, segment_numbers
from logd.record import STDERR, STDOUT, STREAM_NAMES

BLOCK_ENTRIES: Final = 4096
STREAMS: Final = (STDOUT, STDERR)
POSITIONED: Final = (Kind.DATA, Kind.ADOPTED, Kind.GAP)


@dataclass(frozen=True)
class Finding:
    """Something that is not as its writer left it."""

    segment: int
    stream: int
    """1 or 2; 0 where both, or neither, are meant."""
    position: int
    """Of the stream; 0 without a stream."""
    problem: str

    def __str__(self) -> str:
        where = f", {STREAM_NAMES[self.stream]} at {self.position}" if self.stream else ""
        return f"segment {self.segment}{where}: {self.problem}"


def verify(folder: str) -> list[Finding]:
    """Return what is wrong with the store in `folder`, oldest segment first. Raises FileNotFoundError."""
    findings = list(_set_aside(folder))
    numbers = segment_numbers(folder)
    ends: dict[int, int] | None = None
    last = 0
    for number in numbers:
        if last and number != last + 1:
            between = f"segment {last + 1} is" if number == last + 2 else f"segments {last + 1} to {number - 1} are"
            findings.append(Finding(number, 0, 0, f"{between} missing before it"))
            ends = None
        try:
            check = _Check(folder, number, ends, is_newest=number == numbers[-1])
        except FileNotFoundError:
            continue  # deleted meanwhile, as the oldest may be
        except UnreadableSegmentError as error:
            findings.append(Finding(number, 0, 0, error.problem))
            last, ends = number, None
            continue
        found = list(check.findings())
        if not check.is_deleted():
            findings += found
            last, ends = number, check.ends
    return findings


def _set_aside(folder: str) -> Iterator[Finding]:
    """Give what recovery could not understand and renamed."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(".index.damaged") and name[:10].isdigit():
            yield Finding(int(name[:10]), 0, 0, f"set aside as {name} when the store was opened after a crash")


class _Check:
    """One segment. Afterwards `ends` are the positions after its last bytes."""

    def __init__(self, folder: str, number: int, ends: dict[int, int] | None, *, is_newest: bool) -> None:
        self._segment = OpenSegment(folder, number)
        self._segment.hold()
        self._folder = folder
        self._is_newest = is_newest
        self._bases = {stream: self._segment.header.base(stream) for stream in STREAMS}
        self._data_ends = dict(self._bases)
        self._last_ns = 0
        self.ends = ends or {stream: self._segment.takes_up(stream) for stream in STREAMS}

    def findings(self) -> Iterator[Finding]:
        """Give all that is wrong."""
        number = self._segment.number
        yield from self._entries()
        yield from self._sizes()
        for name, problem in broken_seals(self._folder, number):
            yield Finding(number, 0, 0, f"{name}: {problem}")

    def is_deleted(self) -> bool:
        """Close the segment; tell whether it was deleted, so that findings say nothing."""
        deleted = self._segment.is_deleted
        self._segment.close()
        return deleted

    def _entries(self) -> Iterator[Finding]:
        count, slot = self._segment.count(), HEADER_ENTRIES
        for first in range(HEADER_ENTRIES, count, BLOCK_ENTRIES):
            for entry in parse(self._segment.block(first, min(BLOCK_ENTRIES, count - first)), first):
                if entry[6] > slot:
                    yield self._damage(slot, entry[6])
                slot = entry[6] + 1
                yield from self._entry(entry)
        if slot < count:
            yield self._damage(slot, count)
        for stream, base in self._bases.items():
            if base > self.ends[stream]:
                yield self._hole(stream, base)

    def _entry(self, entry: RawEntry) -> Iterator[Finding]:
        """Check one entry: that times don't go back and positions join."""
        time_ns, position, length, stream, kind, _, slot, _ = entry
        if time_ns < self._last_ns:
            yield Finding(self._segment.number, 0, 0, f"entry {slot} has an earlier time than the one before it")
        self._last_ns = time_ns
        if stream in STREAMS and kind in POSITIONED:
            if position > self.ends[stream]:
                yield self._hole(stream, position)
            elif position < self.ends[stream]:
                problem = f"entry {slot} tells again of {self.ends[stream] - position} bytes told of before"
                yield Finding(self._segment.number, stream, position, problem)
            self.ends[stream] = max(self.ends[stream], position + length)
            if kind != Kind.GAP:
                self._data_ends[stream] = max(self._data_ends[stream], position + length)

    def _sizes(self) -> Iterator[Finding]:
        """Compare the data files with what the index says."""
        number = self._segment.number
        for stream, base in self._bases.items():
            size, indexed = data_size(self._folder, number, stream), self._data_ends[stream] - base
            if size < indexed:
                problem = f"the file {data_name(number, stream)} ends here, {indexed - size} bytes too early"
                yield Finding(number, stream, base + size, problem)
            elif size > indexed and not self._is_newest:  # in the newest, the writer may be about to index them
                yield Finding(number, stream, base + indexed, f"{size - indexed} bytes are not in the index")

    def _damage(self, begin: int, end: int) -> Finding:
        which = f"entry {begin} is" if end == begin + 1 else f"entries {begin} to {end - 1} are"
        return Finding(self._segment.number, 0, 0, f"{which} damaged")

    def _hole(self, stream: int, position: int) -> Finding:
        at, self.ends[stream] = self.ends[stream], position
        return Finding(self._segment.number, stream, at, f"{position - at} bytes are missing, and no entry says why")
