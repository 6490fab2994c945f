"""Owner, mode, times and extended attributes of an entry, from its header to the file."""

import contextlib
import errno
import os
import re
import stat
import tarfile
from typing import Final

from logd.images.tarstream import ArchiveRefused

XATTR_PREFIX: Final = "SCHILY.xattr."
"""Of the PAX records that carry extended attributes (star(1), GNU tar, Go)."""
OVERLAY_XATTRS: Final = ("trusted.overlay.", "user.overlay.")
MAX_ID: Final = 0xFFFF_FFFE
"""Of users and groups: 2^32-1 is "no change" to chown(2)."""

_TIME: Final = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9})\d*)?", re.ASCII)


def time_of(member: tarfile.TarInfo) -> int:
    """Return the time of modification in nanoseconds; the PAX record has the fraction."""
    match = _TIME.fullmatch(member.pax_headers.get("mtime", ""))
    if match is None:
        return int(member.mtime) * 1_000_000_000
    ns = int(match[2]) * 1_000_000_000 + int((match[3] or "").ljust(9, "0"))
    return -ns if match[1] else ns


def _id_of(number: int, what: str) -> int:
    if not 0 <= number <= MAX_ID:
        raise ArchiveRefused(f"its {what} {number} is not one of 0 to {MAX_ID}")
    return number


def set_all(fd: int, member: tarfile.TarInfo) -> None:
    """Set owner, mode and attributes, in this order: chown(2) clears setuid bits and file capabilities."""
    os.fchown(fd, _id_of(member.uid, "user"), _id_of(member.gid, "group"))
    os.fchmod(fd, member.mode & 0o7777)
    for name, value in _attributes_of(member):
        set_attribute(fd, name, value)


def set_at(parent: int, base: str, member: tarfile.TarInfo) -> None:
    """Do the same, and the time, for what can't be opened: a symbolic link, a device or a FIFO just made."""
    os.chown(base, _id_of(member.uid, "user"), _id_of(member.gid, "group"), dir_fd=parent, follow_symlinks=False)
    if member.type != tarfile.SYMTYPE:
        os.chmod(base, member.mode & 0o7777, dir_fd=parent)
    _set_by_name(parent, base, member)
    with contextlib.suppress(OverflowError):  # as in set_time
        os.utime(base, ns=_times(time_of(member)), dir_fd=parent, follow_symlinks=False)


def set_linked(parent: int, base: str, member: tarfile.TarInfo) -> None:
    """Set what the header of a hard link says of the file that it shares, as Docker does: the last header counts.

    An owner that is right already is left: chown(2) would clear file capabilities, which tar(1) writes only once.
    """
    there = os.stat(base, dir_fd=parent, follow_symlinks=False)
    owner = _id_of(member.uid, "user"), _id_of(member.gid, "group")
    if owner != (there.st_uid, there.st_gid):
        os.chown(base, *owner, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISLNK(there.st_mode):
        return
    os.chmod(base, member.mode & 0o7777, dir_fd=parent)
    _set_by_name(parent, base, member)
    with contextlib.suppress(OverflowError):  # as in set_time
        os.utime(base, ns=_times(time_of(member)), dir_fd=parent, follow_symlinks=False)


def _set_by_name(parent: int, base: str, member: tarfile.TarInfo) -> None:
    """Set extended attributes of what can't be opened; setxattr(2) has no form with a directory's descriptor."""
    if attributes := _attributes_of(member):
        os.fchdir(parent)
        for name, value in attributes:
            set_attribute(base, name, value, follow=False)


def _attributes_of(member: tarfile.TarInfo) -> list[tuple[str, bytes]]:
    found = []
    for key, value in member.pax_headers.items():
        if not key.startswith(XATTR_PREFIX):
            continue
        name = key.removeprefix(XATTR_PREFIX)
        if name.startswith(OVERLAY_XATTRS):
            raise ArchiveRefused(f"it carries the attribute {name!r}, which is overlayfs's own")
        found.append((name, value.encode("utf-8", "surrogateescape")))
    return found


def set_attribute(target: int | str, name: str, value: bytes, *, follow: bool = True) -> None:
    """Set it where the file system can hold it (Docker does the same: a layer is not refused for it)."""
    unable = (errno.ENOTSUP, errno.EPERM) if name.startswith("user.") else (errno.ENOTSUP,)  # EPERM: not on a link
    try:
        os.setxattr(target, name, value, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in unable:
            raise


def _times(time_ns: int) -> tuple[int, int]:
    return time_ns, time_ns


def set_time(fd: int, time_ns: int) -> None:
    """Set the time of modification, and of access with it."""
    with contextlib.suppress(OverflowError):  # beyond what the kernel can say: the time of unpacking stays
        os.utime(fd, ns=_times(time_ns))
