"""Files as a tar on a descriptor, one after the other, in the order and shape in which Docker writes them.

Nothing is opened before it is known to be a file or directory: a FIFO would block, a device act. Each is opened once,
without following links, and everything about it is asked of that descriptor. Memory is bounded but for the names of
files that have more than one.

Source: POSIX.1-2017 pax, "pax Interchange Format"; star(5) for extended attributes.
"""

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final

from logd.files.ids import Ids
from logd.images.attributes import OVERLAY_XATTRS, XATTR_PREFIX

NO_IDS: Final = Ids()
BLOCK: Final = 512
SMALL: Final = 64 << 10
"""Bytes up to which a file goes through the buffer; a longer one is moved by the kernel."""
SENT_AT_ONCE: Final = 1 << 20
KEPT_XATTRS: Final = ("user.", "trusted.", "security.capability", "system.posix_acl_")
KINDS: Final = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
"""Sockets are left out, as by every tar."""


class TarWriter:
    """Writes to `output`; `own_descriptors` is /proc/self/fd, opened while there was a /proc; `ids` names owners."""

    def __init__(self, output: BinaryIO, own_descriptors: int, ids: Ids = NO_IDS) -> None:
        self._output = output
        self._own = own_descriptors
        self.ids = ids
        self._links: dict[tuple[int, int], str] = {}

    def add_tree(self, fd: int, name: str) -> None:
        """Write what the O_PATH descriptor `fd` is under `name`, and all that is in it."""
        folder = self.add(fd, name)
        if folder is None:
            return
        open_folders = [(folder, name.rstrip("/"), _names(folder))]
        try:
            while open_folders:
                folder, prefix, names = open_folders[-1]
                base = next(names, None)
                if base is None:
                    os.close(open_folders.pop()[0])
                    continue
                path = f"{prefix}/{base}" if prefix or name == "/" else base
                inner = self.add_at(folder, base, path)
                if inner is not None:
                    open_folders.append((inner, path, _names(inner)))
        finally:
            for folder, _, _ in open_folders:
                os.close(folder)

    def add_at(self, folder: int, base: str, name: str) -> int | None:
        """Write one entry of a directory; one that is gone is left out. See `add`."""
        try:
            fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            return self.add(fd, name)
        finally:
            os.close(fd)

    def add(self, fd: int, name: str) -> int | None:
        """Write one entry; if it is a directory, return a descriptor of it that can be read. "" writes nothing."""
        status = os.fstat(fd)
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        member = tarfile.TarInfo(name)
        member.type, member.mode = kind, stat.S_IMODE(status.st_mode)
        member.uid, member.gid = self.ids.inside(status.st_uid, status.st_gid)
        member.mtime = int(status.st_mtime)
        if kind == tarfile.SYMTYPE:
            member.linkname = os.readlink("", dir_fd=fd)
        elif kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
            member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        elif kind == tarfile.REGTYPE:
            self._file(fd, member, status)
            return None
        elif kind == tarfile.DIRTYPE:
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            if name:
                member.pax_headers = _attributes(folder, self.ids)
                self.header(member)
            return folder
        self.header(member)
        return None

    def header(self, member: tarfile.TarInfo) -> None:
        """Write a header."""
        self._output.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def finish(self) -> None:
        """Write what ends an archive."""
        self._output.write(bytes(2 * BLOCK))
        self._output.flush()

    def _file(self, fd: int, member: tarfile.TarInfo, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), member.name)
            if first != member.name:
                member.type, member.linkname = tarfile.LNKTYPE, first
                self.header(member)
                return
        file = os.open(str(fd), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._own)
        try:
            member.size = status.st_size
            member.pax_headers = _attributes(file, self.ids)
            self.header(member)
            self._content(file, status.st_size)
        finally:
            os.close(file)

    def _content(self, file: int, size: int) -> None:
        """Write `size` bytes, what the header says; a file that has become shorter is filled up with zeros."""
        left = size
        if size > SMALL:
            self._output.flush()
            while left and (sent := os.sendfile(self._output.fileno(), file, None, min(left, SENT_AT_ONCE))):
                left -= sent
        else:
            while left and (data := os.read(file, left)):
                self._output.write(data)
                left -= len(data)
        while left:
            left -= self._output.write(bytes(min(left, SMALL)))
        self._output.write(bytes(-size % BLOCK))


def _names(folder: int) -> Iterator[str]:
    return iter(sorted(os.listdir(folder), key=os.fsencode))


def _attributes(fd: int, ids: Ids) -> dict[str, str]:
    """Return the extended attributes that a tar carries, as PAX records."""
    records: dict[str, str] = {}
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return records
    for name in names:
        if name.startswith(OVERLAY_XATTRS) or not name.startswith(KEPT_XATTRS) or "=" in name or not _is_text(name):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile
            value = ids.attribute_inside(name, os.getxattr(fd, name))
            if value is not None:
                records[XATTR_PREFIX + name] = value.decode("utf-8", "surrogateescape")
    return records


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
