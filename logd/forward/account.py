"""The account of a container's bytes, for each of its drivers.

    captured = delivered + unconfirmed + buffered + the sum of dropped

Each term is taken from where it happens: `captured` from the store's end, as its writer noted it; `delivered`,
`unconfirmed` and `dropped` from the cursor's file, where they were added up at each acknowledgement; `buffered` from
the index entries beyond the cursor. None is derived from another: `difference` is what does not add up, and should
be 0. Bytes may flow meanwhile: the cursor is read first, the ends after it, and what waits is counted between the two.
"""

from dataclasses import dataclass
from typing import Any, Final

from logd.logstore.buffered import held_beyond
from logd.logstore.progress import Progress, read_progress
from logd.logstore.reader import end_positions
from logd.logstore.totals import read_totals

Positions = tuple[int, int]
UNREAD: Final = "unread-gaps"
"""The reason of bytes that are gone from the store, and that the driver has not come to yet."""
ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Terms:
    """The account of one driver, in bytes."""

    captured: int
    delivered: int
    unconfirmed: int
    buffered: int
    unread: int
    """Gone from the store before the driver came to it: it will drop them when it does."""
    dropped: int
    """For all reasons that the driver has counted."""

    @property
    def difference(self) -> int:
        """What does not add up."""
        return self.captured - self.delivered - self.unconfirmed - self.buffered - self.unread - self.dropped


def terms(progress: Progress, ends: Positions, captured: Positions, held: int, missing: int) -> Terms:
    """Put the terms together: a cursor, then the ends of the index and the totals (`captured`: whichever is farther).

    `held`, `missing`: bytes that are in the store, and that are not, from the cursor up to the ends.
    """
    stands = zip(ends, progress.positions, captured, strict=True)
    trailing = sum(max(0, last - max(end, position)) for end, position, last in stands)
    return Terms(
        captured=sum(captured) - sum(progress.begin),
        delivered=progress.delivered,
        unconfirmed=progress.unconfirmed,
        buffered=held,
        unread=missing + trailing,
        dropped=sum(progress.dropped.values()),
    )


def account(folder: str) -> dict[str, dict[str, Any]]:
    """Return the terms in bytes, by the driver's name (reads index entries, may block)."""
    accounts = {}
    for name, first in read_progress(folder).items():
        progress, found = _settled(folder, name, first)
        accounts[name] = {
            "captured": found.captured,
            "delivered": found.delivered,
            "unconfirmed": found.unconfirmed,
            "buffered": found.buffered,
            "dropped": {**progress.dropped, **({UNREAD: found.unread} if found.unread else {})},
            "records": progress.records,
            "retries": progress.retries,
            "positions": list(progress.positions),
            "difference": found.difference,
        }
    return accounts


def _settled(folder: str, name: str, progress: Progress) -> tuple[Progress, Terms]:
    """Return a driver's progress, as it was read just now or is again, and its terms.

    What was delivered and let go while it was counted is no loss: then it is counted again.
    """
    for _ in range(ATTEMPTS):
        totals = read_totals(folder)  # before the ends, so that it names nothing beyond them but what was dropped
        ends = _ends(folder, progress.positions)
        noted = [one.end for one in totals.streams.values()]
        captured = max(ends[0], noted[0]), max(ends[1], noted[1])
        held, missing = held_beyond(folder, progress.positions, ends)
        found = terms(progress, ends, captured, held, missing)
        after = read_progress(folder).get(name, progress) if missing else progress
        if after.positions == progress.positions:
            break
        progress = after
    return progress, found


def _ends(folder: str, positions: Positions) -> Positions:
    """Return the ends; looked up again where a segment that went meanwhile has hidden what a driver has had already."""
    for _ in range(ATTEMPTS):
        ends = end_positions(folder)
        if all(end >= at for end, at in zip(ends, positions, strict=True)):
            break
    return ends
