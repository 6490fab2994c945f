"""A small file of the kernel that is read again and again: it is opened once, and every look is one pread at 0.

Where descriptors have run out (EMFILE) the file is opened anew for every look, so that nothing but speed is lost.
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
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE))
_GONE: Final = frozenset((errno.ENODEV, errno.ENOENT, errno.ESRCH))
_NOT_HERE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP))

Look = Callable[[], bytes]
"""Gives the content of a file, b"" of one that this host does not have. Raises Gone, and OSError."""


class Gone(Exception):
    """The file was removed, and its cgroup with it."""


class KeptFile:
    """One file. Not safe against a `close` in another thread."""

    def __init__(self, path: str) -> None:
        """Open it; raises OSError, but not where only descriptors are wanting."""
        self._path = path
        self._size = PAGE
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise

    def read(self) -> bytes:
        """Return the present content. Raises Gone, and OSError."""
        try:
            if self._descriptor < 0:
                return self._read_anew()
            data = os.pread(self._descriptor, self._size, 0)
            return data if len(data) < SURELY_WHOLE else self._all(self._descriptor, data)
        except OSError as error:
            if error.errno in _GONE:
                raise Gone(self._path) from error
            if error.errno == errno.EOPNOTSUPP:  # pressure that was switched off when the kernel was booted
                return b""
            raise

    def _read_anew(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._all(descriptor, os.pread(descriptor, self._size, 0))
        finally:
            os.close(descriptor)

    def _all(self, descriptor: int, data: bytes) -> bytes:
        """Read on from what was read; the next look asks for enough at once, which makes it a look at one moment."""
        while more := os.pread(descriptor, self._size, len(data)):
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
    """Return what a file holds now, b"" where there is none."""
    try:
        file = KeptFile(path)
    except OSError:
        return b""
    try:
        return file.read()
    except (Gone, OSError):
        return b""
    finally:
        file.close()
