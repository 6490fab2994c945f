"""What the kernel says is mounted where, and how mounts propagate.

Source: proc_pid_mountinfo(5), "Shared subtrees" (kernel documentation); the words of the refusals are dockerd's.
"""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from logd.errors import LogdError

MOUNTINFO: Final = Path("/proc/self/mountinfo")
SHARED: Final = frozenset({"shared", "rshared"})
SLAVE: Final = frozenset({"slave", "rslave"})


class MountEntry(NamedTuple):
    """A mount: where, and whether what is mounted below it travels to other mounts (shared) or comes from them."""

    point: str
    shared: bool
    slave: bool


def read_mounts(file: Path = MOUNTINFO) -> list[MountEntry]:
    """Return all mounts, in the order in which they were made."""
    entries = []
    for line in os.fsdecode(file.read_bytes()).splitlines():
        fields = line.split(" ")
        optional = fields[6 : fields.index("-", 6)]
        entries.append(
            MountEntry(
                _unescape(fields[4]),
                any(field.startswith("shared:") for field in optional),
                any(field.startswith("master:") for field in optional),
            )
        )
    return entries


def _unescape(text: str) -> str:
    """Blank, tab, newline and backslash are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def mounts_below(folder: Path) -> list[str]:
    """Return the points of all mounts on a folder and below it, as often as something is mounted there."""
    own, below = str(folder), f"{folder}/"
    return [entry.point for entry in read_mounts() if entry.point == own or entry.point.startswith(below)]


def check_propagation(source: str, propagation: str, mounts: list[MountEntry] | None = None) -> None:
    """Raise LogdError if the mount on which `source` lies can't do what the propagation needs."""
    if propagation not in SHARED | SLAVE:
        return
    found = _mount_of(os.path.realpath(source), read_mounts() if mounts is None else mounts)
    if propagation in SHARED and not found.shared:
        raise LogdError(f"path {source} is mounted on {found.point} but it is not a shared mount")
    if propagation in SLAVE and not (found.shared or found.slave):
        raise LogdError(f"path {source} is mounted on {found.point} but it is not a shared or slave mount")


def _mount_of(path: str, mounts: list[MountEntry]) -> MountEntry:
    """Return the mount on which a path without links lies: the last one at the nearest point."""
    at = {entry.point: entry for entry in mounts}
    while path not in at:
        if path == "/":
            raise LogdError(f"{MOUNTINFO} does not tell where / is mounted")
        path = os.path.dirname(path)
    return at[path]


def root_propagation(propagations: set[str]) -> str:
    """Return what a container's root must be for mounts with these propagations to work in it."""
    return "shared" if propagations & SHARED else "rslave" if propagations & SLAVE else "rprivate"
