"""The file `ballast`, which keeps room in a store for the entries that tell of a full disk."""

import errno
import os
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors of a write that room on the disk would cure (EFBIG: the process's RLIMIT_FSIZE)."""
NAME: Final = "ballast"
SIZE_BYTES: Final = 64 << 10


def make(folder: str, mode: int) -> None:
    """Take the room, as much of it as there is."""
    try:
        descriptor = os.open(f"{folder}/{NAME}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, mode)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in FULL:
            raise


def drop(folder: str) -> None:
    """Give the room back to the disk."""
    try:
        os.unlink(f"{folder}/{NAME}")
    except FileNotFoundError:
        return
