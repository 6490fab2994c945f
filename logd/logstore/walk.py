"""One pass over a store, batch by batch, in the order of the index: what both readers stand on.

What can't be read is never left out in silence: where the positions of a stream don't join, a Gap says how many
bytes are missing. Segments are followed as they are written; one that is deleted while it is read is read to its end.
"""

import os
from binascii import crc32
from typing import Final, NamedTuple

from logd.logstore.opened import OpenSegment, RawEntry, UnreadableSegmentError, data_size, is_sound, parse
from logd.logstore.segment import (
    ENTRY,
    ENTRY_BYTES,
    GAP_REASONS,
    HEADER_ENTRIES,
    Kind,
    index_name,
    join_exec_id,
    segment_numbers,
)
from logd.record import STDERR, STDOUT, ExecRun, Gap, Run

BLOCK_ENTRIES: Final = 2048
"""Entries read at once, 64 KiB."""
WINDOW_BYTES: Final = 128 * 1024
"""Small batches are cut out of a window of the data file, so that there is no system call for each."""
LEAST_PIECE: Final = 16 * 1024
"""A batch is not cut into smaller pieces than that to keep a budget."""
RUN_COST: Final = 96
"""What a run costs in memory besides its bytes, counted against the budget."""
NEVER: Final = 1 << 64
new_run: Final = tuple.__new__
"""Run's own constructor is a Python function, which would cost as much as all the rest of a small batch."""
NO_WINDOW: Final = (0, b"")
EXEC_BATCH: Final = 256
"""Here, and in no index, the kind of a batch that an exec has printed; what takes most batches so passes it over."""


class Mark(NamedTuple):
    """Something between the batches."""

    is_until: bool
    """The first entry later than `until` comes next; else: lines of all streams end here, finished or not."""


Item = Run | Gap | Mark


