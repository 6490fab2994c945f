"""Open and make files of a container's root without ever leaving it, whatever links the image put there.

Source: openat2(2) with RESOLVE_IN_ROOT (Linux 5.6): absolute links and `..` stay inside, as if chrooted; and with
RESOLVE_BENEATH: what would lead out is an error.
"""

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from logd.errors import InvalidParameter

SYS_OPENAT2: Final = 437  # the same number on all architectures
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10
MAX_LOOKUP_FILE: Final = 16 << 20  # bytes of /etc/passwd or /etc/group that are read; real ones have a few hundred

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Open `path` as a process chrooted to `root_fd` would; returns a close-on-exec descriptor, raises OSError."""
    return _open(root_fd, path, flags, RESOLVE_IN_ROOT)


def open_beneath(root_fd: int, path: str, flags: int) -> int:
    """Open a relative `path`; as above, but OSError (EXDEV) if a link or `..` in it leads out of `root_fd`."""
    return _open(root_fd, path, flags, RESOLVE_BENEATH)


def _open(root_fd: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve | RESOLVE_NO_MAGICLINKS)
    fd: int = _libc.syscall(SYS_OPENAT2, root_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


@contextlib.contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close the descriptor at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def open_directory(path: Path | str) -> int:
    """Open a directory of the host to be used as a root."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def read_regular(root_fd: int, path: str) -> bytes | None:
    """Return a regular file's content; None if there is no such regular file (a FIFO or device is not opened).

    The first 16 MiB at most: the file comes from an image.
    """
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return file.read(MAX_LOOKUP_FILE)


def make_directories(root_fd: int, path: str, mode: int = 0o755) -> None:
    """Create a directory and its parents inside the root, owned by root, as Docker does for WORKDIR.

    `path` is absolute and cleaned lexically first. Raises InvalidParameter when a file is in the way.
    """
    parts = PurePosixPath(os.path.normpath("/" + path)).parts[1:]
    parent = os.dup(root_fd)
    try:
        for depth, name in enumerate(parts, 1):
            here = "/".join(parts[:depth])
            try:
                child = open_in_root(root_fd, here, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                child = _make_child(parent, name, mode)
            os.close(parent)
            parent = child
    except (NotADirectoryError, FileExistsError) as error:
        raise InvalidParameter(f"Cannot mkdir: {path} is not a directory") from error
    finally:
        os.close(parent)


def _make_child(parent: int, name: str, mode: int) -> int:
    with opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)) as here:
        os.mkdir(name, mode, dir_fd=here)  # a link to nowhere is EEXIST
        child = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    os.chmod(f"/proc/self/fd/{child}", mode)  # the umask must not matter
    return child
