"""mount(2) and umount2(2), with errors as exceptions. Both block."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_REMOUNT: Final = 0x20
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path | str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source` on `target`; raises OSError."""
    arguments = [os.fsencode(text) for text in (source, str(target), kind)]
    if _libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(data) or None) != 0:
        raise _last_error(target)


def detach(target: Path) -> None:
    """Unmount all that is mounted on `target`, busy or not; nothing mounted there is fine. Raises OSError."""
    while _libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW | MNT_DETACH) == 0:
        pass
    error = _last_error(target)
    if error.errno not in {errno.EINVAL, errno.ENOENT}:
        raise error


def _last_error(target: Path | str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(target))
