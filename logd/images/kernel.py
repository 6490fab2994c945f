"""System calls that the standard library lacks: openat2(2), syncfs(2), prctl(2)."""

import ctypes
import os
import signal
from typing import Final

SYS_OPENAT2: Final = 437
"""The same number on every architecture (linux/include/uapi/asm-generic/unistd.h); Linux 5.6."""
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open an existing `path` below the descriptor `directory`; O_CLOEXEC is added.

    Raises OSError: EXDEV where RESOLVE_BENEATH was left, ELOOP at a symbolic link that was excluded.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    name = os.fsencode(path)
    fd: int = _libc.syscall(SYS_OPENAT2, directory, name, ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        raise _error(path)
    return fd


def syncfs(fd: int) -> None:
    """Write everything of the file system of `fd` to the disk, and wait."""
    if _libc.syncfs(fd) < 0:
        raise _error(None)


def forbid_new_privileges() -> None:
    """Make setuid bits and file capabilities without effect on what this process executes."""
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise _error(None)


def die_with_parent() -> None:
    """Have this process killed when the thread that started it ends."""
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) < 0:
        raise _error(None)


def _error(path: str | None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
