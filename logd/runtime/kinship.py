"""What a process is to its relatives: whose orphans it adopts, whose death is its own (prctl(2), signal(2)).

By ctypes, since the standard library has no prctl; `signal.signal` would do for the other, but costs a shim 100 kB.
"""

import ctypes
import os
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
SIGKILL: Final = 9
SIGCHLD: Final = 17
SIG_DFL: Final = 0
SIG_IGN: Final = 1

NO_SUBREAPER: Final = OSError("prctl(PR_SET_CHILD_SUBREAPER) failed: it takes Linux 3.4")

_libc = ctypes.CDLL(None)
_prctl = _libc.prctl
_signal = _libc.signal


def become_subreaper() -> None:
    """Make this process the parent of its descendants' orphans; a fork does not inherit that."""
    if _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise NO_SUBREAPER


def be_no_subreaper() -> None:
    """Undo `become_subreaper`."""
    _prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def die_with_parent(parent: int, number: int = SIGKILL) -> None:
    """Have this process sent SIGKILL, or another signal, as soon as its parent (pid `parent`) has ended."""
    _prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it was quicker
        os._exit(1)


def disown_children() -> None:
    """Let the kernel reap this process's children; what they end with is nobody's concern."""
    _signal(SIGCHLD, SIG_IGN)


def become_shim(name: bytes) -> None:
    """Set this process's name, undo `disown_children`, which a fork inherits, and be a subreaper. Raises OSError."""
    _prctl(PR_SET_NAME, name, 0, 0, 0)
    _signal(SIGCHLD, SIG_DFL)
    if _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise NO_SUBREAPER


def set_name(name: bytes) -> None:
    """Set what ps(1) shows as this process's command (proc(5), /proc/PID/comm); at most 15 bytes."""
    _prctl(PR_SET_NAME, name, 0, 0, 0)


def close_all_but(wanted: set[int]) -> None:
    """Close every descriptor but these."""
    low = 0
    for descriptor in sorted(wanted):
        if low < descriptor:  # an empty range that begins at 0 closes everything
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 20)
