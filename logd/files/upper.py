"""What a container has changed: its writable layer beside the image's root, as a list and as a layer's tar.

A directory counts as changed if its mode or owner is not the image's, or something in it changed; a file, if its size
or time is different too: so does dockerd. What the engine itself puts into each root (mount points, /.dockerenv) is no
change of the container's.

Source: the kernel's Documentation/filesystems/overlayfs.rst; OCI image-spec layer.md for the tar.
"""

import os
import stat
import tarfile
from dataclasses import dataclass
from typing import Any, Final

from logd.errors import InvalidParameter
from logd.files.tarwriter import TarWriter
from logd.images.kernel import openat2
from logd.images.layertree import OPAQUE, WHITEOUT
from logd.images.lowerlayers import PLAINLY, is_opaque, is_whiteout

MODIFIED: Final = 0
ADDED: Final = 1
DELETED: Final = 2
"""The API's numbers."""
CAPABILITIES: Final = "security.capability"
FOLDERS_OF_THE_ENGINE: Final = frozenset(
    ("dev", "dev/mqueue", "dev/pts", "dev/shm", "etc", "proc", "sbin", "sys", "sys/fs", "sys/fs/cgroup")
)
FILES_OF_THE_ENGINE: Final = frozenset(
    (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf", "sbin/docker-init")
)
LINKS_OF_THE_ENGINE: Final = {"etc/mtab": "/proc/mounts"}


@dataclass(frozen=True)
class Change:
    """A path relative to the root and what became of it; `hidden` is gone with a directory that was made anew."""

    path: str
    kind: int
    opaque: bool = False
    hidden: bool = False


def changes(upper: int, image: int) -> list[Change]:
    """Return the changes in the open directory `upper` over the root `image`, sorted, a folder before its content."""
    found: list[Change] = []
    _compare(upper, image, "", found)
    return sorted(found, key=lambda change: os.fsencode(change.path).split(b"/"))


def as_docker_shows(found: list[Change]) -> list[dict[str, Any]]:
    """Return the answer of /containers/{id}/changes."""
    return [{"Path": f"/{change.path}", "Kind": change.kind} for change in found]


def check_names(found: list[Change]) -> None:
    """Raise InvalidParameter for a name that a layer can't have: there it would mean that another file is gone."""
    for change in found:
        if change.kind != DELETED and change.path.rpartition("/")[2].startswith(WHITEOUT):
            raise InvalidParameter(f"/{change.path}: a name that begins with {WHITEOUT} can't be in an image's layer")


def write_layer(upper: int, found: list[Change], writer: TarWriter) -> None:
    """Write the changes as the tar of a layer."""
    for change in found:
        folder, _, base = change.path.rpartition("/")
        if change.kind == DELETED:
            if not change.hidden:
                writer.header(_mark(folder, WHITEOUT + base))
            continue
        fd = openat2(upper, change.path, os.O_PATH | os.O_NOFOLLOW, PLAINLY)
        try:
            inner = writer.add(fd, change.path)
        finally:
            os.close(fd)
        if inner is not None:
            os.close(inner)
        if change.opaque:
            writer.header(_mark(change.path, OPAQUE))


def _mark(folder: str, name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(f"{folder}/{name}" if folder else name)


def _compare(upper: int, image: int | None, prefix: str, found: list[Change]) -> bool:
    """Add what is different in a folder; tell whether there was anything."""
    before = len(found)
    for name in os.listdir(upper):
        now, then = _status(upper, name), None if image is None else _status(image, name)
        if now is None:
            continue
        path = prefix + name
        if is_whiteout(now):
            if then is not None:
                found.append(Change(path, DELETED))
        elif stat.S_ISDIR(now.st_mode):
            _compare_folder(upper, image, name, path, now, then, found)
        elif then is None:
            if not _is_of_the_engine(upper, name, path, now):
                found.append(Change(path, ADDED))
        elif _differs(now, then) or _capabilities(upper, name, now) != _capabilities(image, name, then):
            found.append(Change(path, MODIFIED))
    return len(found) > before


def _compare_folder(
    upper: int,
    image: int | None,
    name: str,
    path: str,
    now: os.stat_result,
    then: os.stat_result | None,
    found: list[Change],
) -> None:
    was_folder = then is not None and stat.S_ISDIR(then.st_mode)
    inner = _open(upper, name)
    beneath = _open(image, name) if image is not None and was_folder else None
    try:
        opaque = was_folder and is_opaque(inner)
        inside = _compare(inner, beneath, f"{path}/", found)
        if opaque and beneath is not None:
            gone = set(os.listdir(beneath)) - set(os.listdir(inner))
            found += [Change(f"{path}/{base}", DELETED, hidden=True) for base in gone]
            inside = inside or bool(gone)
    finally:
        os.close(inner)
        if beneath is not None:
            os.close(beneath)
    if then is None:
        if inside or path not in FOLDERS_OF_THE_ENGINE:
            found.append(Change(path, ADDED))
    elif inside or opaque or _differs(now, then):
        found.append(Change(path, MODIFIED, opaque=opaque))


def _differs(now: os.stat_result, then: os.stat_result) -> bool:
    if (now.st_mode, now.st_uid, now.st_gid, now.st_rdev) != (then.st_mode, then.st_uid, then.st_gid, then.st_rdev):
        return True
    if stat.S_ISDIR(now.st_mode):
        return False
    return (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns)


def _is_of_the_engine(folder: int, name: str, path: str, status: os.stat_result) -> bool:
    if stat.S_ISREG(status.st_mode):
        return path in FILES_OF_THE_ENGINE and status.st_size == 0
    if stat.S_ISLNK(status.st_mode):
        return path in LINKS_OF_THE_ENGINE and os.readlink(name, dir_fd=folder) == LINKS_OF_THE_ENGINE[path]
    return False


def _capabilities(folder: int | None, name: str, status: os.stat_result) -> bytes:
    if folder is None or not stat.S_ISREG(status.st_mode):
        return b""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.getxattr(fd, CAPABILITIES)
    except OSError:
        return b""  # it has none
    finally:
        os.close(fd)


def _open(folder: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
