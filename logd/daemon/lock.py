"""One daemon for each data-root and each pidfile, and the folders they stand in."""

import fcntl
import os
from pathlib import Path
from typing import Final

from logd.errors import Conflict

FOLDER_MODE: Final = 0o711
"""Others may pass through to what they were given, and see nothing."""


def make_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Create a folder of root with exactly that mode; one that exists is brought to it unless it is stricter."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.mkdir(mode=mode, exist_ok=True)
    present = path.stat().st_mode & 0o7777
    if present & ~mode:
        path.chmod(present & mode)


def lock_data_root(data_root: Path) -> int:
    """Return a descriptor that holds the lock until it is closed. Raises Conflict, naming the holder's pid."""
    descriptor = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise Conflict(f"data-root: {data_root} is in use by another logd (pid {holder})") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def write_pidfile(path: Path) -> None:
    """Write our pid. Raises Conflict when the file names a logd that lives."""
    try:
        pid = int(path.read_text("ascii"))
    except (FileNotFoundError, ValueError):
        pid = 0
    if pid not in {0, os.getpid()} and _is_logd(pid):
        raise Conflict(f"pidfile: process with PID {pid} is still running (named by {path})")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"{os.getpid()}\n", "ascii")
    fresh.replace(path)


def remove_pidfile(path: Path) -> None:
    """Remove the file if it is still ours."""
    try:
        if path.read_text("ascii").strip() == str(os.getpid()):
            path.unlink()
    except FileNotFoundError:
        return


def _is_logd(pid: int) -> bool:
    """Return whether a process is a daemon of ours: pids are used again after a crash or a boot."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"logd.daemon" in command or any(part.endswith(b"/logd/daemon/__main__.py") for part in command)
