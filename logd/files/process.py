"""The process that works on a container's files: `python -m logd.files.process TASK OPTIONS`, OPTIONS as JSON.

    stat      prints {"found": Docker's ContainerPathStat}
    pack      the same line, then the tar of a path
    export    {}, then the tar of the whole root
    changes   {"changes": the API's list}
    layer     {"empty": whether there is no change}, then what the container changed as a layer's tar
    extract   unpacks the tar on stdin into a folder, then prints {}
    copy      {"what", "has_folders", "archives", "digest": of a COPY's sources, "path": where they go, "kind": what is
              there, "owner": uid:gid or ""}, then a tar of them as they are to be there
    where     {"path": where a path leads, "kind": what is there}
    raw       {}, then the content of a file

Instead of its line it prints {"missing": true} (no such path), {"refused": why} with status 1 where the request or the
archive is at fault, {"failed": why} with 2 when the system is. A tar that breaks off has a status that is not 0.

It is a process of its own because it enters a mount namespace, because what it reads is hostile, and since the daemon
must not wait for a disk: memory is bounded, and whatever becomes of it, the daemon goes on.
"""

import contextlib
import errno
import json
import os
import posixpath
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import msgspec

from logd.errors import InvalidParameter, LogdError, NotFound
from logd.files.extract import Placement
from logd.files.gather import Gathering, missing, raw, where
from logd.files.ids import Ids, OneOwner
from logd.files.paths import describe, follow, locate
from logd.files.request import Extraction, MountRequest, Place, Selection
from logd.files.tarwriter import NO_IDS, TarWriter
from logd.files.upper import as_docker_shows, changes, check_names, write_layer
from logd.files.view import enter, enter_beside, mount_image
from logd.idmap import IdMap
from logd.images.limits import Limits
from logd.images.tarstream import ArchiveRefused, EmptyArchive, Source, members
from logd.images.unpack import confine
from logd.runtime.inroot import read_regular
from logd.runtime.users import lookup

BUFFER: Final = 256 << 10
NOT_THERE: Final = (errno.ENOENT,)
AT_FAULT: Final = {
    errno.ENOTDIR: "not a directory",
    errno.ELOOP: "too many links",
    errno.ENAMETOOLONG: "file name too long",
    errno.EROFS: "read-only file system",
}
NOT_A_FOLDER: Final = "extraction point is not a directory"


