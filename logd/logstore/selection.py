"""Which lines a reader wants, and where in a store the first of them begins."""

from dataclasses import dataclass
from typing import NamedTuple

from logd.logstore.opened import data_size
from logd.logstore.places import Place, Store
from logd.logstore.tail import tail_positions
from logd.record import STDERR, STDOUT


@dataclass(frozen=True)
class Selection:
    """Which lines: each limit narrows what the others leave; `tail` takes the last of what is left at present."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int | None = None
    """From the first batch of that Unix time or later on. Lines begun before it are left out."""
    until_ns: int | None = None
    """Up to, not including, the first batch later than that Unix time. Lines begun before it are completed."""
    tail: int | None = None
    """The last so many lines there are now, and all that follow; lines, not parts of lines."""
    after: tuple[int, int] | None = None
    """Positions of stdout and stderr from which to go on: a reader's `cursor`."""
    present: bool = False
    """Only what is there at the first look, however much is written while it is read: for who does not follow."""

    @property
    def streams(self) -> tuple[int, ...]:
        """The numbers of the streams."""
        return tuple(number for number, wanted in ((STDOUT, self.stdout), (STDERR, self.stderr)) if wanted)


class Start(NamedTuple):
    """Where a reading begins."""

    place: Place | None
    """The first entry; None: the first that there will be."""
    positions: dict[int, int]
    """For each stream the first byte wanted."""
    skipped: frozenset[int] = frozenset()
    """Streams that are in the middle of a line that is not wanted."""
    reason: str = "retention"
    """Why bytes are missing, if the first segment begins beyond a position."""


def find_start(store: Store, selection: Selection, searched: Place | None, *, is_first_look: bool) -> Start | None:
    """Return where to begin; None while no batch is as late as `since`.

    `searched` is up to where an earlier look found none. `tail` counts only at the first look: later lines are new.
    """
    begin = store.begin() if selection.since_ns is None else store.first_at_or_after(selection.since_ns, searched)
    if begin is None and selection.since_ns is not None:
        return None
    after = dict(zip((STDOUT, STDERR), selection.after or (0, 0), strict=True))
    if begin is None:
        return Start(None, {stream: after[stream] for stream in selection.streams})
    start = _limited(store, selection, begin, after)
    if selection.tail is None or not is_first_look:
        return start
    return _last_lines(store, selection, start, selection.tail)


def _limited(store: Store, selection: Selection, begin: Place, after: dict[int, int]) -> Start:
    """Return where what `since` and `after` select begins."""
    stands = {stream: store.position_before(begin, stream) for stream in selection.streams}
    if selection.since_ns is None and selection.after is None:
        lost = {stream: at - _unreadable_bytes(store, begin, stream) for stream, at in stands.items()}
        return Start(begin, lost, reason="retention" if lost == stands else "damaged")
    if selection.since_ns is None:
        positions = {stream: after[stream] for stream in selection.streams}
        return Start(store.place_of(positions) or begin, positions)
    positions = {stream: max(at, after[stream]) for stream, at in stands.items()}
    cut = {
        stream
        for stream, at in stands.items()
        if positions[stream] == at and store.open_line(begin, stream) is not None
    }
    if selection.after is not None:
        begin = max(begin, store.place_of(positions) or begin)
    return Start(begin, positions, frozenset(cut))


def _unreadable_bytes(store: Store, begin: Place, stream: int) -> int:
    """Return how many bytes of a stream lie in segments before `begin` that can't be read, as far as can be known."""
    if store.numbers[0] == 1 < begin.segment:
        return store.position_before(begin, stream)  # the first segment begins at 0
    return sum(data_size(store.folder, number, stream) for number in store.numbers if number < begin.segment)


def _last_lines(store: Store, selection: Selection, start: Start, tail: int) -> Start:
    """Narrow a start to the last lines of what there is now."""
    begin, end = start.place, store.end()
    if begin is None or end is None:
        return start
    bound = None if selection.until_ns is None else store.first_at_or_after(selection.until_ns + 1, begin)
    floors = {}
    for stream, position in start.positions.items():
        floor = store.first_line(begin, stream) if stream in start.skipped else position
        if floor is not None:
            floors[stream] = floor
    found = tail_positions(store, tail, floors, begin, bound or end, is_until=bound is not None)
    if found is None:
        return start
    positions = start.positions | found
    place = max(begin, store.place_of(positions) or begin)
    return Start(min(place, bound or place), positions, start.skipped - found.keys())
