"""The files of a segment: their names, the layout of the index, nothing else. No other module knows them.

A store is a folder. Segment n (from 1) is up to three files in it:

    0000000001.stdout   the bytes as the container wrote them; absent or empty while there are none
    0000000001.stderr
    0000000001.index    entries of 32 bytes, little-endian, one for each batch moved
    0000000001.sealed   of a closed segment, if at all: sizes and checksums of the others (see seal.py)

An index entry (the layout of ENTRY):

    offset size
         0    8  time_ns   wall clock, Unix time in nanoseconds
         8    8  position  bytes of the stream since the container was created
        16    4  length    bytes of the batch
        20    1  stream    1 stdout, 2 stderr, 0 neither
        21    1  kind      see Kind
        22    2  reason    of a gap, see GAP_REASONS; of EXEC see there; otherwise 0
        24    4  sequence  the entry's number in this index, from 0
        28    4  crc32     of the 28 bytes before it

32 divides the page, so that a concurrent reader never sees a torn entry. An index begins with a header of three
entries: BASE of stdout (position: where the stream stands at the segment's begin; length: FORMAT_VERSION), BASE of
stderr, and BOOT (time_ns and position hold the first and last 8 bytes of the kernel's boot id, big-endian). A byte
at position p of a stream lies at file offset p - base. Data is written before the entry that names it.
"""

import os
import re
import struct
from binascii import crc32
from enum import IntEnum
from typing import Final, NamedTuple

from logd.record import STDERR, STDOUT, STREAM_NAMES

FORMAT_VERSION: Final = 1
ENTRY: Final = struct.Struct("<QQIBBHII")
_CHECKED: Final = struct.Struct("<QQIBBHI")
"""What comes before the checksum."""
ENTRY_BYTES: Final = 32
HEADER_ENTRIES: Final = 3
INDEX_NAME: Final = re.compile(r"(\d{10})\.index")


class Kind(IntEnum):
    """What an index entry says."""

    DATA = 0
    """A batch of `length` bytes of `stream`, from `position` on."""
    ADOPTED = 1
    """Like DATA; found without an entry after a crash, so that its time is that of the recovery."""
    BASE = 2
    """Header: the position of `stream` at which this segment begins."""
    BOOT = 3
    """Header: the boot id of the machine that wrote the segment."""
    GAP = 4
    """`length` bytes of `stream` from `position` on are missing, 0 where it is not known; `reason` says why."""
    BEGIN = 5
    """The container was started; `length` is the count of its runs."""
    END = 6
    """The output of this run of the container has ended; `length` as above."""
    EXEC = 7
    """The next batch is an exec's; the first 12 hexadecimal digits of its id are `length` and `reason`, 8 and 4."""


EXEC_ID_DIGITS: Final = 12


GAP_REASONS: Final = {
    1: "no-space",  # the disk was full and nothing older of this store was left to free
    2: "min-free",  # the host's reserve of free space was touched
    3: "crash",  # the staging pipe died with every process that held it, or nobody was left to see the output's end
    4: "unclean-boot",  # the machine stopped before the page cache was written, or before the output's end
    5: "undelivered",  # a driver did not acknowledge in time and its budget is spent
    6: "damaged",  # found by a reader; never written
    7: "sync-failed",  # the disk refused to keep what it had taken
}
REASON_CODES: Final = {name: code for code, name in GAP_REASONS.items()}


class Entry(NamedTuple):
    """One index entry, checked."""

    time_ns: int
    position: int
    length: int
    stream: int
    kind: int
    reason: int
    sequence: int


class Header(NamedTuple):
    """A segment's first three entries."""

    version: int
    stdout_base: int
    stderr_base: int
    boot_id: bytes
    time_ns: int

    def base(self, stream: int) -> int:
        """Return the position of `stream` that lies at offset 0 of its file."""
        return self.stdout_base if stream == STDOUT else self.stderr_base


def index_name(number: int) -> str:
    """Return the name of segment `number`'s index."""
    return f"{number:010}.index"


def data_name(number: int, stream: int) -> str:
    """Return the name of the file with segment `number`'s bytes of `stream`."""
    return f"{number:010}.{STREAM_NAMES[stream]}"


def file_names(number: int) -> tuple[str, str, str]:
    """Return the names of all files of segment `number`, the index last: it is the one that makes it a segment."""
    return data_name(number, STDOUT), data_name(number, STDERR), index_name(number)


def sealed_name(number: int) -> str:
    """Return the name of the file with the checksums of segment `number`."""
    return f"{number:010}.sealed"


def segment_numbers(folder: int | str | os.PathLike[str]) -> list[int]:
    """Return the numbers of the segments in `folder` (a path or a descriptor), oldest first."""
    return sorted(int(match[1]) for name in os.listdir(folder) if (match := INDEX_NAME.fullmatch(str(name))))


def pack_entry(
    sequence: int, time_ns: int, position: int, length: int, stream: int, kind: int = Kind.DATA, reason: int = 0
) -> bytes:
    """Return the 32 bytes of an entry."""
    body = _CHECKED.pack(time_ns, position, length, stream, kind, reason, sequence)
    return body + crc32(body).to_bytes(4, "little")


def split_exec_id(exec_id: str) -> tuple[int, int]:
    """Return `length` and `reason` of an EXEC entry."""
    return int(exec_id[:8], 16), int(exec_id[8:EXEC_ID_DIGITS], 16)


def join_exec_id(length: int, reason: int) -> str:
    """Undo `split_exec_id`."""
    return f"{length:08x}{reason:04x}"


def unpack_entry(raw: bytes) -> Entry | None:
    """Return the entry in these 32 bytes, None if it is torn or damaged."""
    if len(raw) != ENTRY_BYTES:
        return None
    *fields, checksum = ENTRY.unpack(raw)
    if checksum != crc32(raw[:28]):
        return None
    return Entry(*fields)


def pack_header(time_ns: int, stdout_base: int, stderr_base: int, boot_id: bytes) -> bytes:
    """Return the 96 bytes with which an index begins; `boot_id` is 16 bytes."""
    high, low = int.from_bytes(boot_id[:8], "big"), int.from_bytes(boot_id[8:], "big")
    return (
        pack_entry(0, time_ns, stdout_base, FORMAT_VERSION, STDOUT, Kind.BASE)
        + pack_entry(1, time_ns, stderr_base, FORMAT_VERSION, STDERR, Kind.BASE)
        + pack_entry(2, high, low, 0, 0, Kind.BOOT)
    )


def unpack_header(raw: bytes) -> Header | None:
    """Return the header in the first 96 bytes of an index, None if it is incomplete or damaged."""
    entries = [unpack_entry(raw[at : at + ENTRY_BYTES]) for at in range(0, HEADER_ENTRIES * ENTRY_BYTES, ENTRY_BYTES)]
    stdout, stderr, boot = entries
    if stdout is None or stderr is None or boot is None:
        return None
    if (stdout.kind, stderr.kind, boot.kind) != (Kind.BASE, Kind.BASE, Kind.BOOT):
        return None
    boot_id = boot.time_ns.to_bytes(8, "big") + boot.position.to_bytes(8, "big")
    return Header(stdout.length, stdout.position, stderr.position, boot_id, stdout.time_ns)