class Files:
    """The tasks."""

    def __init__(self, options: Mapping[str, Any], output: BinaryIO) -> None:
        place = options["place"]
        self._idmap = msgspec.convert(place["idmap"], IdMap | None)
        self._ids = Ids(self._idmap)
        self._place = _place(place)
        self.path: str = options["path"]
        self._extraction = Extraction(**options["extraction"])
        target = options["selection"].pop("target")
        self._selection = Selection(**options["selection"], target=None if target is None else _place(target))
        self._limits = Limits(**options["limits"])
        self._output = output

    def say(self, result: Mapping[str, Any]) -> None:
        """Print the line."""
        self._output.write(json.dumps(result).encode() + b"\n")
        self._output.flush()

    def stat(self) -> None:
        """See the module."""
        root = enter(self._place, self._idmap, writable=False)
        self.say({"found": describe(root, locate(root, self.path))})

    def pack(self) -> None:
        """See the module."""
        writer = self._writer(self._ids)
        root = enter(self._place, self._idmap, writable=False)
        found = locate(root, self.path)
        self.say({"found": describe(root, found)})
        writer.add_tree(found.fd, found.name)
        writer.finish()

    def export(self) -> None:
        """See the module."""
        writer = self._writer(self._ids)
        root = enter(self._place, self._idmap, writable=False)
        self.say({})
        writer.add_tree(root, "")
        writer.finish()

    def changes(self) -> None:
        """See the module."""
        self.say({"changes": as_docker_shows(changes(*mount_image(self._place)))})

    def layer(self) -> None:
        """See the module."""
        writer = self._writer()
        upper, image = mount_image(self._place)
        found = changes(upper, image)
        check_names(found)
        self.say({"empty": not found})
        if found:
            write_layer(upper, found, writer)
            writer.finish()

    def extract(self) -> None:
        """See the module."""
        root = enter(self._place, self._idmap, writable=True, read_only_root=self._extraction.read_only_root)
        path = self.path if self.path.endswith("/") else self.path + "/"
        try:
            folder = locate(root, path)
        except NotADirectoryError as error:
            raise InvalidParameter(NOT_A_FOLDER) from error
        self._check_writable(follow(root, folder.path))
        target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder.fd)
        owner = _user(root, self._extraction.owner) if self._extraction.owner else None
        placement = Placement(
            target, self._limits, folder.path, self._ids, keep_kinds=self._extraction.keep_kinds, owner=owner
        )
        source = Source(0, self._limits, digest=False, fills=True)
        with contextlib.suppress(EmptyArchive):
            for member in members(source, self._limits):
                placement.add(member, source)
            source.skip(1 << 62)  # so that who writes to our pipe is not cut off
        placement.finish()
        self.say({})

    def copy(self) -> None:
        """See the module."""
        selection = self._selection
        assert selection.target is not None
        own = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _, target = enter_beside(self._place, selection.target)
        owner = _owner(target, selection.owner) if selection.owner else (0, 0)
        path, kind = where(target, selection.destination)
        gathering = Gathering(selection, path, kind, missing(target, path))
        self.say(
            {
                "what": gathering.what,
                "has_folders": gathering.has_folders,
                "archives": gathering.archives,
                "digest": gathering.digest(),
                "path": path,
                "kind": kind,
                "owner": f"{owner[0]}:{owner[1]}" if selection.owner else "",
            }
        )
        gathering.write(TarWriter(self._output, own, NO_IDS if selection.keeps_owners else OneOwner(*owner)))

    def where(self) -> None:
        """See the module."""
        path, kind = where(enter(self._place, self._idmap, writable=False), self.path)
        self.say({"path": path, "kind": kind})

    def raw(self) -> None:
        """See the module."""
        enter(self._place, self._idmap, writable=False)
        self.say({})
        raw(self.path, self._output)

    def _check_writable(self, path: str) -> None:
        """Raise InvalidParameter where the container could not write either."""
        around = [
            mount
            for mount in self._place.mounts
            if posixpath.commonpath([mount.destination, path]) == mount.destination
        ]
        if around and max(around, key=lambda mount: len(mount.destination)).read_only:
            raise InvalidParameter("mounted volume is marked read-only")
        if not around and self._extraction.read_only_root:
            raise InvalidParameter("container rootfs is marked read-only")

    def _writer(self, ids: Ids = NO_IDS) -> TarWriter:
        return TarWriter(self._output, os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), ids)


def _user(root: int, text: str) -> tuple[int, int]:
    user = lookup(read_regular(root, "etc/passwd") or b"", read_regular(root, "etc/group") or b"", text)
    return user.uid, user.gid


def _owner(root: int, text: str) -> tuple[int, int]:
    """Return who --chown means: a number alone is the group's too."""
    return _user(root, f"{text}:{text}" if text.isascii() and text.isdecimal() else text)


def run(task: str, options: Mapping[str, Any], output: BinaryIO) -> int:
    """Do a task; return the exit status."""
    files = Files(options, output)
    limits = Limits(**options["limits"])
    try:
        confine(limits)
        getattr(files, task)()
    except ArchiveRefused as error:
        files.say({"refused": str(error)})
    except (InvalidParameter, NotFound) as error:
        files.say({"refused": str(error)})
    except MemoryError:
        files.say({"refused": f"this needs more than {limits.max_memory} bytes of memory"})
    except OSError as error:
        return _system_error(files, error)
    except LogdError as error:
        files.say({"failed": str(error)})
        return 2
    else:
        return 0
    return 1


def _place(options: Mapping[str, Any]) -> Place:
    return Place(**{**options, "mounts": [MountRequest(**mount) for mount in options["mounts"]]})


def _system_error(files: Files, error: OSError) -> int:
    if error.errno in NOT_THERE:
        files.say({"missing": True})
        return 1
    if error.errno in AT_FAULT:
        files.say({"refused": f"lstat {files.path}: {AT_FAULT[error.errno]}"})
        return 1
    files.say({"failed": error.strerror or str(error)})
    return 2


def main() -> None:
    """Run, and print the result."""
    status = 2
    output = os.fdopen(1, "wb", BUFFER, closefd=False)
    try:
        status = run(sys.argv[1], json.loads(sys.argv[2]), output)
    except BrokenPipeError:
        pass  # nobody reads any more
    except Exception as error:  # whatever it is, the daemon is told; a traceback would read files, the container's
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    with contextlib.suppress(OSError):
        output.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
