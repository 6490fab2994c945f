"""The sources of a COPY: which files of a tree they mean, what is in them, and a tar of them under their new names.

This process's root is the tree (logd.files.view), so that links lead nowhere else. A source that is a link is what it
leads to; links inside of a folder stay links. Source: the Dockerfile reference, COPY and ADD.
"""

import hashlib
import json
import os
import posixpath
import stat
import tarfile
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple

from logd import globs
from logd.errors import InvalidParameter, NotFound
from logd.files.request import Selection
from logd.files.tarwriter import TarWriter
from logd.ignored import Ignored
from logd.images.limits import Limits
from logd.images.tarstream import ArchiveRefused, Source, members

CHUNK: Final = 1 << 20
LEFT_OUT: Final = "file not found in build context or excluded by .dockerignore"
SPECIAL: Final = frozenset("*?[\\")
PROBE: Final = Limits(max_bytes=1 << 62)


class _Item(NamedTuple):
    """One file or folder: where it is in the tree, and its name in the container. A source itself is followed."""

    path: str
    name: str
    follow: bool = False


class Gathering:
    """What a selection means in this process's root."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._ignored = Ignored(selection.ignored)

    def matches(self) -> list[dict[str, Any]]:
        """Return the sources as they are: {"path": …, "folder": bool, "archive": bool}. Raises NotFound."""
        found: list[str] = []
        for source in self._selection.sources:
            wanted = posixpath.normpath("/" + source).strip("/")
            if SPECIAL & set(wanted):
                found += self._fitting(wanted)
            elif not _exists(wanted) or (wanted and wanted in self._ignored and not self._has_kept(wanted)):
                raise NotFound(f"{LEFT_OUT}: stat {source}: file does not exist")
            else:
                found.append(wanted)
        if not found:
            raise NotFound("no source files were specified")
        return [
            {"path": path, "folder": folder, "archive": not folder and self._selection.unpacks and _is_archive(path)}
            for path in dict.fromkeys(found)
            for folder in [os.path.isdir("/" + path)]
        ]

    def digest(self) -> str:
        """Return a digest of names, kinds, modes and contents; times don't count, owners where they are kept."""
        total = hashlib.sha256()
        for item in self._items(with_archives=True):
            status = os.stat("/" + item.path, follow_symlinks=item.follow)
            about: list[Any] = [item.name, stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)]
            if self._selection.keeps_owners:
                about += [status.st_uid, status.st_gid]
            if stat.S_ISLNK(status.st_mode):
                about.append(os.readlink("/" + item.path))
            elif stat.S_ISREG(status.st_mode):
                with open("/" + item.path, "rb", buffering=0) as file:
                    about.append(hashlib.file_digest(file, "sha256").hexdigest())
            total.update(json.dumps(about).encode() + b"\n")
        return f"sha256:{total.hexdigest()}"

    def write(self, writer: TarWriter) -> None:
        """Write all of it below the destination, archives that are to be unpacked left out."""
        if self._selection.is_folder and not self._selection.is_there:
            folder = tarfile.TarInfo(self._target)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
            writer.header(folder)
        for item in self._items():
            fd = os.open("/" + item.path, os.O_PATH | os.O_CLOEXEC | (0 if item.follow else os.O_NOFOLLOW))
            try:
                opened = writer.add(fd, item.name)
            finally:
                os.close(fd)
            if opened is not None:
                os.close(opened)
        writer.finish()

    @property
    def _target(self) -> str:
        return self._selection.destination.strip("/")

    def _items(self, *, with_archives: bool = False) -> Iterator[_Item]:
        for match in self.matches():
            path = match["path"]
            if match["folder"]:
                yield from self._inside(path, self._target)
            elif with_archives or not match["archive"]:
                inside = self._selection.is_folder
                yield _Item(path, posixpath.join(self._target, posixpath.basename(path) if inside else ""), follow=True)

    def _inside(self, folder: str, name: str) -> Iterator[_Item]:
        for base in sorted(os.listdir("/" + folder), key=os.fsencode):
            path = posixpath.join(folder, base)
            left_out = path in self._ignored
            if not left_out:
                yield _Item(path, posixpath.join(name, base))
            is_folder = stat.S_ISDIR(os.lstat("/" + path).st_mode)
            if is_folder and (not left_out or self._ignored.keeps_some):
                yield from self._inside(path, posixpath.join(name, base))

    def _fitting(self, pattern: str) -> list[str]:
        found = [""]
        for part in pattern.split("/"):
            regex = globs.pattern_of(part)
            found = [
                posixpath.join(folder, base)
                for folder in found
                if os.path.isdir("/" + folder)
                for base in sorted(os.listdir("/" + folder), key=os.fsencode)
                if regex.fullmatch(base)
            ]
        return [path for path in found if path not in self._ignored]

    def _has_kept(self, path: str) -> bool:
        return self._ignored.keeps_some and os.path.isdir("/" + path)


def raw(path: str, output: BinaryIO) -> None:
    """Write a file's content."""
    with open("/" + path.strip("/"), "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            output.write(chunk)
    output.flush()


def _exists(path: str) -> bool:
    try:
        os.stat("/" + path)
    except FileNotFoundError:
        return False
    return True


def _is_archive(path: str) -> bool:
    """Say whether a file is a tar, compressed or not, with at least one entry."""
    if not stat.S_ISREG(os.stat("/" + path).st_mode):
        return False
    with open("/" + path, "rb", buffering=0) as file:
        source = Source(file.fileno(), PROBE, digest=False)
        try:
            return next(members(source, PROBE), None) is not None
        except (ArchiveRefused, InvalidParameter):
            return False
