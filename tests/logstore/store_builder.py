"""Writes stores for tests of the reading side, entry by entry, and says what a reader must make of them."""

import os
from pathlib import Path
from typing import NamedTuple

from logd.logstore.segment import (
    ENTRY_BYTES,
    HEADER_ENTRIES,
    REASON_CODES,
    Kind,
    data_name,
    index_name,
    pack_entry,
    pack_header,
)
from logd.record import STDERR, STDOUT

BOOT_ID = bytes(range(16))


class StoreBuilder:
    """Appends to a store as its writer does: data first, then the entry; a segment appears with its whole header."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.number = 0
        self.ends = {STDOUT: 0, STDERR: 0}
        self.slot = 0
        self.time_ns = 0

    @property
    def path(self) -> str:
        return str(self.folder)

    def rotate(self, time_ns: int | None = None) -> None:
        """Begin the next segment. Its time is that of the last entry if none is given."""
        self.time_ns = self.time_ns if time_ns is None else time_ns
        self.number += 1
        name = self.folder / index_name(self.number)
        partial = name.with_suffix(".index.new")
        partial.write_bytes(pack_header(self.time_ns, self.ends[STDOUT], self.ends[STDERR], BOOT_ID))
        partial.rename(name)
        self.slot = HEADER_ENTRIES

    def entry(self, stream: int, position: int, length: int, kind: Kind, reason: int = 0) -> None:
        with open(self.folder / index_name(self.number), "ab") as index:
            index.write(pack_entry(self.slot, self.time_ns, position, length, stream, kind, reason))
        self.slot += 1

    def write(self, stream: int, data: bytes, time_ns: int | None = None) -> None:
        """Append a batch, at a time not earlier than the last one's."""
        self._at(time_ns)
        with open(self.folder / data_name(self.number, stream), "ab") as file:
            file.write(data)
        self.entry(stream, self.ends[stream], len(data), Kind.DATA)
        self.ends[stream] += len(data)

    def gap(self, stream: int, length: int, reason: str = "no-space", time_ns: int | None = None) -> None:
        """Note a gap as the writer does: with a length, at the begin of a new segment; without, where it stands."""
        if length:
            position = self.ends[stream]
            self.ends[stream] += length
            self.rotate(time_ns)
            self.entry(stream, position, length, Kind.GAP, REASON_CODES[reason])
        else:
            self._at(time_ns)
            self.entry(stream, self.ends[stream], 0, Kind.GAP, REASON_CODES[reason])

    def mark(self, kind: Kind, run: int, time_ns: int | None = None) -> None:
        self._at(time_ns)
        self.entry(0, 0, run, kind)

    def delete(self, number: int) -> None:
        for name in (index_name(number), data_name(number, STDOUT), data_name(number, STDERR)):
            (self.folder / name).unlink(missing_ok=True)

    def damage_entry(self, number: int, slot: int, at: int = 9) -> None:
        """Flip a byte of an entry."""
        with open(self.folder / index_name(number), "r+b") as index:
            index.seek(slot * ENTRY_BYTES + at)
            byte = index.read(1)[0]
            index.seek(slot * ENTRY_BYTES + at)
            index.write(bytes([byte ^ 0x5A]))

    def cut_data(self, number: int, stream: int, length: int) -> None:
        os.truncate(self.folder / data_name(number, stream), length)

    def _at(self, time_ns: int | None) -> None:
        if not self.number:
            self.rotate(time_ns)
        if time_ns is not None:
            assert time_ns >= self.time_ns, "within a segment times don't go back"
            self.time_ns = time_ns


class Line(NamedTuple):
    """A line as a reader must show it."""

    stream: int
    position: int
    time_ns: int
    data: bytes


def lines_of(items: list) -> list[Line]:
    """Return the lines of runs and gaps, one by one; a gap is a line with the reason as its text."""
    lines = []
    for item in items:
        if not hasattr(item, "data"):
            lines.append(Line(item.stream, item.position, 0, f"<{item.reason} {item.length}>".encode()))
            continue
        position = item.position
        for line in _split(item.data):
            lines.append(Line(item.stream, position, item.time_ns, line))
            position += len(line)
    return lines


def _split(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def read_all(reader) -> list:
    """Read what there is now."""
    items = []
    while more := reader.read():
        items += more
    return items
