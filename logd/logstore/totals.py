"""What a store has lost or let go, in bytes for each stream: the file `totals`, two slots of 512 bytes in turn.

A slot is little-endian: magic "logdtot1", sequence u64, then for stdout and for stderr: end position u64, bytes
expired by retention u64, bytes cleared by a person u64, bytes dropped for each of 16 reasons u64 (the index is the
reason's code in segment.GAP_REASONS); then crc32 u32 of all before it. The slot with the higher sequence that is
intact counts. The file is written in place, never grown, so that it can be written on a full disk.
"""

import os
import struct
from binascii import crc32
from typing import Final

from logd.record import STDERR, STDOUT

NAME: Final = "totals"
MAGIC: Final = b"logdtot1"
SLOT_BYTES: Final = 512
REASONS: Final = 16
_BODY: Final = struct.Struct("<8sQ" + 2 * f"3Q{REASONS}Q")


class StreamTotals:
    """The counts of one stream, in bytes."""

    __slots__ = ("cleared", "dropped", "end", "expired")

    def __init__(self, end: int = 0, expired: int = 0, cleared: int = 0, dropped: list[int] | None = None) -> None:
        self.end = end
        """The position after the last byte that was captured or dropped, as of the last save."""
        self.expired = expired
        self.cleared = cleared
        self.dropped = dropped or [0] * REASONS
        """By reason code."""


class Totals:
    """The counts of a store; `streams[STDOUT]` and `streams[STDERR]`."""

    __slots__ = ("sequence", "streams")

    def __init__(self) -> None:
        self.sequence = 0
        self.streams = {STDOUT: StreamTotals(), STDERR: StreamTotals()}

    def pack(self) -> bytes:
        """Return the slot's bytes, padded."""
        numbers: list[int] = []
        for stream in (STDOUT, STDERR):
            one = self.streams[stream]
            numbers += [one.end, one.expired, one.cleared, *one.dropped]
        body = _BODY.pack(MAGIC, self.sequence, *numbers)
        return (body + crc32(body).to_bytes(4, "little")).ljust(SLOT_BYTES, b"\0")


def unpack_totals(raw: bytes) -> Totals | None:
    """Return the counts in the newer intact slot of the two in `raw`; None if there is none."""
    slots = [one for one in (_unpack(raw[:SLOT_BYTES]), _unpack(raw[SLOT_BYTES:])) if one]
    return max(slots, key=lambda one: one.sequence, default=None)


def _unpack(raw: bytes) -> Totals | None:
    body, checksum = raw[: _BODY.size], raw[_BODY.size : _BODY.size + 4]
    if len(raw) < SLOT_BYTES or int.from_bytes(checksum, "little") != crc32(body) or body[:8] != MAGIC:
        return None
    totals = Totals()
    _, totals.sequence, *numbers = _BODY.unpack(body)
    width = 3 + REASONS
    for stream, at in ((STDOUT, 0), (STDERR, width)):
        end, expired, cleared, *dropped = numbers[at : at + width]
        totals.streams[stream] = StreamTotals(end, expired, cleared, dropped)
    return totals


def read_totals(folder: str) -> Totals:
    """Return the counts of the store in `folder`; zeros where there are none yet."""
    try:
        with open(os.path.join(folder, NAME), "rb") as file:
            return unpack_totals(file.read(2 * SLOT_BYTES)) or Totals()
    except FileNotFoundError:
        return Totals()


class TotalsFile:
    """The writer's hold on the file `totals`."""

    def __init__(self, folder: str, mode: int) -> None:
        self.totals = read_totals(folder)
        self._descriptor = os.open(os.path.join(folder, NAME), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, mode)
        if os.fstat(self._descriptor).st_size < 2 * SLOT_BYTES:
            os.pwrite(self._descriptor, bytes(2 * SLOT_BYTES), 0)
            self.save()

    def save(self) -> None:
        """Write the counts into the older slot. Needs no room on the disk; an error leaves the other slot."""
        self.totals.sequence += 1
        os.pwrite(self._descriptor, self.totals.pack(), self.totals.sequence % 2 * SLOT_BYTES)

    def close(self) -> None:
        """Close the file; nothing is saved by that."""
        os.close(self._descriptor)
