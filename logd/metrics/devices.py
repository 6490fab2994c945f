"""Block devices by name: `8:0` → `/dev/sda`; and the file system that the containers are on.

Source: kernel documentation, ABI/testing/sysfs-dev; proc_pid_mountinfo(5).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

SYSFS: Final = Path("/sys/dev/block")


class Devices(dict[str, str]):
    """The names of devices by their numbers, looked up at the first use; what the host does not know has no other."""

    def __missing__(self, numbers: str) -> str:
        try:
            name = "/dev/" + os.path.basename(os.readlink(SYSFS / numbers)).replace("!", "/")
        except OSError:
            name = numbers
        self[numbers] = name
        return name


class Room(NamedTuple):
    """The room of a file system."""

    limit_bytes: int
    used_bytes: int
    inodes: int
    free_inodes: int


class FileSystem:
    """The file system that a path is on."""

    def __init__(self, path: Path, devices: Devices) -> None:
        """Look it up; raises OSError."""
        number = path.stat().st_dev
        numbers = f"{os.major(number)}:{os.minor(number)}"
        self._path = path
        self.device: Final = _mount_source(numbers) if os.major(number) == 0 else devices[numbers]

    def room(self) -> Room:
        """Return its room now. Raises OSError."""
        found = os.statvfs(self._path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return Room(found.f_blocks * found.f_frsize, used, found.f_files, found.f_ffree)


def _mount_source(numbers: str) -> str:
    """Return what a file system without a device of its own was mounted from: `tmpfs`, `/dev/sda1` of a btrfs."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        fields: Sequence[str] = right.split()
        if left.split()[2] == numbers and len(fields) > 1:
            return fields[1]
    return numbers
