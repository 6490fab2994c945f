"""A small file that keeps room for the entries which tell of a full disk."""

import errno
import os
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors of a write that room on the disk would cure (EFBIG: the process's RLIMIT_FSIZE)."""
NAME: Final = "ballast"
SIZE_BYTES: Final = 64 << 10


class Ballast:
    """The file `ballast` of a store."""

    def __init__(self, folder: str, mode: int) -> None:
        self._path = os.path.join(folder, NAME)
        self._mode = mode

    def make(self) -> None:
        """Take the room, as much of it as there is."""
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, self._mode)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
        except OSError as error:
            if error.errno not in FULL:
                raise
        finally:
            os.close(descriptor)

    def drop(self) -> None:
        """Give the room back to the disk."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return
