"""Bring a store into a state that can be written on, whatever stopped its last writer. Called under the store's lock.

Bytes beyond the last entry are adopted with the time of the recovery; entries beyond the data's end are cut. What
cannot be understood is set aside under another name, never deleted, and writing goes on in a new segment at a
position that was not used before. Entries for which a full disk has no room are left to the writer, which keeps trying.
"""

import os
from typing import NamedTuple

from logd.logstore import ballast
from logd.logstore.ballast import FULL
from logd.logstore.inventory import data_sizes
from logd.logstore.segment import (
    ENTRY_BYTES,
    HEADER_ENTRIES,
    REASON_CODES,
    Entry,
    Header,
    Kind,
    file_names,
    index_name,
    pack_entry,
    segment_numbers,
    unpack_entry,
    unpack_header,
)
from logd.logstore.totals import Totals
from logd.record import STDERR, STDOUT

HEADER_BYTES = HEADER_ENTRIES * ENTRY_BYTES
MAX_LENGTH = 2**32 - 1


class Recovered(NamedTuple):
    """Where writing goes on."""

    number: int
    """The newest segment, 0 if there is none."""
    ends: tuple[int, int]
    """The positions after the last byte of stdout and of stderr."""
    entries: int
    """How many entries the newest segment's index has, those in `unwritten` among them."""
    last_ns: int
    """The time of its last entry."""
    reusable: bool
    """Whether writing may go on in it; otherwise a new segment is due."""
    gaps: tuple[tuple[int, int, int, int], ...]
    """(stream, position, length, reason code) to be noted at the begin of the new segment."""
    unwritten: bytes = b""
    """Its last entries, which found no room on a full disk."""


class _Mended(NamedTuple):
    """The newest segment, as it is now."""

    ends: tuple[int, int]
    entries: int
    last_ns: int
    unwritten: bytes = b""


class _Scan(NamedTuple):
    header: Header
    entries: list[Entry]
    damaged: bool
    """A bad entry with good ones behind it: not a torn tail."""


def recover(folder: str, boot_id: bytes, now_ns: int, totals: Totals) -> Recovered:
    """Mend the newest segment of the store in `folder` and return where writing goes on."""
    used = (totals.streams[STDOUT].end, totals.streams[STDERR].end)
    numbers = segment_numbers(folder)
    _discard_strays(folder, numbers)
    quarantined = [0, 0]
    while numbers:
        number = numbers.pop()
        scan = _scan(folder, number)
        if scan is None:
            sizes = data_sizes(folder, number)
            quarantined = [have + more for have, more in zip(quarantined, sizes, strict=True)]
            _set_aside(folder, number)
            continue
        mended = _mend(folder, number, scan, now_ns)
        return _resume(number, mended, scan, boot_id, used, quarantined)
    start = (used[0] + quarantined[0], used[1] + quarantined[1])
    gaps = _gaps((0, 0), start, REASON_CODES["damaged"]) if any(start) else ()
    return Recovered(0, start, 0, 0, reusable=False, gaps=gaps)


def _resume(
    number: int, mended: _Mended, scan: _Scan, boot_id: bytes, used: tuple[int, int], quarantined: list[int]
) -> Recovered:
    """Decide where to go on: never at a position that a reader or a driver may have seen already."""
    ends, entries, last_ns, unwritten = mended
    told = _told(scan)
    floor = (
        max(ends[0], used[0], told[0]) + quarantined[0],
        max(ends[1], used[1], told[1]) + quarantined[1],
    )
    rebooted = scan.header.boot_id != boot_id
    if floor == ends and not rebooted and not scan.damaged:
        return Recovered(number, ends, entries, last_ns, reusable=True, gaps=(), unwritten=unwritten)
    reason = "no-space"
    if any(quarantined) or told[0] > ends[0] or told[1] > ends[1]:
        reason = "damaged"
    if rebooted and not any(quarantined):
        reason = "unclean-boot"
    gaps = _gaps(ends, floor, REASON_CODES[reason])
    return Recovered(number, floor, entries, last_ns, reusable=False, gaps=gaps, unwritten=unwritten)


