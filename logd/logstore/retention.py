"""Which closed segments may go, so that a store, and all stores of the host together, stay within their bounds."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from logd.logstore.claims import Claim, read_claims
from logd.logstore.inventory import Closed, closed_segments
from logd.logstore.options import StoreOptions, reserve_bytes
from logd.logstore.segment import file_names
from logd.logstore.totals import TotalsFile
from logd.record import STDERR, STDOUT

COUNTS_MODE: Final = 0o640


class Retention:
    """The closed segments of a store, oldest first, and the counts of what has left it: one per writer, if at all.

    `open_number` is the segment being written, 0 if there is none yet.
    """

    def __init__(self, folder: str, options: StoreOptions, open_number: int) -> None:
        self._folder = folder
        self.options = options
        self._totals = TotalsFile(folder, COUNTS_MODE)
        self.closed = closed_segments(folder, open_number)
        self.is_claimed = False
        """Whether a segment that was due to go is kept for a driver that has not delivered it yet."""
        self.is_blocked = False
        """Whether the container has to wait for a driver: mode=blocking, and its budget is spent."""

    def enforce(self, now_ns: int, protected: tuple[int, int] | None, ends: tuple[int, int]) -> None:
        """Remove closed segments that the store's and the host's bounds no longer allow; `ends` of the streams."""
        self.is_claimed = self.is_blocked = False
        due = list(expired(self.closed, self.options, now_ns, protected))
        claims = read_claims(self._folder) if due else []
        for segment in due:
            if self._is_claimed(segment, claims, ends):
                self.is_claimed = True
                break
            self._remove(segment)
        self.free(host_excess(self._folder, self.options), protected)

    def _is_claimed(self, segment: Closed, claims: Iterable[Claim], ends: tuple[int, int]) -> bool:
        """Tell whether a driver that is within its budget has not delivered all of the oldest segment yet."""
        held = False
        for claim in claims:
            if not is_protected(segment, claim.positions):
                continue
            begins = zip(claim.positions, segment.begins, strict=True)
            waiting = sum(end - max(pair) for end, pair in zip(ends, begins, strict=True))
            if waiting <= claim.budget:
                held = True
            elif claim.is_blocking:
                held = self.is_blocked = True
        return held

    def free(self, excess: int, protected: tuple[int, int] | None) -> bool:
        """Remove closed segments, oldest first, until that many bytes are free; true if there were enough."""
        while excess > 0 and self.closed:
            size = self.closed[0].size
            if not self.free_oldest(protected):
                break
            excess -= size
        return excess <= 0

    def free_oldest(self, protected: tuple[int, int] | None) -> bool:
        """Remove the oldest closed segment; false if there is none, or a lossless reader needs it."""
        if not self.closed or is_protected(self.closed[0], protected):
            return False
        self._remove(self.closed[0])
        return True

    def clear(self) -> None:
        """Remove them all, at a person's wish."""
        for segment in list(self.closed):
            self._remove(segment, cleared=True)

    def _remove(self, segment: Closed, *, cleared: bool = False) -> None:
        delete_segment(self._folder, segment.number)
        for stream, begin, end in zip((STDOUT, STDERR), segment.begins, segment.ends, strict=True):
            totals = self._totals.totals.streams[stream]
            if cleared:
                totals.cleared += end - begin
            else:
                totals.expired += end - begin
        self.closed.remove(segment)
        self._totals.save()

    def count_dropped(self, stream: int, count: int, code: int, ends: dict[int, int]) -> None:
        """Count bytes that were thrown away; `ends`: where the streams stand since."""
        self._totals.totals.streams[stream].dropped[code] += count
        self.save(ends)

    def save(self, ends: dict[int, int]) -> None:
        """Write the counts, and where the streams stand."""
        for stream, end in ends.items():
            self._totals.totals.streams[stream].end = end
        self._totals.save()

    def close(self) -> None:
        """Close the file of the counts."""
        self._totals.close()


def expired(
    closed: list[Closed], options: StoreOptions, now_ns: int, protected: tuple[int, int] | None
) -> Iterator[Closed]:
    """Give the segments, oldest first, that the store's own bounds no longer allow.

    `protected`: what lies at or beyond these positions of stdout and stderr has a reader that must not miss it.
    """
    surplus = len(closed) + 1 - options.max_file
    for at, segment in enumerate(closed):
        too_old = options.max_age_s and now_ns - segment.last_ns > options.max_age_s * 1_000_000_000
        if at >= surplus and not too_old:
            return
        if is_protected(segment, protected):
            return
        yield segment


def is_protected(segment: Closed, protected: tuple[int, int] | None) -> bool:
    """Tell whether a lossless reader still needs something of this segment."""
    return protected is not None and any(end > at for end, at in zip(segment.ends, protected, strict=True))


def host_excess(folder: str, options: StoreOptions) -> int:
    """Return how many bytes this store should free for the host's sake, 0 if the host's bounds are kept.

    All stores lie beside each other as `containers/<id>/log`, this one included. Costs a stat per segment file of
    the host when `max_total` is set, one statvfs otherwise.
    """
    excess = 0
    if options.max_total:
        stores = os.path.dirname(os.path.dirname(os.path.abspath(folder)))
        excess = max(0, sum(_store_sizes(stores)) - options.max_total)
    return max(excess, missing_reserve(folder, options))


def missing_reserve(folder: str, options: StoreOptions) -> int:
    """Return how many bytes are lacking to the reserve of free space, 0 if none."""
    if options.min_free == 0:
        return 0
    stat = os.statvfs(folder)
    reserve = reserve_bytes(options, stat.f_blocks * stat.f_frsize)
    return max(0, reserve - stat.f_bavail * stat.f_frsize)


def _store_sizes(stores: str) -> Iterator[int]:
    for container in _names(stores):
        log = os.path.join(stores, container, "log")
        for name in _names(log):
            try:
                yield os.stat(os.path.join(log, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # another shim rotated


def _names(folder: str) -> Iterable[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return ()


def delete_segment(folder: str, number: int) -> None:
    """Remove a segment's files, the index first: without it the rest is debris that recovery clears away."""
    data_out, data_err, index = file_names(number)
    for name in (index, data_out, data_err, index.replace(".index", ".sealed")):
        try:
            os.unlink(os.path.join(folder, name))
        except FileNotFoundError:
            continue
