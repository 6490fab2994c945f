"""What waits in a store for its drivers, counted again and again: each index entry is walked once, however far behind.

    waiting = backlog.count(positions, ends, deadline)      # None: out of time, the next call goes on

It says what buffered.held_beyond says. What was counted is kept for each segment, with a mark each thousand entries
from which a count up to any position begins. Closed segments don't change, and what retention removes is forgotten.
"""

import time
from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

from logd.logstore.opened import OpenSegment, UnreadableSegmentError, is_sound, parse
from logd.logstore.segment import ENTRY, ENTRY_BYTES, Kind, segment_numbers
from logd.record import STDERR, STDOUT

MARK_ENTRIES: Final = 1024
ATTEMPTS: Final = 5
STREAMS: Final = (STDOUT, STDERR)
_LENGTH: Final = slice(16 // 4, None, ENTRY_BYTES // 4)
"""The field `length` of each entry, in a block seen as numbers of 4 bytes."""


class Waiting(NamedTuple):
    """What lies from a cursor up to the ends."""

    held: int
    """Bytes of data."""
    missing: int
    """Bytes of which gap entries tell, or that went with segments that are gone."""
    oldest_ns: int
    """When the first of the data came, Unix time; 0 if there is none."""


class Backlog:
    """The counts of the store in `folder`; for one thread."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._tallies: dict[int, _Tally] = {}

    def count(self, positions: tuple[int, int], ends: tuple[int, int], deadline: float) -> Waiting | None:
        """Return what waits beyond the positions of stdout and stderr, up to `ends`, which were taken after them.

        None when `time.monotonic()` has passed `deadline` before all was counted.
        """
        for _ in range(ATTEMPTS):
            numbers = self._numbers()
            for gone in self._tallies.keys() - set(numbers):
                del self._tallies[gone]
            found = self._count(numbers, positions, ends, deadline)
            if found is None:
                return None
            reached, waiting = found
            is_whole = all(to >= end for to, end in zip(reached, ends, strict=True))
            if is_whole or self._numbers() == numbers:  # else a segment has gone meanwhile, of which the next ones tell
                break
        return waiting

    def _numbers(self) -> list[int]:
        try:
            return segment_numbers(self._folder)
        except FileNotFoundError:
            return []

    def _count(
        self, numbers: list[int], positions: tuple[int, int], ends: tuple[int, int], deadline: float
    ) -> tuple[list[int], Waiting] | None:
        """Return up to where these segments have been counted, and what waits in them."""
        held, oldest_ns = 0, 0
        reached = [*positions]
        for number in reversed(numbers):
            try:
                segment = OpenSegment(self._folder, number)
            except (FileNotFoundError, UnreadableSegmentError):
                continue
            try:
                tally = self._tally(segment, positions)
                if not tally.grow(segment, ends, deadline):
                    return None
                for at, stream in enumerate(STREAMS):
                    reached[at] = max(reached[at], min(max(tally.at[at], segment.header.base(stream)), ends[at]))
                    before, first_ns = tally.before(segment, at, positions[at])
                    found = tally.before(segment, at, ends[at])[0] - before
                    held += found
                    if found:
                        oldest_ns = min(first_ns, oldest_ns or first_ns)
            finally:
                segment.close()
            if all(
                segment.header.base(stream) <= position for stream, position in zip(STREAMS, positions, strict=True)
            ):
                break  # what is older was delivered
        extent = sum(max(0, to - begin) for to, begin in zip(reached, positions, strict=True))
        return reached, Waiting(held, extent - held, oldest_ns)

    def _tally(self, segment: OpenSegment, positions: tuple[int, int]) -> "_Tally":
        """Return the counts of a segment, made anew where they begin beyond the positions."""
        tally = self._tallies.get(segment.number)
        bases = segment.header.stdout_base, segment.header.stderr_base
        floor = max(positions[0], bases[0]), max(positions[1], bases[1])
        if tally is None or any(low < begin for low, begin in zip(floor, tally.floor, strict=True)):
            slots = [segment.slot_of(stream, low) for stream, low in zip(STREAMS, floor, strict=True)]
            tally = self._tallies[segment.number] = _Tally(floor, min(slots))
        return tally


class _Tally:
    """The data of one segment from positions on (`floor`), walked from entry `slot` on."""

    def __init__(self, floor: tuple[int, int], slot: int) -> None:
        self.floor = floor
        self.at = [*floor]
        """Up to where stdout and stderr have been walked."""
        self._held = [0, 0]
        self._slot = slot
        self._slots = array("Q", [slot])
        self._marks = [(array("Q", [one]), array("Q", [0])) for one in floor]
        """Of both streams, at each of the slots: the position reached, and how much data lies before it."""

    def grow(self, segment: OpenSegment, ends: tuple[int, int], deadline: float) -> bool:
        """Walk what is new, at least up to `ends` if the segment reaches there; false when time has run out."""
        while any(at < end for at, end in zip(self.at, ends, strict=True)):
            block = segment.block(self._slot, MARK_ENTRIES)
            if not block:
                return True
            if time.monotonic() > deadline:
                return False
            if not self._take_at_once(block):
                self._take_each(block)
            self._slot += len(block) // ENTRY_BYTES
            if self._slot - self._slots[-1] >= MARK_ENTRIES:
                self._slots.append(self._slot)
                for marks, at, held in zip(self._marks, self.at, self._held, strict=True):
                    marks[0].append(at)
                    marks[1].append(held)
        return True

    def _take_at_once(self, block: bytes) -> bool:
        """Take a block whose entries are all batches of one stream that join, as most are; false if they are not."""
        count = len(block) // ENTRY_BYTES
        stream = block[20]
        if stream not in STREAMS or block[20::ENTRY_BYTES].count(stream) < count:
            return False
        if block[21::ENTRY_BYTES].count(Kind.DATA) < count or not is_sound(block, self._slot):
            return False
        at = STREAMS.index(stream)
        first, last = ENTRY.unpack_from(block), ENTRY.unpack_from(block, len(block) - ENTRY_BYTES)
        end = last[1] + last[2]
        if first[1] > self.at[at] or end - first[1] != sum(memoryview(block).cast("I")[_LENGTH]):
            return False
        if end > self.at[at]:
            self._held[at] += end - self.at[at]
            self.at[at] = end
        return True

    def _take_each(self, block: bytes) -> None:
        for _, position, length, stream, kind, _, _, _ in parse(block, self._slot):
            if stream not in STREAMS or (kind > Kind.ADOPTED and kind != Kind.GAP):
                continue
            at = stream - STDOUT
            begin = max(position, self.at[at])
            if position + length > begin:
                self.at[at] = position + length
                if kind != Kind.GAP:
                    self._held[at] += position + length - begin

    def before(self, segment: OpenSegment, at: int, position: int) -> tuple[int, int]:
        """Return how much data of a stream (0 stdout, 1 stderr) lies between the floor and a position that was walked.

        And when the batch came in which the position lies, or the next one after it; 0 if there is none.
        """
        reached, held = self._marks[at]
        if position >= self.at[at]:
            return self._held[at], 0
        mark = max(0, bisect_right(reached, max(position, self.floor[at])) - 1)
        slot, stands, found = self._slots[mark], reached[mark], held[mark]
        while block := segment.block(slot, MARK_ENTRIES):
            for time_ns, start, length, stream, kind, _, _, _ in parse(block, slot):
                if stream - STDOUT != at or kind > Kind.ADOPTED:
                    continue
                if start + length > position:
                    return found + max(0, position - max(start, stands)), time_ns
                if start + length > stands:
                    found += start + length - max(start, stands)
                    stands = start + length
            slot += len(block) // ENTRY_BYTES
        return found, 0
