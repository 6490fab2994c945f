"""Bring a store that nobody writes back within its bounds, once its drivers have had what was kept for them."""

import fcntl
import os
import time

from logd.logstore.options import StoreOptions
from logd.logstore.reader import end_positions
from logd.logstore.retention import Retention
from logd.logstore.segment import segment_numbers


def trim(folder: str, options: StoreOptions) -> None:
    """Let go what the bounds no longer allow, unless a writer has the store, who does so itself. Raises OSError."""
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        retention = Retention(folder, options, max(segment_numbers(folder), default=0))
        try:
            retention.enforce(time.time_ns(), None, end_positions(folder))
        finally:
            retention.close()
    except BlockingIOError:
        return
    finally:
        os.close(lock)
