"""Lines as Docker's log plugins read them: frames of a length and a protobuf message.

Source: moby daemon/logger/internal/logdriver/entry.proto (the message) and io.go (four bytes of length, big-endian);
https://protobuf.dev/programming-guides/encoding/. What has its default value is left out.

    LogEntry { string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4;
               PartialLogEntryMetadata partial_log_metadata = 5 { bool last = 1; string id = 2; int32 ordinal = 3; } }
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

from logd.batch import Group, Partial
from logd.record import STDERR, STDOUT

PART_BYTES: Final = 16 << 10
"""Docker hands out longer lines in parts. Plugins rely on it: many give up at a message of 1,000,000 bytes."""
SOURCES: Final = {STDOUT: b"stdout", STDERR: b"stderr"}
VARINT: Final = 0
LENGTH_DELIMITED: Final = 2


def varint(number: int) -> bytes:
    """Return a number that is not negative, seven bits a byte, the low ones first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def number_field(field: int, value: int) -> bytes:
    """Return a field that is a number or a bool."""
    return bytes((field << 3 | VARINT,)) + varint(value) if value else b""


def bytes_field(field: int, value: bytes) -> bytes:
    """Return a field that is bytes, text or a message; one that is empty too."""
    return bytes((field << 3 | LENGTH_DELIMITED,)) + varint(len(value)) + value


def partial_fields(partial: Partial) -> bytes:
    """Return what tells of a part of a line: all of them are `partial`, the last one too, as with Docker."""
    metadata = number_field(1, partial.last) + bytes_field(2, partial.id.encode()) + number_field(3, partial.ordinal)
    return number_field(4, 1) + bytes_field(5, metadata)


class Heads(dict[int, bytes]):
    """What stands before a line, by the line's length: the frame's length, the fields, the line's tag and length."""

    def __init__(self, fields: bytes, after: bytes = b"") -> None:
        super().__init__()
        self._fields = fields
        self._after = len(after)

    def __missing__(self, length: int) -> bytes:
        fields = self._fields + (bytes_field(3, b"")[:1] + varint(length) if length else b"")
        head = self[length] = (len(fields) + length + self._after).to_bytes(4, "big") + fields
        return head


def frames(container_id: str, groups: Iterable[Group]) -> Iterator[bytes]:
    """Give for each record its frame, or its frames in one, where a line processor has made a line that is too long."""
    for group in groups:
        fields = bytes_field(1, SOURCES[group.stream]) + number_field(2, group.time_ns)
        if group.partial is not None:
            after = partial_fields(group.partial)
            (line,) = group.lines
            yield Heads(fields, after)[len(line)] + line + after
            continue
        heads = Heads(fields)
        at = group.position
        for line in group.lines:
            if len(line) <= PART_BYTES:
                yield heads[len(line)] + line
            else:
                yield b"".join(_parts(fields, f"{container_id}:{group.stream}:{at}", line))
            at += len(line) + 1


def _parts(fields: bytes, name: str, line: bytes) -> Iterator[bytes]:
    """Give a line that is too long in parts. `name` is the same whenever the line is sent again."""
    identifier = sha256(name.encode()).hexdigest()
    for ordinal, begin in enumerate(range(0, len(line), PART_BYTES), 1):
        part = line[begin : begin + PART_BYTES]
        after = partial_fields(Partial(identifier, ordinal, last=begin + PART_BYTES >= len(line)))
        yield Heads(fields, after)[len(part)] + part + after
