"""Which closed segments may go, so that a store, and all stores of the host together, stay within their bounds."""

import os
from collections.abc import Iterable, Iterator

from logd.logstore.inventory import Closed
from logd.logstore.options import StoreOptions, reserve_bytes
from logd.logstore.segment import file_names


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
