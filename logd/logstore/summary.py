"""What a store holds, for a person: sizes, positions, times, gaps. Reads the index, not the data."""

import os
from dataclasses import dataclass
from typing import Final

from logd.logstore.opened import OpenSegment, UnreadableSegmentError, data_size, parse
from logd.logstore.reader import end_positions
from logd.logstore.segment import ENTRY_BYTES, GAP_REASONS, HEADER_ENTRIES, Kind, index_name, segment_numbers
from logd.record import STDERR, STDOUT, Gap

BLOCK_ENTRIES: Final = 8192


@dataclass(frozen=True)
class Summary:
    """A store at a moment. Sizes are bytes, times Unix time in nanoseconds."""

    segments: int
    stdout_bytes: int
    """In the files, not counting what retention has removed."""
    stderr_bytes: int
    index_bytes: int
    begins: tuple[int, int]
    """The positions of stdout and stderr at which the oldest segment begins."""
    ends: tuple[int, int]
    """The positions after the last byte."""
    first_ns: int | None
    """When the oldest segment began; None in an empty store."""
    last_ns: int | None
    """The time of the last entry."""
    gaps: tuple[Gap, ...]
    """What the entries in the store say is missing, oldest first."""


def summary(folder: str) -> Summary:
    """Return what the store in `folder` holds; an empty one if there is no such folder."""
    try:
        numbers = segment_numbers(folder)
    except FileNotFoundError:
        numbers = []
    begins: tuple[int, int] | None = None
    first_ns = last_ns = None
    gaps: list[Gap] = []
    index_bytes = 0
    for number in numbers:
        index_bytes += _size(os.path.join(folder, index_name(number)))
        try:
            segment = OpenSegment(folder, number)
        except (FileNotFoundError, UnreadableSegmentError):
            continue
        try:
            header = segment.header
            begins = begins or (header.stdout_base, header.stderr_base)
            first_ns = header.time_ns if first_ns is None else first_ns
            last_ns = segment.last_time() or header.time_ns
            gaps += gaps_in(segment)
        finally:
            segment.close()
    sizes = {stream: sum(data_size(folder, number, stream) for number in numbers) for stream in (STDOUT, STDERR)}
    ends = end_positions(folder)
    return Summary(
        len(numbers), sizes[STDOUT], sizes[STDERR], index_bytes, begins or ends, ends, first_ns, last_ns, tuple(gaps)
    )


def gaps_in(segment: OpenSegment) -> list[Gap]:
    """Return what the entries of a segment say is missing."""
    gaps = []
    slot = HEADER_ENTRIES
    while block := segment.block(slot, BLOCK_ENTRIES):
        if Kind.GAP in block[21::ENTRY_BYTES]:
            for time_ns, position, length, stream, kind, reason, _, _ in parse(block, slot):
                if kind == Kind.GAP:
                    gaps.append(Gap(time_ns, stream, position, length, GAP_REASONS.get(reason, f"reason {reason}")))
        slot += len(block) // ENTRY_BYTES
    return gaps


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
