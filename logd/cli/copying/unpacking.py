"""A tar that a container sent, unpacked into a folder of this machine, and nowhere else.

What it says is data: no entry is reached through a link, whether the archive made it or it was there, a name with `..`
is refused, and nothing is written into what exists: a file takes the place of another. All is the caller's: owners,
set-user-ID bits and extended attributes stay behind, and so do devices, FIFOs and sockets.
"""

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Final

from logd.cli.copying.places import CONTENT, Place
from logd.cli.terminal import visible
from logd.errors import LogdError

BLOCK_BYTES: Final = 256 * 1024
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_MODE: Final = 0o777
FOLDER_MODE: Final = 0o1777
PRIVATE: Final = 0o700
"""Of a folder while it is filled; its own mode may forbid that."""


def unpack(source: Any, place: Place, *, has_name: bool) -> None:
    """Unpack the stream, anything with `read`. `has_name`: the first part of its names is the source's own.

    Raises LogdError for an archive that is at fault, and, at the end, for what was left out.
    """
    try:
        with tarfile.open(
            fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape", bufsize=BLOCK_BYTES
        ) as archive:
            unpacking = Unpacking(place, has_name=has_name)
            try:
                for member in archive:
                    unpacking.add(member, archive)
                    archive.members = []  # type: ignore[attr-defined]  # not in typeshed; else all stay in memory
                unpacking.finish()
            finally:
                unpacking.close()
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the last: a time that no clock has
        raise LogdError(f"the archive from the container is damaged: {visible(str(error))}") from error


class Unpacking:
    """Puts entries below one folder."""

    def __init__(self, place: Place, *, has_name: bool) -> None:
        self._place = place
        self._own_name = [] if place.name == CONTENT else [place.name]
        self._dropped = 1 if has_name else 0
        self._root = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._folders: dict[tuple[str, ...], tuple[int, float]] = {}
        self._left_out: list[str] = []

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Create one entry, or put it in the place of what is there."""
        parts = self._parts(member.name)
        if not parts:
            if not member.isdir():
                raise LogdError(f"the archive from the container is damaged: {_shown(member.name)} is no folder")
            return  # the destination itself, which stays as it is
        shown = _shown(os.path.join(self._place.folder, *parts))
        try:
            with self._parent(parts) as parent:
                self._add(member, archive, parent, parts, shown)
        except OSError as error:
            reason = "not a folder, or a link" if error.errno in {errno.ENOTDIR, errno.ELOOP} else error.strerror
            raise LogdError(f"{shown}: {reason}") from error

    def finish(self) -> None:
        """Give the folders their modes and times, the inner ones first. Raises LogdError for what was left out."""
        for parts, (mode, mtime) in sorted(self._folders.items(), reverse=True):
            with contextlib.suppress(FileNotFoundError), self._parent(parts) as parent:
                folder = os.open(parts[-1], FOLDER, dir_fd=parent)
                try:
                    os.fchmod(folder, mode & FOLDER_MODE)
                    os.utime(folder, (mtime, mtime))
                finally:
                    os.close(folder)
        if self._left_out:
            more = f" and {len(self._left_out) - 1} more" if len(self._left_out) > 1 else ""
            raise LogdError(f"left out, as devices, FIFOs and the like are not copied: {self._left_out[0]}{more}")

    def close(self) -> None:
        """Close the folder."""
        os.close(self._root)

    def _add(
        self, member: tarfile.TarInfo, archive: tarfile.TarFile, parent: int, parts: tuple[str, ...], shown: str
    ) -> None:
        base = parts[-1]
        there = _status(parent, base)
        was_folder = there is not None and stat.S_ISDIR(there.st_mode)
        if member.isdir():
            if there is not None and not was_folder:
                raise LogdError(f"cannot overwrite non-directory {shown} with a directory")
            if there is None:
                os.mkdir(base, PRIVATE, dir_fd=parent)
            self._folders[parts] = (member.mode, member.mtime)
            return
        if was_folder:
            raise LogdError(f"cannot overwrite directory {shown} with a non-directory")
        if not (member.isreg() or member.issym() or member.islnk()):
            self._left_out.append(shown)
            return
        if member.islnk():
            self._link(member, parent, base, there)
            return
        if there is not None:
            os.unlink(base, dir_fd=parent)
        if member.issym():
            os.symlink(member.linkname, base, dir_fd=parent)
            os.utime(base, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
        else:
            content = archive.extractfile(member)
            assert content is not None
            _write(content, member, parent, base)

    def _link(self, member: tarfile.TarInfo, parent: int, base: str, there: os.stat_result | None) -> None:
        """Make a hard link to what the archive has brought before."""
        target = self._parts(member.linkname)
        if not target:
            raise LogdError(f"the archive from the container is damaged: {_shown(member.name)} links to nothing")
        with self._parent(target) as folder:
            first = _status(folder, target[-1])
            if first is not None and there is not None and os.path.samestat(first, there):
                return
            if there is not None:
                os.unlink(base, dir_fd=parent)
            os.link(target[-1], base, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)

    def _parts(self, name: str) -> tuple[str, ...]:
        """Return the names from the folder to an entry. Raises LogdError for one that leads elsewhere."""
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if ".." in parts or "\0" in name:
            raise LogdError(f"the archive from the container names a place outside: {_shown(name)}")
        return (*self._own_name, *parts[self._dropped :])

    @contextlib.contextmanager
    def _parent(self, parts: tuple[str, ...]) -> Iterator[int]:
        """Give a descriptor of the folder that an entry is in, which is made if need be; no link is followed."""
        folder = os.dup(self._root)
        try:
            for part in parts[:-1]:
                try:
                    inner = os.open(part, FOLDER, dir_fd=folder)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=folder)
                    inner = os.open(part, FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)


def _write(content: IO[bytes], member: tarfile.TarInfo, parent: int, base: str) -> None:
    with open(os.open(base, FILE, 0o600, dir_fd=parent), "wb", buffering=0) as file:
        shutil.copyfileobj(content, file, BLOCK_BYTES)
        os.fchmod(file.fileno(), member.mode & FILE_MODE)
        os.utime(file.fileno(), (member.mtime, member.mtime))


def _status(folder: int, base: str) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _shown(path: str) -> str:
    return visible(path)