class Walk:
    """Reads the streams named in `positions` from these positions on. Call `close`.

    `first` is a segment already open, and `slot` the number of the entry to begin with; without it the walk begins
    with the first segment that appears. `reason` says why bytes are missing before that segment, if they are. With
    `merge`, neighbouring batches of a stream come as one, with the time of the first.
    """

    def __init__(
        self,
        folder: str,
        positions: dict[int, int],
        first: OpenSegment | None = None,
        slot: int = HEADER_ENTRIES,
        *,
        until_ns: int | None = None,
        merge: bool = False,
        reason: str = "retention",
    ) -> None:
        self.positions = positions
        self._folder = folder
        self._until_ns = NEVER if until_ns is None else until_ns
        self._merge = merge
        self._number = 0
        self._newest = 0
        self._next_path = ""
        self._segment: OpenSegment | None = None
        self._next: OpenSegment | None = None
        self._reason = ""
        self._slot = slot
        self._due: list[Item] = []
        self._entries: list[RawEntry] = []
        self._execs: dict[int, str] = {}
        """The ids of the execs that have printed the loaded batches, by the numbers of their entries."""
        self._next_exec = ""
        """Whose the first batch is that will be loaded, if it is an exec's."""
        self._at = 0
        self._is_at_end = False
        self._windows: dict[int, tuple[int, bytes]] = {}
        if first is not None:
            self._newest = max(self._numbers(), default=0)
            self._enter(first, reason, slot)

    def close(self) -> None:
        """Close the segments."""
        for segment in (self._segment, self._next):
            if segment is not None:
                segment.close()
        self._segment = self._next = None
        self._entries = []

    def read(self, budget: int) -> list[Item]:
        """Return what comes next, about `budget` bytes of it; nothing if there is nothing more at present."""
        items, self._due = self._due, []
        while budget > 0:
            if self._at == len(self._entries):
                if self._is_at_end and (items or self._glance(items, budget)):
                    break  # what has just been written is not held back to look for more
                more = self._load()
                items += self._due
                self._due = []
                if not more:
                    break
            budget = self._take(items, budget)
        return items

    @property
    def holds_deleted(self) -> bool:
        """Whether the segment that is open is deleted: its bytes take room on the disk until it is closed."""
        return self._segment is not None and self._segment.is_deleted

    def missing_end(self) -> list[Gap]:
        """Return the gaps that no entry came after: call it when the output has ended."""
        gaps: list[Item] = []
        for stream in self.positions:
            missing = sum(data_size(self._folder, number, stream) for number in self._candidates())
            if self._segment is not None:
                missing += max(0, self._segment.header.base(stream) - self.positions[stream])
            if missing:
                self._lose(gaps, self._segment.header.time_ns if self._segment else 0, stream, missing, "damaged")
        return [gap for gap in gaps if isinstance(gap, Gap)]

    def _glance(self, items: list[Item], budget: int) -> bool:
        """Take the one batch that is new, or see that nothing is: how it mostly is for who follows.

        False where there is more to it, and then nothing has been done. This is most of a follower's delay, hence the
        shortcut.
        """
        segment, slot = self._segment, self._slot
        if segment is None or self._next is not None or self._next_exec:
            return False
        raw = segment.block(slot, 2)
        if not raw:
            return self._is_newest(segment)
        if len(raw) != ENTRY_BYTES:
            return False
        time_ns, position, length, stream, kind, _, sequence, checksum = ENTRY.unpack(raw)
        is_plain = kind == 0 and position == self.positions.get(stream) and time_ns <= self._until_ns
        if not is_plain or sequence != slot or length > budget or checksum != crc32(raw[:28]):
            return False
        data = segment.read(stream, position, length)
        if len(data) != length:
            return False
        self._slot = slot + 1
        self.positions[stream] = position + length
        items.append(new_run(Run, (time_ns, stream, position, data)))
        return True

    # -- batches -----------------------------------------------------------------------------------------------------

    def _take(self, items: list[Item], budget: int) -> int:
        """Add to `items` what the loaded entries hold; return what is left of the budget, at most 0 if nothing is."""
        positions, entries, windows, until_ns = self.positions, self._entries, self._windows, self._until_ns
        at, count, adopted = self._at, len(entries), int(Kind.ADOPTED)
        while at < count and budget > 0:
            time_ns, position, length, stream, kind, _, _, _ = entry = entries[at]
            if kind <= adopted and position == positions.get(stream) and time_ns <= until_ns:
                start, held = windows.get(stream, NO_WINDOW)
                data = held[position - start : position - start + length]
                if data and len(data) == length <= budget:  # as for most: a small batch, nothing missing, in the window
                    items.append(new_run(Run, (time_ns, stream, position, data)))
                    positions[stream] = position + length
                    budget -= length + RUN_COST
                    at += 1
                    continue
            self._at = at
            budget = self._take_entry(items, entry, budget)
            at, until_ns = self._at, self._until_ns
        self._at = at
        return budget

    def _take_entry(self, items: list[Item], entry: RawEntry, budget: int) -> int:
        """Add what the entry at hand says to `items`, or as much of it as the budget allows; return what is left."""
        time_ns, position, length, stream, kind, reason, slot, _ = entry
        if time_ns > self._until_ns:
            self._until_ns = NEVER
            items.append(Mark(is_until=True))
        if kind > Kind.ADOPTED and kind != EXEC_BATCH:
            self._at += 1
            self._mark(items, entry, reason)
            return budget
        expected = self.positions.get(stream)
        left = length if expected is None else position + length - expected
        if expected is None or left <= 0:
            self._at += 1
            return budget
        if position > expected:
            self._lose(items, time_ns, stream, position - expected, "damaged")
            expected, left = position, length
        piece = left if left <= budget else min(left, max(budget, LEAST_PIECE))
        data = self._bytes(stream, expected, piece)
        if data:
            run = Run(time_ns, stream, expected, data)
            items.append(ExecRun.of(self._execs[slot], run) if kind == EXEC_BATCH else run)
            self.positions[stream] = expected + len(data)
        if len(data) < piece:
            gone = self._segment is not None and self._segment.is_deleted
            self._lose(items, time_ns, stream, piece - len(data), "retention" if gone else "damaged")
        if piece == left:
            self._at += 1
        return budget - piece - RUN_COST

    def _bytes(self, stream: int, position: int, length: int) -> bytes:
        """Return the bytes of the current segment from a position on, fewer where they are missing."""
        start, held = self._windows.get(stream, NO_WINDOW)
        offset = position - start
        if offset >= 0 and offset + length <= len(held):
            return held[offset : offset + length]
        assert self._segment is not None
        size = length if length >= WINDOW_BYTES else min(WINDOW_BYTES, self._extent(stream) - position)
        held = self._segment.read(stream, position, size)
        self._windows[stream] = (position, held)
        return held[:length]

    def _extent(self, stream: int) -> int:
        """Return up to which position the loaded entries name bytes of a stream."""
        for at in range(len(self._entries) - 1, self._at - 1, -1):
            _, position, length, of_stream, kind, *_ = self._entries[at]
            if of_stream == stream and (kind <= Kind.ADOPTED or kind == EXEC_BATCH):
                return position + length
        raise AssertionError("the entry at hand names bytes of the stream")

    def _lose(self, items: list[Item], time_ns: int, stream: int, length: int, reason: str) -> None:
        """Add a gap where the stream stands, or lengthen the one that ends there; move on behind it."""
        position = self.positions[stream]
        last = items[-1] if items else None
        joins = isinstance(last, Gap) and last.length and (last.stream, last.reason) == (stream, reason)
        if isinstance(last, Gap) and joins and last.position + last.length == position:
            items[-1] = last._replace(length=last.length + length)
        else:
            items.append(Gap(time_ns, stream, position, length, reason))
        self.positions[stream] = position + length

    def _mark(self, items: list[Item], entry: RawEntry, reason: int) -> None:
        time_ns, position, length, stream, kind, *_ = entry
        if kind in (Kind.BEGIN, Kind.END):
            items.append(Mark(is_until=False))
        elif kind == Kind.GAP:
            name = GAP_REASONS.get(reason, f"reason {reason}")
            if stream not in (STDOUT, STDERR):
                items.append(Gap(time_ns, stream, position, length, name))
            elif stream in self.positions:
                self._noted_gap(items, time_ns, stream, position, length, name)

    def _noted_gap(self, items: list[Item], time_ns: int, stream: int, position: int, length: int, name: str) -> None:
        if position > self.positions[stream]:
            self._lose(items, time_ns, stream, position - self.positions[stream], "damaged")
        expected = self.positions[stream]
        if length and position + length > expected:
            items.append(Gap(time_ns, stream, expected, position + length - expected, name))
            self.positions[stream] = position + length
        elif not length and position == expected:
            items.append(Gap(time_ns, stream, position, 0, name))

    # -- entries and segments ----------------------------------------------------------------------------------------

    def _load(self) -> bool:
        """Read the next entries; False when there are none at present."""
        self._entries, self._at = [], 0
        while True:
            if self._segment is None:
                following = self._find_next()
                if following is None:
                    return False
                self._enter(*following)
            elif self._load_block():
                return True
            elif self._next is not None:  # and all that was written before it has been read
                self._segment.close()
                following, self._segment, self._next = (self._next, self._reason), None, None
                self._enter(*following)
            else:
                following = self._find_next()
                if following is None:
                    return False
                self._next, self._reason = following

    def _load_block(self) -> bool:
        """Read entries of the current segment until some matter; False when no sound one is left at present."""
        assert self._segment is not None
        while block := self._segment.block(self._slot, BLOCK_ENTRIES):
            count = len(block) // ENTRY_BYTES
            self._is_at_end = count < BLOCK_ENTRIES
            whole = self._one_batch(block)
            entries = [whole] if whole else parse(block, self._slot)
            if self._next_exec or Kind.EXEC in block[21::ENTRY_BYTES]:
                self._mark_execs(entries)
            if whole:
                self._slot += count
            elif entries:
                self._slot = entries[-1][6] + 1
            elif count == BLOCK_ENTRIES:
                self._slot += count
            else:
                return False  # all damaged; more may follow
            self._entries = self._merged(entries) if self._merge and not whole else entries
            if self._entries:
                return True
        return False

    def _mark_execs(self, entries: list[RawEntry]) -> None:
        """Make the batches that execs have printed, which follow an EXEC entry each, known by their kind."""
        self._execs = {}
        for at, (time_ns, position, length, stream, kind, reason, slot, checksum) in enumerate(entries):
            if kind == Kind.EXEC:
                self._next_exec = join_exec_id(length, reason)
            elif self._next_exec and kind <= Kind.ADOPTED:
                self._execs[slot] = self._next_exec
                self._next_exec = ""
                entries[at] = (time_ns, position, length, stream, EXEC_BATCH, 0, slot, checksum)

    def _one_batch(self, block: bytes) -> RawEntry | None:
        """Return one entry for all in the block if that will do: batches of one stream, none later than `until`.

        It will do where times don't matter, or the stream is not wanted. Positions in a sound stretch of an index
        join: the format has a gap entry where they don't.
        """
        if self._next_exec or (not self._merge and block[20] in self.positions):
            return None
        count = len(block) // ENTRY_BYTES
        if block[21::ENTRY_BYTES].count(Kind.DATA) < count or block[20::ENTRY_BYTES].count(block[20]) < count:
            return None
        if not is_sound(block, self._slot):
            return None
        time_ns, position, *_ = ENTRY.unpack_from(block)
        last_ns, last_position, last_length, *_ = ENTRY.unpack_from(block, len(block) - ENTRY_BYTES)
        if last_ns > self._until_ns or last_position < position:
            return None
        return time_ns, position, last_position + last_length - position, block[20], Kind.DATA, 0, 0, 0

    def _merged(self, entries: list[RawEntry]) -> list[RawEntry]:
        """Return the entries with neighbouring batches of a stream as one, those of unwanted streams left out."""
        merged: list[RawEntry] = []
        end = -1
        for entry in entries:
            time_ns, position, length, stream, kind, *_ = entry
            if time_ns > self._until_ns or kind > Kind.ADOPTED:
                merged.append(entry)
                end = -1
            elif stream in self.positions:
                if position == end and merged[-1][3] == stream:
                    first = merged[-1]
                    merged[-1] = (first[0], first[1], first[2] + length, stream, Kind.DATA, 0, 0, 0)
                else:
                    merged.append(entry)
                end = position + length
        return merged

    def _find_next(self) -> tuple[OpenSegment, str] | None:
        """Open the segment after the current one. Return it and why there is nothing between them, if that is so."""
        reason = "retention"
        for number in self._candidates():
            if number > self._number + 1 and self._segment is not None and not self._segment.is_deleted:
                reason = "damaged"  # retention takes the oldest first, and would have taken the current one before
            try:
                return OpenSegment(self._folder, number), reason
            except FileNotFoundError:
                continue
            except UnreadableSegmentError:
                reason = "damaged"  # if a later one can be read; until then the writer may still be at it
        return None

    def _candidates(self) -> list[int]:
        """Return the numbers that the next segment may have: the folder is listed only when there is a reason."""
        if self._segment is not None and self._is_newest(self._segment):
            return []
        numbers = self._numbers()
        self._newest = max(numbers, default=0)
        return [number for number in numbers if number > self._number]

    def _numbers(self) -> list[int]:
        try:
            return segment_numbers(self._folder)
        except FileNotFoundError:
            return []

    def _is_newest(self, current: OpenSegment) -> bool:
        """Tell whether there is no segment behind the current one, without listing the folder."""
        return self._newest <= self._number and not os.access(self._next_path, os.F_OK) and not current.is_deleted

    def _enter(self, segment: OpenSegment, reason: str, slot: int = HEADER_ENTRIES) -> None:
        """Make a segment the current one, and tell what is missing before it."""
        segment.hold()
        is_next = segment.number == self._number + 1 and self._number > 0
        for stream, position in self.positions.items():
            missing = 0 if is_next else segment.takes_up(stream) - position  # of the next one, a gap entry will tell
            if missing > 0:
                self._lose(self._due, segment.header.time_ns, stream, missing, reason)
        self._segment, self._number, self._slot = segment, segment.number, slot
        self._next_path = os.path.join(self._folder, index_name(segment.number + 1))
        self._is_at_end = False
        self._next_exec = ""
        if slot > HEADER_ENTRIES and (before := segment.entry(slot - 1)) and before.kind == Kind.EXEC:
            self._next_exec = join_exec_id(before.length, before.reason)
        self._windows.clear()
