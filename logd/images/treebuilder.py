"""A tree on disk, built of a tar's entries below one directory descriptor and never outside of it.

What a tar says about names is not believed: a name with `..`, a hard link that leads outside refuses the whole archive.
The entry itself is created with O_EXCL or its like, never opened if it exists. How a parent directory is found, and
what is made of one that is missing, is up to the kind of tree.

Source: tar(5).
"""

import contextlib
import errno
import os
import stat
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, cast

from logd.images import attributes
from logd.images.attributes import time_of
from logd.images.kernel import RESOLVE_NO_SYMLINKS, openat2
from logd.images.limits import Limits
from logd.images.tarstream import CHUNK, ArchiveRefused, Source

O_DIRECTORY_PATH: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_TYPES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
NODE_TYPES: Final = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}
REFUSING: Final = (
    *(errno.EXDEV, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT),
    *(errno.EEXIST, errno.EMLINK, errno.EPERM, errno.EFBIG, errno.ENOTSUP, errno.ERANGE, errno.E2BIG, errno.ENOTEMPTY),
)
"""What the kernel says when the entry is at fault, not the disk."""


def clean_name(name: str, what: str) -> str:
    """Return a relative name without empty and `.` parts, "" for the root. Raises ArchiveRefused."""
    if name.startswith("/"):
        raise ArchiveRefused(f"{what} {name!r} is an absolute name")
    if "\0" in name:
        raise ArchiveRefused(f"{what} {name!r} has a NUL in it")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ArchiveRefused(f"{what} {name!r} has '..' in it")
    return "/".join(parts)


