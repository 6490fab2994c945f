"""What the writer knows of its closed segments, read from their files when the store is opened."""

import os
from typing import NamedTuple

from logd.logstore.segment import (
    ENTRY_BYTES,
    HEADER_ENTRIES,
    file_names,
    index_name,
    segment_numbers,
    unpack_header,
)


class Closed(NamedTuple):
    """A segment that is no longer written."""

    number: int
    size: int
    """Bytes of both streams."""
    last_ns: int
    begins: tuple[int, int]
    """The positions of its first byte of stdout and of stderr."""
    ends: tuple[int, int]
    """The positions after its last byte."""


def closed_segments(folder: str, open_number: int | None, ends: tuple[int, int]) -> list[Closed]:
    """Describe the segments that are no longer written, oldest first: each ends where the next begins.

    `open_number` is the segment that goes on being written, if any; else the last ends at `ends`.
    """
    closed: list[Closed] = []
    for number in reversed(segment_numbers(folder)):
        begins = bases(folder, number) or ends
        if number != open_number:
            last_ns = os.stat(os.path.join(folder, index_name(number))).st_mtime_ns
            closed.append(Closed(number, data_bytes(folder, number), last_ns, begins, ends))
        ends = begins
    return closed[::-1]


def bases(folder: str, number: int) -> tuple[int, int] | None:
    """Return the positions of stdout and stderr at which a segment begins, None if its header can't be read."""
    with open(os.path.join(folder, index_name(number)), "rb") as file:
        header = unpack_header(file.read(HEADER_ENTRIES * ENTRY_BYTES))
    return header and (header.stdout_base, header.stderr_base)


def data_bytes(folder: str, number: int) -> int:
    """Return the size of a segment's data, both streams together."""
    total = 0
    for name in file_names(number)[:2]:
        try:
            total += os.stat(os.path.join(folder, name)).st_size
        except FileNotFoundError:
            continue
    return total
