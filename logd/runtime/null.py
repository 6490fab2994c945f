"""A /dev/null for runtimes to pass on: a node of its own, in a file system that nobody else has.

A runtime gives what it finds on descriptors 0, 1 and 2 to the container's user, so that programs can open it again by
/dev/stdout; crun 1.8 does it with devices too. The host's /dev/null would then be a container's.
Source: fsopen(2), fsmount(2) (Linux 5.2), null(4).
"""

import ctypes
import os
import stat
from typing import Final

SYS_FSOPEN: Final = 430
SYS_FSCONFIG: Final = 431
SYS_FSMOUNT: Final = 432
"""The same numbers on every architecture (linux/include/uapi/asm-generic/unistd.h)."""
CLOEXEC: Final = 1
FSCONFIG_CMD_CREATE: Final = 6
DEVICE: Final = os.makedev(1, 3)
NAME: Final = "null"

_libc = ctypes.CDLL(None)


def open_null() -> int:
    """Return a descriptor for reading and writing; of the host's own where the system refuses to make one."""
    context = mount = -1
    try:
        context = _libc.syscall(SYS_FSOPEN, b"tmpfs", CLOEXEC)
        if context >= 0 and _libc.syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0) == 0:
            mount = _libc.syscall(SYS_FSMOUNT, context, CLOEXEC, 0)
        if mount >= 0:
            os.mknod(NAME, stat.S_IFCHR | 0o600, DEVICE, dir_fd=mount)
            os.chmod(NAME, 0o666, dir_fd=mount)  # noqa: S103 - as the one of all
            return os.open(NAME, os.O_RDWR | os.O_CLOEXEC, dir_fd=mount)
    except PermissionError:  # no CAP_MKNOD
        pass
    finally:
        for descriptor in (context, mount):
            if descriptor >= 0:
                os.close(descriptor)
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
