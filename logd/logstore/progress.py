"""How far a driver has come with a container's output: the file `cursors/NAME` in the store's folder (see claims.py).

The counts are bytes of the container's output. Each is counted where it happens, none is derived from another, so that
captured = delivered + unconfirmed + buffered + the sum of dropped is a statement that can fail.
"""

import fcntl
import json
import os
from dataclasses import dataclass, field, fields
from typing import Any, Final

from logd.logstore.claims import FOLDER, SLOT_BYTES, newest, pack, read_slot

_MODE: Final = 0o640


@dataclass
class Progress:
    """What is kept of one driver of one container."""

    positions: tuple[int, int] = (0, 0)
    """Of stdout and stderr: everything before has been delivered, or is counted as dropped."""
    begin: tuple[int, int] = (0, 0)
    """Where this driver began."""
    lines: tuple[int, int] = (-1, -1)
    """Where the over-long line begins in the middle of which each position is; -1: it is not in one."""
    delivered: int = 0
    """Bytes for which the destination has taken responsibility."""
    unconfirmed: int = 0
    """Bytes sent by a protocol that can't tell whether they arrived."""
    records: int = 0
    """Lines, and parts of over-long ones, delivered or sent."""
    long_lines: int = 0
    """Lines that came in parts, because they are longer than the limit."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Bytes that will not be delivered, by reason."""
    retries: int = 0
    """How often a batch had to be sent again."""
    budget: int = 0
    """Bytes that may wait for this driver; beyond them the store lets its oldest segments go. 0: no claim on them."""
    is_blocking: bool = False
    """Whether the container waits instead."""
    memo: str = ""
    """What the driver wants to be told when it goes on, in hexadecimal digits."""
    sequence: int = 0


class ProgressFile:
    """A driver's hold on its file, locked: of two forwarders that meet, the second waits."""

    def __init__(self, folder: str, name: str, fresh: Progress) -> None:
        """Open, or make with `fresh` in it. Raises BlockingIOError while another process holds it."""
        os.makedirs(os.path.join(folder, FOLDER), 0o750, exist_ok=True)
        path = os.path.join(folder, FOLDER, name)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = newest(os.pread(self._descriptor, 2 * SLOT_BYTES, 0))
            self.progress = fresh if found is None else progress_of(found)
            if found is None:
                os.pwrite(self._descriptor, bytes(2 * SLOT_BYTES), 0)
                self.save()
        except BaseException:
            os.close(self._descriptor)
            raise

    def save(self) -> None:
        """Write the progress into the older slot."""
        self.progress.sequence += 1
        raw = json.dumps(vars(self.progress), separators=(",", ":")).encode()
        os.pwrite(self._descriptor, pack(raw), self.progress.sequence % 2 * SLOT_BYTES)

    def close(self) -> None:
        """Let go; nothing is saved by that."""
        os.close(self._descriptor)


def read_progress(folder: str) -> dict[str, Progress]:
    """Return how far each driver of the store in `folder` has come, by name. Damaged files are left out."""
    found = {}
    try:
        names = os.listdir(os.path.join(folder, FOLDER))
    except FileNotFoundError:
        return {}
    for name in sorted(names):
        if (slot := read_slot(os.path.join(folder, FOLDER, name))) is not None:
            found[name] = progress_of(slot)
    return found


def remove_progress(folder: str, name: str) -> None:
    """Forget a driver: nothing is kept for it any longer."""
    try:
        os.unlink(os.path.join(folder, FOLDER, name))
    except FileNotFoundError:
        return


def progress_of(values: dict[str, Any]) -> Progress:
    """Return what a slot holds; fields of a newer version are left out, missing ones get their default."""
    known: dict[str, Any] = {one.name: values[one.name] for one in fields(Progress) if one.name in values}
    for name in ("positions", "begin", "lines"):
        if name in known:
            known[name] = tuple(known[name])
    return Progress(**known)
