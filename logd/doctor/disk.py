"""What the data root lies on: a file system that can carry containers, and that stays.

Sources: the kernel's filesystems/overlayfs.rst (what an upper directory needs), proc(5) (mountinfo).
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from logd.doctor.check import FAIL, OK, WARN, Check

NAME: Final = "file system"
MOUNTINFO: Final = Path("/proc/self/mountinfo")
UNFIT: Final = frozenset(
    (
        "9p",
        "ceph",
        "cifs",
        "ecryptfs",
        "exfat",
        "fat",
        "msdos",
        "nfs",
        "nfs4",
        "ntfs",
        "ntfs3",
        "overlay",
        "smb3",
        "vfat",
    )
)
"""Without the attributes or the links that an overlay's upper directory needs, or on another machine."""
PASSING: Final = frozenset(("tmpfs", "ramfs"))


class Mount(NamedTuple):
    """A line of mountinfo."""

    point: str
    kind: str
    options: frozenset[str]


def file_system(data_root: Path, mountinfo: Path = MOUNTINFO) -> Check:
    """Check the file system that the data root is on."""
    mount = _mount_of(data_root, mountinfo.read_text(encoding="utf-8", errors="surrogateescape"))
    if mount is None:
        return Check(NAME, OK, f"{data_root} is on something that mountinfo does not name")
    found = f"{mount.kind} at {mount.point}"
    if "ro" in mount.options:
        return Check(
            NAME, FAIL, f"{found} is read-only", f"mount -o remount,rw {mount.point}; the kernel's log says why"
        )
    if mount.kind in UNFIT or mount.kind.startswith("fuse"):
        advice = "set data-root to a folder on ext4, xfs or btrfs"
        return Check(NAME, FAIL, f"{found} can't carry the roots of containers (overlayfs)", advice)
    if mount.kind in PASSING:
        advice = "set data-root to a folder on a disk, unless that is what you want"
        return Check(NAME, WARN, f"{found}: images, containers and their output are gone after a restart", advice)
    hindering = sorted(mount.options & {"noexec", "nodev", "nosuid"})
    if hindering:
        advice = f"mount -o remount,exec,dev,suid {mount.point}"
        return Check(NAME, WARN, f"{found} is mounted {', '.join(hindering)}: some programs in containers fail", advice)
    return Check(NAME, OK, found)


def _mount_of(path: Path, mountinfo: str) -> Mount | None:
    """Return the mount that a path is on: the last one of those with the longest mount point around it."""
    whole = os.path.realpath(path)
    best: Mount | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 6 or not right:
            continue
        point = fields[4].encode("latin-1", "replace").decode("unicode_escape")
        is_around = point in {"/", whole} or whole.startswith(f"{point}/")
        if is_around and (best is None or len(point) >= len(best.point)):
            kind, _, rest = right.partition(" ")
            best = Mount(
                point, kind, frozenset(fields[5].split(",")) | ({"ro"} & set(rest.rpartition(" ")[2].split(",")))
            )
    return best
