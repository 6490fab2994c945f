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
    """The positions after its last byte; what is missing between two segments belongs to neither."""


def closed_segments(folder: str, open_number: int) -> list[Closed]:
    """Describe the segments but `open_number`, oldest first. Those whose header can't be read are left out."""
    closed = []
    for number in segment_numbers(folder):
        begins = bases(folder, number)
        if number == open_number or begins is None:
            continue
        last_ns = os.stat(os.path.join(folder, index_name(number))).st_mtime_ns
        sizes = data_sizes(folder, number)
        ends = begins[0] + sizes[0], begins[1] + sizes[1]
        closed.append(Closed(number, sum(sizes), last_ns, begins, ends))
    return closed


def bases(folder: str, number: int) -> tuple[int, int] | None:
    """Return the positions of stdout and stderr at which a segment begins, None if its header can't be read."""
    with open(os.path.join(folder, index_name(number)), "rb") as file:
        header = unpack_header(file.read(HEADER_ENTRIES * ENTRY_BYTES))
    return header and (header.stdout_base, header.stderr_base)


def data_sizes(folder: str, number: int) -> tuple[int, int]:
    """Return how many bytes of stdout and of stderr a segment holds."""
    stdout, stderr, _ = file_names(number)
    return _size(os.path.join(folder, stdout)), _size(os.path.join(folder, stderr))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