class TreeBuilder(ABC):
    """Builds the tree below `root`; `inside` is how openat2(2) has to look up a directory in it, `kind` its name."""

    inside: int
    kind: str

    def __init__(self, root: int, limits: Limits) -> None:
        self._root = root
        self._limits = limits
        self._directories: dict[str, int] = {}  # name → mtime, set last because every new entry changes it
        self._parent = ("", root)
        self.size = 0
        """Bytes of the files and link targets, which is what Docker counts."""

    def add(self, member: tarfile.TarInfo, source: Source) -> None:
        """Create one entry; `source` stands at its content. Raises ArchiveRefused; OSError if the disk fails."""
        name = self._name_of(member)
        try:
            self._add(name, member, source)
        except ArchiveRefused as error:
            raise ArchiveRefused(f"entry {member.name!r}: {error}") from error
        except (OSError, OverflowError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in REFUSING:
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise ArchiveRefused(f"entry {member.name!r}: {reason}") from error

    def finish(self) -> None:
        """Set the directories' times, which the entries in them have changed."""
        self._forget_parent()
        for name, time_ns in self._directories.items():
            with contextlib.suppress(OSError):  # a later entry took its place
                fd = openat2(self._root, name or ".", O_DIRECTORY_PATH, self.inside)
                try:
                    attributes.set_time(fd, time_ns)
                finally:
                    os.close(fd)

    def _name_of(self, member: tarfile.TarInfo) -> str:
        return clean_name(member.name, "entry")

    def _add(self, name: str, member: tarfile.TarInfo, source: Source) -> None:
        if not name:
            self._root_entry(member)
            return
        folder, _, base = name.rpartition("/")
        parent = self._open_parent(folder)
        if member.type == tarfile.DIRTYPE:
            self._directory(parent, base, name, member)
            return
        try:
            self._leaf(parent, base, member, source)
        except FileExistsError:  # seldom, and so not asked for before
            self._replace(parent, base, name)
            self._leaf(parent, base, member, source)

    def _root_entry(self, member: tarfile.TarInfo) -> None:
        if member.type != tarfile.DIRTYPE:
            raise ArchiveRefused(f"the root of a {self.kind} can only be a directory")
        self._directories[""] = time_of(member)
        attributes.set_all(self._root, member)

    def _leaf(self, parent: int, base: str, member: tarfile.TarInfo, source: Source) -> None:
        if member.type in FILE_TYPES:
            self._file(parent, base, member, source)
        elif member.type == tarfile.SYMTYPE:
            self._symlink(parent, base, member)
        elif member.type == tarfile.LNKTYPE:
            self._hard_link(parent, base, member)
        elif member.type in NODE_TYPES:
            mode = NODE_TYPES[member.type] | 0o600
            os.mknod(base, mode, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            attributes.set_at(parent, base, member)
        else:
            raise ArchiveRefused(f"its type {member.type!r} is not known")

    def _file(self, parent: int, base: str, member: tarfile.TarInfo, source: Source) -> None:
        fd = os.open(base, NEW_FILE, 0o600, dir_fd=parent)
        try:
            self._count(member.size)
            source.seek(member.offset_data)
            if member.sparse is None:
                _copy(source, fd, member.size)
            else:
                _copy_sparse(source, fd, member.size, cast("list[tuple[int, int]]", member.sparse))
            attributes.set_all(fd, member)
            attributes.set_time(fd, time_of(member))
        finally:
            os.close(fd)

    def _symlink(self, parent: int, base: str, member: tarfile.TarInfo) -> None:
        target = member.linkname
        os.symlink(target, base, dir_fd=parent)
        self._count(len(os.fsencode(target)))
        attributes.set_at(parent, base, member)

    def _hard_link(self, parent: int, base: str, member: tarfile.TarInfo) -> None:
        target = self._target_of(member)
        folder, _, last = target.rpartition("/")
        holder = openat2(self._root, folder or ".", O_DIRECTORY_PATH, self.inside | RESOLVE_NO_SYMLINKS)
        try:
            if not last or stat.S_ISDIR(os.stat(last, dir_fd=holder, follow_symlinks=False).st_mode):
                raise ArchiveRefused(f"it is a hard link to the directory {target!r}")
            os.link(last, base, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(holder)
        attributes.set_linked(parent, base, member)

    def _target_of(self, member: tarfile.TarInfo) -> str:
        return clean_name(member.linkname, "hard link to")

    def _directory(self, parent: int, base: str, name: str, member: tarfile.TarInfo) -> None:
        before = status(parent, base)
        if before is None or not stat.S_ISDIR(before.st_mode):
            self._replace(parent, base, name)
            os.mkdir(base, 0o700, dir_fd=parent)
        fd = os.open(base, O_DIRECTORY_PATH | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._directory_made(fd, before)
            attributes.set_all(fd, member)
            self._directories[name] = time_of(member)
        finally:
            os.close(fd)

    def _directory_made(self, fd: int, before: os.stat_result | None) -> None:  # noqa: B027 - mostly nothing
        """Do what else has to be done with a directory that took the place of `before`."""

    def _replace(self, parent: int, base: str, name: str) -> None:
        """Remove what is there."""
        before = status(parent, base)
        if before is None:
            return
        if stat.S_ISDIR(before.st_mode):
            self._remove_tree(parent, base)
        else:
            os.unlink(base, dir_fd=parent)
        if self._parent[0] == name or self._parent[0].startswith(f"{name}/"):
            self._forget_parent()

    @abstractmethod
    def _remove_tree(self, parent: int, base: str) -> None:
        """Remove the directory `base`, which something else replaces, with all that is in it."""

    def _open_parent(self, folder: str) -> int:
        """Return a descriptor of the directory `folder`, made if need be, good until the next call."""
        if self._parent[0] != folder:
            self._forget_parent()
            if folder:
                self._parent = (folder, self._open_or_make(folder))
        return self._parent[1]

    def _forget_parent(self) -> None:
        if self._parent[1] != self._root:
            os.close(self._parent[1])
        self._parent = ("", self._root)

    def _open_or_make(self, folder: str) -> int:
        try:
            return self._open_folder(folder)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                raise
        parts = folder.split("/")
        fd = os.dup(self._root)
        for depth, base in enumerate(parts, 1):
            above, prefix = fd, "/".join(parts[:depth])
            try:
                fd = self._open_or_make_one(above, base, prefix)
            finally:
                os.close(above)
        return fd

    def _open_folder(self, folder: str) -> int:
        try:
            return openat2(self._root, folder, os.O_RDONLY | os.O_DIRECTORY, self.inside)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise ArchiveRefused(f"it lies behind a symbolic link that leads outside of the {self.kind}") from error
            raise

    def _open_or_make_one(self, above: int, base: str, prefix: str) -> int:
        """Open the directory `prefix`, which is `base` in the open directory above it, made if need be."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._open_folder(prefix)
        if status(above, base) is not None:
            raise ArchiveRefused(f"{prefix!r} is not a directory")
        return self._make_directory(above, base)

    def _make_directory(self, above: int, base: str) -> int:
        os.mkdir(base, 0o755, dir_fd=above)
        fd = os.open(base, O_DIRECTORY_PATH | os.O_CLOEXEC, dir_fd=above)
        os.fchmod(fd, 0o755)
        return fd

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self._limits.max_bytes:
            raise ArchiveRefused(f"the files are larger than {self._limits.max_bytes} bytes together")


def status(parent: int, base: str) -> os.stat_result | None:
    """Return what `base` in the directory `parent` is, None if there is nothing."""
    try:
        return os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _copy(source: Source, fd: int, size: int) -> None:
    while size:
        part = source.take(min(size, CHUNK))
        size -= len(part)
        while part:
            part = part[os.write(fd, part) :]


def _copy_sparse(source: Source, fd: int, size: int, extents: Sequence[tuple[int, int]]) -> None:
    """Write the data where the map says, in rising order, and leave holes between."""
    end = 0
    for offset, length in extents:
        if length == 0:
            continue  # GNU tar pads its table with these, and ends it with one at the file's end
        if length < 0 or offset < end or offset + length > size:
            raise ArchiveRefused("its map of holes is damaged")
        end = offset + length
        os.lseek(fd, offset, os.SEEK_SET)
        _copy(source, fd, length)
    os.ftruncate(fd, size)
