"""Where in a store a reading begins: by time, by position, at a line's begin. Bisects; reads little.

A place is the number of an entry in a segment; a stream's position just before it is where its next bytes will lie.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

from logd.logstore.opened import OpenSegment, RawEntry, UnreadableSegmentError
from logd.logstore.segment import HEADER_ENTRIES, Kind, segment_numbers

PIECE_BYTES: Final = 256 * 1024
"""How much is read at once when looking for newlines: fits the processor's cache."""
KEPT_OPEN: Final = 8


class Place(NamedTuple):
    """An entry's number in a segment, or the number that the segment's next entry will get."""

    segment: int
    slot: int


class Store:
    """The segments that a folder has now, opened on demand. A context manager."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        try:
            self.numbers = segment_numbers(folder)
        except FileNotFoundError:
            self.numbers = []
        self._opened: dict[int, OpenSegment] = {}
        self._stands: dict[tuple[Place, int], int] = {}
        self._end: Place | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for segment in self._opened.values():
            segment.close()
        self._opened.clear()

    def segment(self, number: int) -> OpenSegment | None:
        """Return a segment, None if it is gone or can't be read."""
        if number not in self._opened:
            if len(self._opened) >= KEPT_OPEN:
                self._opened.pop(next(iter(self._opened))).close()
            try:
                self._opened[number] = OpenSegment(self.folder, number)
            except (FileNotFoundError, UnreadableSegmentError):
                return None
        return self._opened[number]

    def detach(self, number: int) -> OpenSegment | None:
        """Return a segment that the caller will close; data files are held open."""
        segment = self.segment(number)
        if segment is not None:
            segment.hold()
            del self._opened[number]
        return segment

    def segments(self, *, newest_first: bool = False) -> Iterator[OpenSegment]:
        """Give the readable segments."""
        for number in reversed(self.numbers) if newest_first else self.numbers:
            segment = self.segment(number)
            if segment is not None:
                yield segment

    def begin(self) -> Place | None:
        """Return the place of the first entry, None in a store without a segment."""
        first = next(self.segments(), None)
        return None if first is None else Place(first.number, HEADER_ENTRIES)

    def end(self) -> Place | None:
        """Return the place of the entry that will come next, as it is at the first call."""
        if self._end is None:
            last = next(self.segments(newest_first=True), None)
            self._end = None if last is None else Place(last.number, last.count())
        return self._end

    # -- scanning ----------------------------------------------------------------------------------------------------

    def backwards(
        self, place: Place, streams: tuple[int, ...], begin: Place | None = None
    ) -> Iterator[tuple[OpenSegment, RawEntry]]:
        """Give the entries before a place, down to `begin`, that concern one of the streams, latest first."""
        for segment in self.segments(newest_first=True):
            if segment.number > place.segment:
                continue
            if begin is not None and segment.number < begin.segment:
                return
            low = begin.slot if begin is not None and segment.number == begin.segment else HEADER_ENTRIES
            high = place.slot if segment.number == place.segment else segment.count()
            for entry in segment.scan(low, high, streams, backwards=True):
                yield segment, entry

    def forwards(self, place: Place, streams: tuple[int, ...]) -> Iterator[tuple[OpenSegment, RawEntry]]:
        """Give the entries from a place on that concern one of the streams."""
        for segment in self.segments():
            if segment.number >= place.segment:
                low = place.slot if segment.number == place.segment else HEADER_ENTRIES
                for entry in segment.scan(low, segment.count(), streams):
                    yield segment, entry

    # -- by time and by position -------------------------------------------------------------------------------------

    def first_at_or_after(self, time_ns: int, begin: Place | None = None) -> Place | None:
        """Return the place of the first entry, from `begin` on, with that time or a later one.

        Times never go back within a segment; from one to the next they may, and then the first place counts.
        """
        for segment in self.segments():
            if begin is not None and segment.number < begin.segment:
                continue
            last = segment.last_time()
            if last is not None and last >= time_ns:
                low = begin.slot if begin is not None and segment.number == begin.segment else HEADER_ENTRIES
                slot = segment.first_at_or_after(time_ns, low)
                if slot is not None:
                    return Place(segment.number, slot)
        return None

    def place_of(self, positions: dict[int, int]) -> Place | None:
        """Return the first place from which on everything at or beyond these positions of the streams will be seen."""
        places = [place for stream, at in positions.items() if (place := self._place_of(stream, at)) is not None]
        return min(places, default=None)

    def _place_of(self, stream: int, position: int) -> Place | None:
        for segment in self.segments(newest_first=True):
            if segment.header.base(stream) <= position:
                return Place(segment.number, segment.slot_of(stream, position))
        return self.begin()

    # -- lines -------------------------------------------------------------------------------------------------------

    def position_before(self, place: Place, stream: int) -> int:
        """Return where a stream stands just before a place."""
        segment = self.segment(place.segment)
        if segment is None:
            return 0
        if (place, stream) not in self._stands:
            end = min(place.slot, segment.behind_gaps()) if segment.is_empty(stream) else place.slot
            before = segment.scan(HEADER_ENTRIES, end, (stream,), backwards=True)
            last = next((entry for entry in before if entry[3] == stream), None)
            self._stands[place, stream] = segment.takes_up(stream) if last is None else last[1] + last[2]
        return self._stands[place, stream]

    def byte_before(self, position: int, stream: int) -> bytes:
        """Return the byte before a position of a stream, empty if it is not in the store."""
        for segment in self.segments(newest_first=True):
            if segment.header.base(stream) < position:
                return segment.read(stream, position - 1, 1)
        return b""

    def open_line(self, place: Place, stream: int) -> int | None:
        """Return where the line begins that a stream is in the middle of at a place; None if it is not in one."""
        position = self.position_before(place, stream)
        if self.byte_before(position, stream) in (b"", b"\n"):
            return None
        start = position
        for segment, entry in self.backwards(place, (stream,)):
            if entry[4] > Kind.ADOPTED or entry[1] + entry[2] != start:
                break
            newline, _ = newline_before(segment, stream, entry[1], start, 1)
            if newline is not None:
                start = newline + 1
                break
            start = entry[1]
        return start if start < position else None

    def first_line(self, place: Place, stream: int) -> int | None:
        """Return where the first line of a stream begins that begins at a place or later; None if none does yet."""
        position = self.position_before(place, stream)
        if self.open_line(place, stream) is None:
            return position
        for segment, entry in self.forwards(place, (stream,)):
            if entry[4] > Kind.ADOPTED or entry[1] != position:
                return position
            position = entry[1] + entry[2]
            newline = newline_after(segment, stream, entry[1], position)
            if newline is not None:
                return newline + 1
        return None


def newline_before(segment: OpenSegment, stream: int, low: int, high: int, nth: int) -> tuple[int | None, int]:
    """Look, back from position `high` to `low`, for the nth newline.

    Return its position and `nth`, or None and how many there are.
    """
    seen = 0
    while high > low:
        start = max(low, high - PIECE_BYTES)
        data = segment.read(stream, start, high - start)
        here = data.count(b"\n")
        if seen + here >= nth:
            at = len(data)
            for _ in range(nth - seen):
                at = data.rfind(b"\n", 0, at)
            return start + at, nth
        seen += here
        high = start
    return None, seen


def newline_after(segment: OpenSegment, stream: int, low: int, high: int) -> int | None:
    """Return the position of the first newline from `low` to before `high`, None if there is none."""
    while low < high:
        data = segment.read(stream, low, min(PIECE_BYTES, high - low))
        at = data.find(b"\n")
        if at >= 0:
            return low + at
        low += len(data) or high
    return None
