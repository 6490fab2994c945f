"""A path in a container's root: what it means there, and what Docker tells of it.

Source: Docker Engine API 1.47, ContainerArchive; Go's os.FileMode.
"""

import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import Any, Final

from logd.runtime.inroot import open_in_root
from logd.units import format_time_short

MAX_LINKS: Final = 255
"""Symbolic links that Go's path/filepath follows in one path."""
GO_KINDS: Final = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
GO_BITS: Final = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


@dataclass(frozen=True)
class Found:
    """What a path means: an O_PATH descriptor, and the name that it has in archives."""

    fd: int
    name: str
    path: str


def locate(root: int, path: str) -> Found:
    """Open a path; a link is followed at its end only if the path ends with a slash or a dot. Raises OSError."""
    whole = posixpath.normpath("/" + path.lstrip("/"))
    last = path.rstrip("/").rpartition("/")[2]
    name = "." if last == "." else posixpath.basename(whole) or "/"
    if last == "." or path.endswith("/") or whole == "/":
        fd = open_in_root(root, whole, os.O_PATH)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return Found(fd, name, whole)
    folder, base = posixpath.split(whole)
    parent = open_in_root(root, folder, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)
    return Found(fd, name, whole)


def describe(root: int, found: Found) -> dict[str, Any]:
    """Return Docker's ContainerPathStat."""
    status = os.fstat(found.fd)
    is_link = stat.S_ISLNK(status.st_mode)
    return {
        "name": found.name,
        "size": status.st_size,
        "mode": go_mode(status.st_mode),
        "mtime": format_time_short(status.st_mtime_ns),
        "linkTarget": follow(root, found.path) if is_link else "",
    }


def go_mode(mode: int) -> int:
    """Return the bits of Go's os.FileMode for those of stat(2)."""
    bits = sum(go for bit, go in GO_BITS.items() if mode & bit)
    return GO_KINDS.get(stat.S_IFMT(mode), 0) | bits | mode & 0o777


def follow(root: int, path: str) -> str:
    """Return the absolute path in the root to which links lead, there or not. Raises OSError (ELOOP)."""
    ahead = [part for part in path.split("/") if part][::-1]
    done: list[str] = []
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            done = done[:-1]
            continue
        target = _link_at(root, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, f"too many links in {path}")
        if target.startswith("/"):
            done = []
        ahead += [piece for piece in target.split("/") if piece not in {"", "."}][::-1]
    return "/" + "/".join(done)


def _link_at(root: int, path: str) -> str | None:
    """Return what the symbolic link at `path` says, None if it is none."""
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)
