"""A file or folder of this machine as the bytes of a tar, made while it is sent.

Each thing is opened by its folder's descriptor, and a link is never followed. Source: POSIX.1-2017 pax.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from typing import Final, NamedTuple

from logd.cli.copying.places import CONTENT
from logd.cli.terminal import visible
from logd.errors import LogdError
from logd.ignored import Ignored

BLOCK_BYTES: Final = 256 * 1024
FILE_CAPABILITIES: Final = "security.capability"
KINDS: Final = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
"""Sockets are left out, as by every tar."""
PADDED: Final = tarfile.BLOCKSIZE
END: Final = bytes(2 * PADDED)
"""Of a tar."""


class Choice(NamedTuple):
    """What of a tree goes in, and whose it is there (user, group) if not whose it is here."""

    ignored: Ignored | None = None
    without: frozenset[str] = frozenset()
    owner: tuple[int, int] | None = None

    def takes(self, name: str) -> bool:
        """Say whether the thing itself goes in."""
        return name not in self.without and (self.ignored is None or name not in self.ignored)

    def looks_into(self, name: str) -> bool:
        """Say whether something in a folder may go in that does not go in itself."""
        return self.ignored is not None and self.ignored.keeps_in(name)


EVERYTHING: Final = Choice()


def pack(path: str, name: str, *, follow: bool) -> Iterator[bytes]:
    """Yield the tar of what is at `path`, as `name`; `follow`: a link there too. Raises LogdError."""
    try:
        yield from _Packing(EVERYTHING).thing(_open(None, path, follow=follow), name)
    except OSError as error:
        raise LogdError(f"{visible(path)}: {error.strerror or error}") from error
    yield END


def content_of(folder: str, choice: Choice) -> Iterator[bytes]:
    """Yield the entries of what is in a folder, by their names from there on; no END. Raises LogdError."""
    try:
        descriptor = _open(None, folder, follow=True)
        try:
            yield from _Packing(choice).inside(descriptor, CONTENT)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LogdError(f"{visible(folder)}: {error.strerror or error}") from error


class _Packing:
    """One tar; what has several names is in it once."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._links: dict[tuple[int, int], str] = {}

    def thing(self, descriptor: int, name: str) -> Iterator[bytes]:
        """Yield the entries of a thing and of what is in it. The O_PATH descriptor is closed."""
        try:
            status = os.fstat(descriptor)
            if not self._choice.takes(name):
                if stat.S_ISDIR(status.st_mode) and self._choice.looks_into(name):
                    yield from self.inside(descriptor, name)
                return
            member = _member(descriptor, name, status)
            if member is None:
                return
            if self._choice.owner is not None:
                member.uid, member.gid = self._choice.owner
            if member.isreg() and status.st_nlink > 1:
                first = self._links.setdefault((status.st_dev, status.st_ino), name)
                if first != name:
                    member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
            yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            if member.isreg():
                yield from _content(descriptor, name, member.size)
            elif member.isdir():
                yield from self.inside(descriptor, name)
        except OSError as error:
            raise LogdError(f"{visible(name)}: {error.strerror or error}") from error
        finally:
            os.close(descriptor)

    def inside(self, descriptor: int, name: str) -> Iterator[bytes]:
        """Yield the entries of what is in a folder."""
        folder = _reopened(descriptor, os.O_DIRECTORY)
        try:
            for base in sorted(os.listdir(folder)):
                try:
                    inner = _open(folder, base, follow=False)
                except FileNotFoundError:
                    continue  # it has just gone
                yield from self.thing(inner, base if name == CONTENT else f"{name}/{base}")
        finally:
            os.close(folder)


def _content(descriptor: int, name: str, size: int) -> Iterator[bytes]:
    with open(_reopened(descriptor), "rb", buffering=0) as file:
        left = size
        while left:
            block = file.read(min(BLOCK_BYTES, left))
            if not block:
                raise LogdError(f"{visible(name)}: the file became shorter while it was copied")
            left -= len(block)
            yield block
    yield padded(size)


def padded(size: int) -> bytes:
    """Return what follows so many bytes of a file."""
    return bytes(-size % PADDED)


def _member(descriptor: int, name: str, status: os.stat_result) -> tarfile.TarInfo | None:
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, stat.S_IMODE(status.st_mode), int(status.st_mtime)
    member.uid, member.gid = status.st_uid, status.st_gid
    if kind == tarfile.SYMTYPE:
        member.linkname = os.readlink("", dir_fd=descriptor)
    elif kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif kind == tarfile.REGTYPE:
        member.size = status.st_size
        if capabilities := _capabilities(descriptor):
            text = capabilities.decode("utf-8", "surrogateescape")
            member.pax_headers = {f"SCHILY.xattr.{FILE_CAPABILITIES}": text}
    return member


def _capabilities(descriptor: int) -> bytes:
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", FILE_CAPABILITIES)
    except OSError:
        return b""  # it has none, or the file system can't have them


def _open(folder: int | None, path: str, *, follow: bool) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), dir_fd=folder)


def _reopened(descriptor: int, flags: int = 0) -> int:
    """Return a descriptor to read what an O_PATH one has been opened for: the very same thing."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | flags)
