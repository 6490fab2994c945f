"""How a process ended, told by its pidfd: also for one that is not our child.

Sources: pidfd_open(2), ioctl PIDFD_GET_INFO (include/uapi/linux/pidfd.h, kernel 6.13; the exit code from 6.15 on,
and only on a pidfd that was opened while the process lived), proc(5) /proc/PID/stat field 52.
"""

import fcntl
import os
import struct
from typing import Final

from logd.runtime.protocol import start_ticks

PIDFD_GET_INFO: Final = 0xC040FF0B
"""_IOWR(0xFF, 11, struct pidfd_info) with the first published size, 64 bytes."""
PIDFD_INFO_EXIT: Final = 1 << 3
_INFO: Final = struct.Struct("<QQ11Ii")
"""mask, cgroup id, eleven ids, exit code."""


def open_process(pid: int, ticks: int) -> int | None:
    """Return a pidfd of the process that has this pid and start time; None if it is gone, reused pid or not."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_ticks(pid) != ticks:
        os.close(pidfd)
        return None
    return pidfd


def wait_status(pidfd: int, pid: int) -> tuple[int | None, bool]:
    """Return the wait status of a process that has ended, and whether it is our child, still to be reaped.

    The status is None if it is not ours and the kernel no longer tells.
    """
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        status = _zombie_status(pid)
        return (status if status is not None else _reaped_status(pidfd)), False
    if info is None:
        return None, False
    if info.si_code == os.CLD_EXITED:
        return info.si_status << 8, True
    return info.si_status, True


def _zombie_status(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[-1]) if fields[0] == b"Z" else None


def _reaped_status(pidfd: int) -> int | None:
    request = _INFO.pack(PIDFD_INFO_EXIT, 0, *([0] * 11), 0)
    try:
        answer = fcntl.ioctl(pidfd, PIDFD_GET_INFO, request)
    except OSError:
        return None  # an older kernel
    mask, *_, exit_code = _INFO.unpack(answer)
    return exit_code if mask & PIDFD_INFO_EXIT else None
