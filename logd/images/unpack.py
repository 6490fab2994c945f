"""The process that reads archives: `python -m logd.images.unpack layer|archive FOLDER`, the archive on stdin.

`layer` builds a layer's tree in FOLDER; `archive` puts the files of a `docker save` or OCI layout archive into FOLDER,
under numbers, whatever they are named. Both decompress (gzip, zstd, xz, bzip2) in this process, under the limits
given as JSON in argv. The last line of stdout is the result as JSON:

    layer    {"diff_id": "sha256:…", "size": bytes, "compressed": bytes, "tar": bytes,
              "blob": {"digest": "sha256:…", "size": bytes, "compression": "gzip" or "zstd", "copied": bool} or null}
    archive  {"files": {name: number}, "links": {name: target}}
    either   {"refused": why} with status 1 for a bad archive, {"failed": why} with 2 when the system is at fault

It is a process of its own because what it reads is hostile: memory is bounded, the root of a layer is its file
system's root, no descriptor but its own is open, and whatever becomes of it, the daemon goes on.
"""

import contextlib
import hashlib
import json
import os
import posixpath
import re
import resource
import stat
import sys
import tarfile
import traceback
from typing import Any, Final

from logd.images.kernel import die_with_parent, forbid_new_privileges
from logd.images.layercopy import LayerCopy
from logd.images.layertree import LayerTree
from logd.images.limits import Limits
from logd.images.tarstream import CHUNK, LONGEST_MAGIC, ArchiveRefused, Source, compression_of, members
from logd.images.treebuilder import FILE_TYPES, clean_name
from logd.images.trees import OPEN_DIRECTORY

BLOB_NAME: Final = re.compile(r"blobs/sha256/([0-9a-f]{64})")
MAX_ARCHIVE_FILES: Final = 10_000
"""Files of a `docker save` archive: 3 for each of at most 125 layers, for some dozens of images."""


def unpack_layer(
    folder: str, lower: list[str], limits: Limits, copy: str, *, digest: str, any_links: bool, fills: bool
) -> dict[str, Any]:
    """Build the layer on stdin in the empty directory `folder`, above the directories `lower`: see LayerTree.

    What is no file that registries take as it is is copied to the new file `copy`, as one, unless that is "".
    `digest` is that of stdin if it is known. `fills`: see Source.
    """
    root = os.open(folder, OPEN_DIRECTORY)
    below = [os.open(path, OPEN_DIRECTORY) for path in lower]
    compression = compression_of(os.pread(0, LONGEST_MAGIC, 0)) if stat.S_ISREG(os.fstat(0).st_mode) else ""
    is_blob = compression in {"gzip", "zstd"}
    kept = LayerCopy(copy) if copy and not is_blob else None
    os.fchdir(root)
    os.chroot(".")
    input_digest = is_blob and not digest
    source = Source(0, limits, input_digest=input_digest, copy=kept.write if kept else None, fills=fills, ahead=True)
    tree = LayerTree(root, limits, below, any_links=any_links)
    for member in members(source, limits):
        tree.add(member, source)
    diff_id = source.finish()
    tree.finish()
    blob: dict[str, Any] | None = None
    if is_blob:
        found = digest or source.input_digest()
        blob = {"digest": found, "size": source.bytes_in, "compression": compression, "copied": False}
    elif kept:
        blob = {"digest": kept.finish(), "size": kept.size, "compression": "zstd", "copied": True}
    return {
        "diff_id": diff_id,
        "size": tree.size,
        "compressed": source.bytes_in,
        "tar": source.bytes_out,
        "blob": blob,
    }


def split_archive(folder: str, limits: Limits) -> dict[str, Any]:
    """Put the files of the archive on stdin into `folder`, named 0, 1, 2 …; a blob has to have its digest."""
    root = os.open(folder, OPEN_DIRECTORY)
    source = Source(0, limits, digest=False)
    files: dict[str, int] = {}
    links: dict[str, str] = {}
    for number, member in enumerate(members(source, limits)):
        name = clean_name(member.name, "entry")
        if number >= MAX_ARCHIVE_FILES:
            raise ArchiveRefused(f"an archive of images has more than {MAX_ARCHIVE_FILES} entries")
        if member.type == tarfile.DIRTYPE:
            continue
        files.pop(name, None)
        links.pop(name, None)
        if member.type in FILE_TYPES and member.sparse is None:
            _store(root, number, name, member, source)
            files[name] = number
        elif member.type in {tarfile.SYMTYPE, tarfile.LNKTYPE}:
            links[name] = _target(name, member)
        else:
            raise ArchiveRefused(f"entry {name!r} is not a file, and an archive of images has nothing else")
    source.skip(1 << 62)  # so that who writes to our pipe is not cut off
    return {"files": files, "links": links}


def _target(name: str, member: tarfile.TarInfo) -> str:
    """Return what a link in an archive of images (older `docker save` links equal layers) stands for."""
    base = posixpath.dirname(name) if member.type == tarfile.SYMTYPE else ""
    target = posixpath.normpath(posixpath.join(base, member.linkname))
    if target.startswith(("/", "../")) or target == "..":
        raise ArchiveRefused(f"entry {name!r} is a link that leads outside: {member.linkname!r}")
    return target


def _store(root: int, number: int, name: str, member: tarfile.TarInfo, source: Source) -> None:
    blob = BLOB_NAME.fullmatch(name)
    digest = hashlib.sha256() if blob else None
    fd = os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
    try:
        left = member.size
        while left:
            part = source.take(min(left, CHUNK))
            left -= len(part)
            if digest:
                digest.update(part)
            while part:
                part = part[os.write(fd, part) :]
    finally:
        os.close(fd)
    if blob and digest and digest.hexdigest() != blob[1]:
        raise ArchiveRefused(f"blob sha256:{blob[1]} is damaged: its digest is sha256:{digest.hexdigest()}")


def confine(limits: Limits) -> None:
    """Bound this process: memory, no core files, no new privileges; as many descriptors as it may have.

    It ends with the daemon, whose next start removes what it was building.
    """
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (limits.max_memory, limits.max_memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    forbid_new_privileges()
    os.umask(0o022)


def run(arguments: list[str]) -> tuple[dict[str, Any], int]:
    """Do what argv says; return the result and the exit status."""
    task, folder, options = arguments[0], arguments[1], json.loads(arguments[2])
    limits = Limits(**options["limits"])
    try:
        confine(limits)
        if task == "layer":
            lower, copy, rest = options["lower"], options["copy"], ("digest", "any_links", "fills")
            return unpack_layer(folder, lower, limits, copy, **{name: options[name] for name in rest}), 0
        return split_archive(folder, limits), 0
    except ArchiveRefused as error:
        return {"refused": str(error)}, 1
    except MemoryError:
        return {"refused": f"the archive needs more than {limits.max_memory} bytes of memory to read"}, 1
    except OSError as error:
        return {"failed": error.strerror or str(error)}, 2


def main() -> None:
    """Run, and print the result."""
    try:
        result, status = run(sys.argv[1:])
    except Exception as error:  # whatever it is, the daemon is told
        with contextlib.suppress(Exception):
            traceback.print_exc()
        result, status = {"failed": f"{type(error).__name__}: {error}"}, 2
    print(json.dumps(result), flush=True)
    os._exit(status)  # everything is written; taking the interpreter down would only cost time


if __name__ == "__main__":
    main()
