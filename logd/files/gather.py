"""What a COPY means: which files of a tree, what is in them, where they go, and a tar of them under their new names.

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
from logd.files.paths import follow
from logd.files.request import Selection
from logd.files.tarwriter import TarWriter
from logd.ignored import Ignored
from logd.images.limits import Limits
from logd.images.tarstream import ArchiveRefused, Source, members
from logd.runtime.inroot import open_in_root, opened

CHUNK: Final = 1 << 20
FOLDER: Final = "folder"
FILE: Final = "file"
LEFT_OUT: Final = "file not found in build context or excluded by .dockerignore"
SPECIAL: Final = frozenset("*?[\\")
MAX_ARCHIVES: Final = 1000
"""Of one ADD: the daemon is told their names."""
PROBE: Final = Limits(max_bytes=1 << 62)


class _Item(NamedTuple):
    """One file or folder: where it is in the tree, and its name in the container. A source itself is followed."""

    path: str
    name: str
    follow: bool = False


class _Match(NamedTuple):
    """A source that is there."""

    path: str
    is_folder: bool
    is_archive: bool


class Gathering:
    """What a selection means in this process's root.

    `path` is where its destination leads, `kind` what is there, and `missing` are folders that are not there, up to it.
    `what` the sources are is as Docker says it in the history: file, dir, multi.
    """

    def __init__(self, selection: Selection, path: str, kind: str, missing: list[str]) -> None:
        self._selection = selection
        self._missing = missing
        self._target = path.strip("/")
        self._kind = kind
        self._ignored = Ignored(selection.ignored)
        self._matches = self._find()
        self.archives = [match.path for match in self._matches if match.is_archive]
        self.what = "multi" if len(self._matches) > 1 else "dir" if self._matches[0].is_folder else "file"
        self.has_folders = any(match.is_folder or match.is_archive for match in self._matches)
        self._into_folder = selection.into_folder or kind == FOLDER or self.has_folders
        if len(self.archives) > MAX_ARCHIVES:
            raise InvalidParameter(f"{len(self.archives)} archives are to be unpacked, of {MAX_ARCHIVES}")

    def _find(self) -> list[_Match]:
        """Return the sources as they are. Raises NotFound."""
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
            _Match(path, is_folder, not is_folder and self._selection.unpacks and _is_archive(path))
            for path in dict.fromkeys(found)
            for is_folder in [os.path.isdir("/" + path)]
        ]

    def digest(self) -> str:
        """Return a digest of names, kinds, modes and contents; times don't count, owners where they are kept."""
        total = hashlib.sha256(json.dumps([self._target, self._into_folder]).encode() + b"\n")
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
        for path in self._new_folders():
            folder = tarfile.TarInfo(path)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
            folder.uid, folder.gid = writer.ids.inside(0, 0)
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

    def _new_folders(self) -> list[str]:
        """Return the folders that are made on the way; around a folder it is only that one that gets the owner."""
        if not self._into_folder:
            return self._missing[:-1]
        return self._missing[-1:] if self.has_folders else self._missing

    def _items(self, *, with_archives: bool = False) -> Iterator[_Item]:
        for match in self._matches:
            if match.is_folder:
                yield from self._inside(match.path, self._target)
            elif with_archives or not match.is_archive:
                base = posixpath.basename(match.path) if self._into_folder else ""
                yield _Item(match.path, posixpath.join(self._target, base).rstrip("/"), follow=True)

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
        kept = [path for path in found if path not in self._ignored]
        for path in kept:
            if not _exists(path):
                raise NotFound(f"{LEFT_OUT}: stat {path}: file does not exist")
        return kept

    def _has_kept(self, path: str) -> bool:
        return self._ignored.keeps_some and os.path.isdir("/" + path)


def where(root: int, path: str) -> tuple[str, str]:
    """Return where a path of a root leads, links followed, and what is there: FOLDER, FILE, "" for nothing."""
    path = follow(root, path)
    return path, kind_of(root, path)


def kind_of(root: int, path: str) -> str:
    """Return what is at a path of a root. Raises OSError if something is in the way."""
    try:
        fd = open_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        return ""
    with opened(fd):
        return FOLDER if stat.S_ISDIR(os.fstat(fd).st_mode) else FILE


def missing(root: int, path: str) -> list[str]:
    """Return what is not there of a path and the folders that it is in, the outermost first."""
    parts = path.strip("/").split("/")
    ways = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return [way for way in ways if not kind_of(root, way)]


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
