"""Open a store for writing: take its lock, mend what its last writer left, begin a segment if one is due."""

import fcntl
import os
import time
from typing import Final

from logd.logstore import ballast
from logd.logstore.ballast import FULL
from logd.logstore.inventory import bases, data_sizes
from logd.logstore.options import StoreOptions
from logd.logstore.recovery import recover
from logd.logstore.totals import TotalsFile
from logd.logstore.writer import FILE_MODE, Place, StoreWriter, read_boot_id

FOLDER_MODE: Final = 0o750


def open_store(folder: str, options: StoreOptions, *, waits: bool = True) -> StoreWriter:
    """Return a writer of the store in `folder`, made if need be. Raises OSError.

    Waits for the lock, or, if not `waits`, raises BlockingIOError when another process holds it.
    """
    os.makedirs(folder, FOLDER_MODE, exist_ok=True)
    lock = os.open(os.path.join(folder, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _open_locked(folder, options, lock)
    except BaseException:
        os.close(lock)
        raise


def _open_locked(folder: str, options: StoreOptions, lock: int) -> StoreWriter:
    counts = TotalsFile(folder, FILE_MODE)
    counts.close()
    found = recover(folder, read_boot_id(), time.time_ns(), counts.totals)
    ballast.make(folder, FILE_MODE)
    size, begins = 0, found.ends
    if found.number:
        size = sum(data_sizes(folder, found.number))
        begins = bases(folder, found.number) or found.ends
    stand = found.number, found.entries, found.last_ns, size, begins
    place = Place(*stand, found.ends, list(found.gaps), found.unwritten, "")
    writer = StoreWriter(folder, options, lock, place)
    if not found.reusable:
        _begin(writer)
    elif found.unwritten:
        writer.stop_writing("no-space")
    return writer


def _begin(writer: StoreWriter) -> None:
    """Begin the first segment of this writer; on a full disk go on with the old one, dropping, if there is any."""
    try:
        writer.rotate()
    except OSError as error:
        if error.errno not in FULL or not writer.number:
            raise
        writer.stop_writing("no-space")
