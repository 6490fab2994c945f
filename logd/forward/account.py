"""The account of a container's bytes, for each of its drivers.

    captured = delivered + unconfirmed + buffered + the sum of dropped

Each term is taken from where it happens: `captured` from the store's end, as its writer noted it; `delivered`,
`unconfirmed` and `dropped` from the cursor's file, where they were added up at each acknowledgement; `buffered` from
the index entries beyond the cursor. None is derived from another: `difference` is what does not add up, and should
be 0.
"""

from typing import Any

from logd.logstore.buffered import held_beyond
from logd.logstore.progress import read_progress
from logd.logstore.reader import end_positions
from logd.logstore.totals import read_totals


def account(folder: str) -> dict[str, dict[str, Any]]:
    """Return the terms in bytes, by the driver's name (reads index entries, may block)."""
    accounts = {}
    for name, progress in read_progress(folder).items():
        totals = read_totals(folder)
        seen = end_positions(folder)
        ends = tuple(max(end, one.end) for end, one in zip(seen, totals.streams.values(), strict=True))
        captured = sum(end - begin for end, begin in zip(ends, progress.begin, strict=True))
        buffered, lost = held_beyond(folder, progress.positions)
        trailing = sum(end - at for end, at in zip(ends, seen, strict=True))
        known = progress.delivered + progress.unconfirmed + buffered + lost + trailing + sum(progress.dropped.values())
        accounts[name] = {
            "captured": captured,
            "delivered": progress.delivered,
            "unconfirmed": progress.unconfirmed,
            "buffered": buffered,
            "dropped": {**progress.dropped, **({"unread-gaps": lost + trailing} if lost + trailing else {})},
            "records": progress.records,
            "retries": progress.retries,
            "positions": list(progress.positions),
            "difference": captured - known,
        }
    return accounts
