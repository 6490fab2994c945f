"""A small file of the kernel that is read again and again: it is opened once, and every look is one pread at 0.

Source: kernel documentation, filesystems/seq_file.rst; a kept descriptor of a cgroup that was removed says ENODEV.
"""

import errno
import os
from collections.abc import Callable
from typing import Final

PAGE: Final = 4096
SURELY_WHOLE: Final = 2048
"""A file of records (/proc/PID/net/dev) is given out by whole records that fit into a page: less than this much, with
records far below a page's half, was all of it."""
_GONE: Final = frozenset((errno.ENODEV, errno.ENOENT, errno.ESRCH))
_NOT_HERE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP))

Look = Callable[[], bytes]
"""Gives the content of a file, b"" of one that this host does not have. Raises Gone, and OSError."""


class Gone(Exception):
    """The file was removed, and its cgroup with it."""


class KeptFile:
    """One file. Not safe against a `close` in another thread."""

    def __init__(self, path: str) -> None:
        """Open it; raises OSError."""
        self._path = path
        self._size = PAGE
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        """Return the present content. Raises Gone, and OSError."""
        try:
            data = os.pread(self._descriptor, self._size, 0)
            return data if len(data) < SURELY_WHOLE else self._all(data)
        except OSError as error:
            if error.errno in _GONE:
                raise Gone(self._path) from error
            if error.errno == errno.EOPNOTSUPP:  # pressure that was switched off when the kernel was booted
                return b""
            raise

    def _all(self, data: bytes) -> bytes:
        """Read on from what was read; the next look asks for enough at once, which makes it a look at one moment."""
        while more := os.pread(self._descriptor, self._size, len(data)):
            data += more
        while self._size <= len(data):
            self._size *= 2
        return data

    def close(self) -> None:
        """Give the descriptor back; once is enough, more is no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class KeptFiles:
    """The files of one cgroup, from several folders. Close it."""

    def __init__(self) -> None:
        self._files: list[KeptFile] = []

    def open(self, path: str) -> Look:
        """Return the look at a file; it gives b"" for ever where there is no such file now. Raises OSError."""
        try:
            file = KeptFile(path)
        except OSError as error:
            if error.errno in _NOT_HERE:
                return nothing
            raise
        self._files.append(file)
        return file.read

    def close(self) -> None:
        """Close all of them."""
        for file in self._files:
            file.close()
        self._files.clear()

    def __len__(self) -> int:
        return len(self._files)


def nothing() -> bytes:
    """Give the content of a file that this host does not have."""
    return b""


def read_once(path: str) -> bytes:
    """Return what a file holds now, b"" where there is none. Raises OSError."""
    files = KeptFiles()
    try:
        return files.open(path)()
    except Gone:
        return b""
    finally:
        files.close()
