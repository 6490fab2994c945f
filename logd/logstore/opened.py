"""One segment, opened for reading: its header, its sound entries, its bytes. Damage is left out here, never raised.

What is missing is found by whoever reads in order: the positions of the entries that are left don't join.
"""

import errno
import os
from binascii import crc32
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from logd.logstore.segment import (
    ENTRY,
    ENTRY_BYTES,
    FORMAT_VERSION,
    HEADER_ENTRIES,
    Entry,
    Header,
    Kind,
    data_name,
    index_name,
    pack_entry,
    unpack_entry,
    unpack_header,
)
from logd.record import STDERR, STDOUT

RawEntry = tuple[int, int, int, int, int, int, int, int]
"""The fields of an Entry and its checksum: a plain tuple, since there may be millions."""
HEADER_BYTES: Final = HEADER_ENTRIES * ENTRY_BYTES
OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
SCAN_FIRST: Final = 16
"""Entries of the first block that a scan reads; what is looked for is mostly near."""
SCAN_MOST: Final = 8192
MARKERS: Final = (Kind.BEGIN, Kind.END)


class UnreadableSegmentError(Exception):
    """A segment's header is incomplete, damaged, or of a version that this program does not know."""

    def __init__(self, number: int, problem: str, *, incomplete: bool) -> None:
        super().__init__(f"segment {number}: {problem}")
        self.problem = problem
        self.incomplete = incomplete
        """Whether it may still become readable: its writer is at it."""


@lru_cache(maxsize=SCAN_MOST)
def sound_checksum(count: int) -> int:
    """Return the crc32 of any `count` sound entries in a row.

    A checksum over a message followed by its own checksum does not depend on the message, so one call can check a
    whole block, forty times as fast as entry by entry.
    """
    return crc32(pack_entry(0, 0, 0, 0, 0) * count)


def is_sound(block: bytes, slot: int) -> bool:
    """Tell whether these whole entries, the first of number `slot`, are all undamaged and in sequence."""
    count = len(block) // ENTRY_BYTES
    if crc32(block) != sound_checksum(count):
        return False
    first, last = ENTRY.unpack_from(block), ENTRY.unpack_from(block, len(block) - ENTRY_BYTES)
    return bool(first[6] == slot and last[6] == slot + count - 1)


def parse(block: bytes, slot: int) -> list[RawEntry]:
    """Return the sound ones among these whole entries, the first of which should be number `slot`."""
    entries: list[RawEntry] = list(ENTRY.iter_unpack(block))
    if is_sound(block, slot):
        return entries
    return [
        entry
        for at, entry in enumerate(entries)
        if entry[6] == slot + at and entry[7] == crc32(block[at * ENTRY_BYTES : at * ENTRY_BYTES + 28])
    ]


def data_size(folder: str, number: int, stream: int) -> int:
    """Return how many bytes of a stream are in a segment's file, 0 if there is none."""
    try:
        return os.stat(os.path.join(folder, data_name(number, stream))).st_size
    except FileNotFoundError:
        return 0


def concerns(entry: RawEntry, stream: int) -> bool:
    """Tell whether an entry has to do with a stream: its bytes, its gap, or the begin or end of all output."""
    return entry[3] == stream or entry[4] in MARKERS or (entry[4] == Kind.GAP and entry[3] == 0)


