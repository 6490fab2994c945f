"""The process that writes the archive of `docker save`: `python -m logd.images.packer`, the plan on stdin as JSON.

The plan is a list of entries, the archive comes on stdout. A file that is unpacked has to have the announced size and
the digest that its name says. Status 0: all is written; else the reason is the last line of stderr.
"""

import os
import shutil
import sys
import tarfile
from typing import IO, Final

import msgspec

from logd.images.kernel import die_with_parent, forbid_new_privileges
from logd.images.limits import Limits
from logd.images.tarstream import ArchiveRefused, Source

CHUNK: Final = 1 << 20
NO_LIMITS: Final = Limits(max_bytes=1 << 62, max_ratio=1 << 62)
"""What is kept was within them when it came."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the archive: `data`, or the content of the file `path`, decompressed if it is to be `unpacked`.

    `size` are the bytes that come into the archive.
    """

    name: str
    data: str = ""
    path: str = ""
    size: int = 0
    unpacked: bool = False


def pack(entries: list[Entry], out: IO[bytes]) -> None:
    """Write the archive. Raises ValueError for a file that is not what the plan says, OSError."""
    folders: set[str] = set()
    for entry in entries:
        for folder in _folders_of(entry.name):
            if folder not in folders:
                folders.add(folder)
                out.write(_header(folder, tarfile.DIRTYPE, 0o755, 0))
        size = entry.size if entry.path else len(entry.data.encode())
        out.write(_header(entry.name, tarfile.REGTYPE, 0o644, size))
        if entry.path:
            _copy(entry, out)
        else:
            out.write(entry.data.encode())
        out.write(bytes(-size % tarfile.BLOCKSIZE))
    out.write(bytes(2 * tarfile.BLOCKSIZE))
    out.flush()


def _folders_of(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _header(name: str, kind: bytes, mode: int, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size = kind, mode, size
    return member.tobuf(tarfile.PAX_FORMAT)


def _copy(entry: Entry, out: IO[bytes]) -> None:
    with open(entry.path, "rb", buffering=0) as file:
        if entry.unpacked:
            source = Source(file.fileno(), NO_LIMITS, copy=out.write)
            digest = source.finish()
            if (source.bytes_out, digest) != (entry.size, f"sha256:{entry.name.rpartition('/')[2]}"):
                raise ValueError(f"{entry.name} is damaged: {source.bytes_out} bytes, whose digest is {digest}")
            return
        shutil.copyfileobj(file, out, CHUNK)
        if file.tell() != entry.size:
            raise ValueError(f"{entry.name} is damaged: {file.tell()} bytes of {entry.size}")


def main() -> None:
    """Read the plan, write the archive."""
    die_with_parent()
    forbid_new_privileges()
    entries = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Entry])
    try:
        pack(entries, sys.stdout.buffer)
    except (ValueError, OSError, ArchiveRefused) as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
