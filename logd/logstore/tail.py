"""Where the last N lines begin: counted back from the end by the index, reading only what is counted.

A line counts where its newline arrived, or where a gap or the end of a run cut it off; lines of several streams are
counted in that order. Parts of an over-long line count as the one line that they are.
"""

from logd.logstore.opened import OpenSegment, RawEntry, concerns
from logd.logstore.places import Place, Store, newline_after, newline_before
from logd.logstore.segment import Kind


def tail_positions(
    store: Store, wanted: int, floors: dict[int, int], begin: Place | None, end: Place, *, is_until: bool
) -> dict[int, int] | None:
    """Return the position, for each stream in `floors`, of its first line among the last `wanted` before `end`.

    None when there are no more lines than that. Lines that begin before a stream's floor, or that arrived before
    `begin`, don't count. `is_until`: `end` is the end of a time span, and lines begun before it are completed.
    """
    count = _Countdown(store, wanted, floors)
    if is_until and count.completed(end):
        return count.starts
    if wanted == 0:
        return count.cut(end)
    for segment, entry in store.backwards(end, tuple(floors), begin):
        if entry[4] > Kind.ADOPTED:
            found = count.marker(segment, entry)
        else:
            found = entry[3] in floors and count.batch(segment, entry)
        if found:
            return count.starts
    return None


class _Countdown:
    """Lines still wanted; when it comes to 0, `starts` is complete."""

    def __init__(self, store: Store, wanted: int, floors: dict[int, int]) -> None:
        self._store = store
        self._left = wanted
        self._floors = floors
        self.starts: dict[int, int] = {}

    def completed(self, end: Place) -> bool:
        """Count the lines that are open at `end` and completed later, the last completed first."""
        done: list[tuple[Place, int, int]] = []
        for stream in self._floors:
            start = self._open_line(end, stream)
            place = None if start is None else self._completion(end, stream)
            if place is not None and start is not None:
                done.append((place, stream, start))
        for _, stream, start in sorted(done, reverse=True):
            if self._left == 0:
                self.starts[stream] = self._store.position_before(end, stream)
            else:
                self._left -= 1
                if self._left == 0:
                    self.starts[stream] = start
        if self._left == 0 and done:
            self.cut(end)
            return True
        return False

    def _open_line(self, place: Place, stream: int) -> int | None:
        """Return where the line open at a place begins, but not before the floor; None if there is none beyond it."""
        start, floor = self._store.open_line(place, stream), self._floors[stream]
        if start is None or start >= floor:
            return start
        return floor if self._store.position_before(place, stream) > floor else None

    def _completion(self, end: Place, stream: int) -> Place | None:
        for segment, entry in self._store.forwards(end, (stream,)):
            place = Place(segment.number, entry[6])
            if entry[4] > Kind.ADOPTED:
                return place
            if newline_after(segment, stream, entry[1], entry[1] + entry[2]) is not None:
                return place
        return None

    def marker(self, segment: OpenSegment, entry: RawEntry) -> bool:
        """Count the lines that a gap, a begin or an end cuts off: stdout's came first."""
        place = Place(segment.number, entry[6])
        for stream in sorted(self._floors, reverse=True):
            start = self._open_line(place, stream) if concerns(entry, stream) else None
            if start is not None:
                self._left -= 1
                if self._left == 0:
                    self.starts[stream] = start
                    for earlier in range(1, stream):
                        if earlier in self._floors and concerns(entry, earlier):
                            self.starts[earlier] = self._store.position_before(place, earlier)
                    self.cut(place)
                    return True
        return False

    def batch(self, segment: OpenSegment, entry: RawEntry) -> bool:
        """Count the newlines of a batch."""
        _, position, length, stream, *_ = entry
        low = max(position, self._floors[stream])
        before, found = newline_before(segment, stream, low, position + length, self._left + 1)
        if found < self._left:
            self._left -= found
            return False
        if before is not None:
            self.starts[stream] = before + 1
        elif position < self._floors[stream]:
            self.starts[stream] = self._floors[stream]
        self.cut(Place(segment.number, entry[6]))
        return True

    def cut(self, place: Place) -> dict[int, int]:
        """Let the streams that have no start yet begin with the line that is open at a place, or there."""
        for stream, floor in self._floors.items():
            if stream not in self.starts:
                start = self._store.open_line(place, stream)
                if start is None:
                    start = self._store.position_before(place, stream)
                self.starts[stream] = max(start, floor)
        return self.starts