class OpenSegment:
    """Descriptors on a segment's files, so that it can be read although it is deleted meanwhile. Call `close`.

    Raises FileNotFoundError when it is gone, UnreadableSegmentError when its header can't be used.
    """

    def __init__(self, folder: str, number: int) -> None:
        self.number = number
        self._folder = folder
        self._data: dict[int, int] = {}
        self._index = os.open(os.path.join(folder, index_name(number)), OPEN_FLAGS)
        try:
            self.header = self._read_header()
        except UnreadableSegmentError:
            os.close(self._index)
            raise

    def _read_header(self) -> Header:
        raw = os.pread(self._index, HEADER_BYTES, 0)
        if len(raw) < HEADER_BYTES:
            raise UnreadableSegmentError(self.number, "the header is incomplete", incomplete=True)
        header = unpack_header(raw)
        if header is None:
            raise UnreadableSegmentError(self.number, "the header is damaged", incomplete=False)
        if header.version != FORMAT_VERSION:
            problem = f"format version {header.version} (supported: {FORMAT_VERSION})"
            raise UnreadableSegmentError(self.number, problem, incomplete=False)
        return header

    def hold(self) -> None:
        """Open the data files that exist, since deleting the segment would take them away."""
        for stream in (STDOUT, STDERR):
            self._descriptor(stream)

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (self._index, *self._data.values()):
            os.close(descriptor)
        self._data.clear()

    @property
    def is_deleted(self) -> bool:
        """Whether the segment's files are gone from the folder."""
        return os.fstat(self._index).st_nlink == 0

    # -- the index ---------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many whole entries the index has now, the header's among them."""
        return os.fstat(self._index).st_size // ENTRY_BYTES

    def block(self, slot: int, count: int) -> bytes:
        """Return up to `count` whole entries from number `slot` on, unchecked."""
        raw = os.pread(self._index, count * ENTRY_BYTES, slot * ENTRY_BYTES)
        excess = len(raw) % ENTRY_BYTES
        return raw[:-excess] if excess else raw

    def entry(self, slot: int) -> Entry | None:
        """Return entry number `slot`, None if it is damaged or not there."""
        entry = unpack_entry(os.pread(self._index, ENTRY_BYTES, slot * ENTRY_BYTES))
        return entry if entry is not None and entry.sequence == slot else None

    def scan(self, begin: int, end: int, streams: tuple[int, ...], *, backwards: bool = False) -> Iterator[RawEntry]:
        """Give the sound entries with numbers from `begin` to `end` - 1 that concern one of the streams."""
        size = SCAN_FIRST
        low, high = max(begin, HEADER_ENTRIES), end
        while low < high:
            first = max(low, high - size) if backwards else low
            block = self.block(first, min(size, high - first))
            if backwards:
                high = first
            elif block:
                low += len(block) // ENTRY_BYTES
            else:
                return
            size = min(size * 4, SCAN_MOST)
            if _may_concern(block, streams):
                entries = parse(block, first)
                for entry in reversed(entries) if backwards else entries:
                    if any(concerns(entry, stream) for stream in streams):
                        yield entry

    def takes_up(self, stream: int) -> int:
        """Return the position at which the segment takes a stream up: its base, or the begin of a gap before that.

        The base lies behind the gaps that a segment's first entries tell of.
        """
        base = self.header.base(stream)
        for entry in self.scan(HEADER_ENTRIES, self.behind_gaps(), (stream,)):
            if entry[3] == stream:
                return min(entry[1], base)
        return base

    def behind_gaps(self) -> int:
        """Return the number of the first entry behind the gaps with which the segment begins."""
        end = self.count()
        for entry in self.scan(HEADER_ENTRIES, end, (STDOUT, STDERR)):
            if entry[4] != Kind.GAP:
                return entry[6]
        return end

    def is_empty(self, stream: int) -> bool:
        """Tell whether no bytes of a stream are in the segment: then only gaps at its begin can tell of the stream."""
        descriptor = self._descriptor(stream)
        return descriptor is None or os.fstat(descriptor).st_size == 0

    def last_time(self) -> int | None:
        """Return the time of the last sound entry, None if there is none."""
        for slot in range(self.count() - 1, HEADER_ENTRIES - 1, -1):
            entry = self.entry(slot)
            if entry is not None:
                return entry.time_ns
        return None

    def first_at_or_after(self, time_ns: int, begin: int = HEADER_ENTRIES) -> int | None:
        """Return the number of the first sound entry from `begin` on whose time is not earlier. Bisects."""
        low, high = begin, self.count()
        found = None
        while low < high:
            middle = (low + high) // 2
            at, entry = middle, self.entry(middle)
            while entry is None and at + 1 < high:
                at += 1
                entry = self.entry(at)
            if entry is None:
                high = middle
            elif entry.time_ns >= time_ns:
                found, high = at, middle
            else:
                low = at + 1
        return found

    def slot_of(self, stream: int, position: int) -> int:
        """Return the number of the first entry of a stream that reaches beyond a position; the count if none does."""
        low, slot = HEADER_ENTRIES, self.count()
        high = self.behind_gaps() if self.is_empty(stream) else slot
        while low < high:
            middle = (low + high) // 2
            entry = next((e for e in self.scan(middle, high, (stream,)) if e[3] == stream), None)
            if entry is None:
                high = middle
            elif entry[1] + entry[2] > position:
                slot, high = entry[6], middle
            else:
                low = entry[6] + 1
        return slot

    # -- the data ----------------------------------------------------------------------------------------------------

    def read(self, stream: int, position: int, length: int) -> bytes:
        """Return the bytes of a stream from a position on; fewer where the file ends or the disk fails."""
        descriptor = self._descriptor(stream)
        offset = position - self.header.base(stream)
        if descriptor is None or offset < 0:
            return b""
        try:
            return os.pread(descriptor, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""  # a stretch that the disk can't give back is missing, as one that was cut off

    def _descriptor(self, stream: int) -> int | None:
        if stream not in self._data:
            try:
                self._data[stream] = os.open(os.path.join(self._folder, data_name(self.number, stream)), OPEN_FLAGS)
            except FileNotFoundError:
                return None
        return self._data[stream]


def _may_concern(block: bytes, streams: tuple[int, ...]) -> bool:
    """Tell, quickly, whether an entry of the block may concern one of the streams; markers are of stream 0."""
    of_streams = block[20::ENTRY_BYTES]
    return 0 in of_streams or any(stream in of_streams for stream in streams)