def _told(scan: _Scan) -> tuple[int, int]:
    """Return the ends of stdout and stderr of which the index tells, though their data may be lost."""
    ends = {STDOUT: 0, STDERR: 0}
    for entry in scan.entries:
        if entry.kind in (Kind.DATA, Kind.ADOPTED):
            ends[entry.stream] = max(ends[entry.stream], entry.position + entry.length)
    return ends[STDOUT], ends[STDERR]


def _gaps(have: tuple[int, int], go_on: tuple[int, int], reason: int) -> tuple[tuple[int, int, int, int], ...]:
    pairs = zip((STDOUT, STDERR), have, go_on, strict=True)
    return tuple((stream, end, base - end, reason) for stream, end, base in pairs if base > end)


def _discard_strays(folder: str, numbers: list[int]) -> None:
    """Remove data files without an index, since deletion removes the index first, and an index without its name."""
    for name in os.listdir(folder):
        stem, _, ending = name.partition(".")
        stray = ending in ("stdout", "stderr", "sealed") and stem.isdigit() and int(stem) not in numbers
        if stray or ending == "index.new":
            os.unlink(os.path.join(folder, name))


def _set_aside(folder: str, number: int) -> None:
    for name in file_names(number):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            os.rename(path, path + ".damaged")


def _scan(folder: str, number: int) -> _Scan | None:
    """Read a whole index; None when its header can't be read. A torn tail is left out."""
    with open(os.path.join(folder, index_name(number)), "rb") as file:
        raw = file.read()
    header = unpack_header(raw[:HEADER_BYTES])
    if header is None:
        return None
    entries: list[Entry] = []
    bad = 0
    for at in range(HEADER_BYTES, len(raw), ENTRY_BYTES):
        entry = unpack_entry(raw[at : at + ENTRY_BYTES])
        if entry is None or entry.sequence != at // ENTRY_BYTES:
            bad += 1
            continue
        if bad:
            return _Scan(header, entries + _valid(raw, at), damaged=True)
        entries.append(entry)
    return _Scan(header, entries, damaged=False)


def _valid(raw: bytes, start: int) -> list[Entry]:
    found = (unpack_entry(raw[at : at + ENTRY_BYTES]) for at in range(start, len(raw), ENTRY_BYTES))
    return [entry for entry in found if entry is not None]


def _mend(folder: str, number: int, scan: _Scan, now_ns: int) -> _Mended:
    """Cut entries without data, adopt data without entries."""
    sizes = data_sizes(folder, number)
    ends = {stream: scan.header.base(stream) for stream in (STDOUT, STDERR)}
    bound = {STDOUT: ends[STDOUT] + sizes[0], STDERR: ends[STDERR] + sizes[1]}
    last_ns = scan.header.time_ns
    if scan.damaged:
        return _Mended((bound[STDOUT], bound[STDERR]), HEADER_ENTRIES + len(scan.entries), now_ns)
    kept = HEADER_ENTRIES
    for entry in scan.entries:
        if entry.kind in (Kind.DATA, Kind.ADOPTED):
            if entry.position + entry.length > bound[entry.stream]:
                break
            ends[entry.stream] = entry.position + entry.length
        last_ns = entry.time_ns
        kept += 1
    adopted = b""
    at = kept * ENTRY_BYTES
    for stream in (STDOUT, STDERR):
        while ends[stream] < bound[stream]:
            length = min(bound[stream] - ends[stream], MAX_LENGTH)
            last_ns = max(now_ns, last_ns)
            adopted += pack_entry(kept, last_ns, ends[stream], length, stream, Kind.ADOPTED)
            ends[stream] += length
            kept += 1
    unwritten = _write_index(folder, number, at, adopted)
    return _Mended((ends[STDOUT], ends[STDERR]), kept, last_ns, unwritten)


def _write_index(folder: str, number: int, at: int, entries: bytes) -> bytes:
    """Cut an index off at a size and write entries there, giving up the ballast for them; return what has no room."""
    descriptor = os.open(os.path.join(folder, index_name(number)), os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, at)
        for _ in range(2):
            written = _write_whole(descriptor, entries, at)
            at += written
            entries = entries[written:]
            if not entries:
                break
            ballast.drop(folder)
    finally:
        os.close(descriptor)
    return entries


def _write_whole(descriptor: int, entries: bytes, at: int) -> int:
    """Write entries at an offset; return how many bytes of whole ones found room."""
    try:
        written = os.pwrite(descriptor, entries, at)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return 0
    return written - written % ENTRY_BYTES
