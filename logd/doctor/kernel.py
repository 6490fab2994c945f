"""What the kernel allows: descriptors, wide pipes, buffers for datagrams; and whether its clock is right.

Sources: proc(5), pipe(7), socket(7), adjtimex(2).
"""

import ctypes
import fcntl
import os
import resource
from pathlib import Path
from typing import Final

from logd.doctor.check import FAIL, OK, WARN, Check, Status
from logd.runtime.pipes import PIPE_BYTES
from logd.units import format_ram_size

SYSCTLS: Final = Path("/proc/sys")
DESCRIPTORS_EACH: Final = 28
"""Of one container, in the process that holds the most of them, the daemon: some 20 files that tell what it uses."""
FEW_DESCRIPTORS: Final = 32768
"""Enough for a thousand containers."""
FILES_SHARE: Final = 0.8
RECEIVE_BYTES: Final = 212_992
"""The kernel's own net.core.rmem_default, for which drivers space their datagrams."""
TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronized."""
TIMEX_BYTES: Final = 512
"""More than a struct timex has."""


def descriptors() -> Check:
    """Check how many descriptors this process and its children may have."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{limit} for each process, enough for about {limit // DESCRIPTORS_EACH} containers"
    if limit < FEW_DESCRIPTORS:
        return Check("descriptors", WARN, found, f"set LimitNOFILE= of logd's unit to {FEW_DESCRIPTORS} or more")
    return Check("descriptors", OK, found)


def files(root: Path = SYSCTLS) -> Check:
    """Check how near the system is to the limit of open files."""
    used, _, most = (int(number) for number in (root / "fs/file-nr").read_text(encoding="ascii").split())
    found = f"{used} of {most} (fs.file-max)"
    if used > FILES_SHARE * most:
        return Check("open files of the system", FAIL, found, "raise the sysctl fs.file-max")
    return Check("open files of the system", OK, found)


def pipes(root: Path = SYSCTLS) -> Check:
    """Make a pipe as wide as those between container and shim."""
    ends = os.pipe()
    try:
        size = fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        size = fcntl.fcntl(ends[0], fcntl.F_GETPIPE_SZ)
    finally:
        for end in ends:
            os.close(end)
    if size >= PIPE_BYTES:
        return Check("pipes", OK, f"{format_ram_size(size)} are allowed")
    limits = [f"{name} {_sysctl(root, name)}" for name in ("fs.pipe-max-size", "fs.pipe-user-pages-soft")]
    found = f"{format_ram_size(size)} at most ({', '.join(limits)}): a container waits sooner when it prints much"
    return Check("pipes", WARN, found, "run logd with CAP_SYS_RESOURCE, or raise both sysctls")


def datagrams(users: int, root: Path = SYSCTLS) -> Check:
    """Check the room for datagrams that a receiver on this host gets unless it asks for more."""
    default, most = (_sysctl(root, f"net.core.rmem_{which}") for which in ("default", "max"))
    found = f"net.core.rmem_default {default}, net.core.rmem_max {most}"
    status: Status = WARN if users and min(default, most) < RECEIVE_BYTES else OK
    advice = (
        f"set the sysctls to {RECEIVE_BYTES} or more: a receiver loses datagrams that come in a burst"
        if status == WARN
        else ""
    )
    return Check("buffers for datagrams", status, f"{found}; {users} containers log by UDP", advice)


def clock() -> Check:
    """Ask the kernel whether something keeps its clock right."""
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    if state == TIME_ERROR:
        found = "nothing keeps it right: times of lines may be wrong, and may jump"
        return Check("clock", WARN, found, "run chrony or systemd-timesyncd")
    return Check("clock", OK, "synchronized" if state >= 0 else f"not known: {os.strerror(ctypes.get_errno())}")


def _sysctl(root: Path, name: str) -> int:
    """Return a setting, 0 where it is not there."""
    try:
        return int((root / name.replace(".", "/")).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
