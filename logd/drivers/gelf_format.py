"""GELF messages with Docker's fields, and the datagrams that carry them. No I/O.

    {"version": "1.1", "host": …, "short_message": LINE, "timestamp": 1700000000.123, "level": 6, "_command": …,
     "_container_id": …, "_container_name": …, "_created": …, "_image_id": …, "_image_name": …, "_tag": …, "_…": …}

Sources: GELF Payload Specification 1.1 and "GELF via UDP" (chunks) in Graylog's manual; moby daemon/logger/gelf and
go-gelf for fields, their order and the size of chunks.
"""

import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from logd.batch import ContainerInfo, Group, Partial
from logd.drivers import json_lines
from logd.drivers.unacknowledged import TooLargeError
from logd.record import STDERR
from logd.units import format_time_short

SEVERITY_STDERR: Final = 3
SEVERITY_STDOUT: Final = 6
OWN: Final = ("command", "container_id", "container_name", "created", "image_id", "image_name", "tag")
PARTIAL: Final = ("partial_id", "partial_last", "partial_message", "partial_ordinal")
RESERVED: Final = frozenset(f"_{name}" for name in (*OWN, *PARTIAL, "id"))
"""`_id` the specification forbids."""
END: Final = b"\0"
"""Of a message in a stream."""

GZIP: Final = "gzip"
ZLIB: Final = "zlib"
NONE: Final = "none"
_WINDOW: Final = {GZIP: 31, ZLIB: 15}
"""zlib's wbits."""
CHUNK_BYTES: Final = 1420
"""Docker's; with the headers of IP and UDP it fits Ethernet."""
CHUNK_MAGIC: Final = b"\x1e\x0f"
CHUNK_HEADER_BYTES: Final = 12
MOST_CHUNKS: Final = 128
LINES_AT_A_TIME: Final = 1024
BLOCK_BYTES: Final = 1 << 18


class MessageFormat:
    """How the messages of one container look. An empty line is none: the specification wants something in it."""

    def __init__(self, container: ContainerInfo, host: str, tag: str, attributes: Mapping[str, str]) -> None:
        own = {
            "_command": " ".join((container.entrypoint, *container.args)),
            "_container_id": container.id,
            "_container_name": container.name,
            "_created": format_time_short(container.created_ns),
            "_image_id": container.image_id,
            "_image_name": container.image_name,
            "_tag": tag,
        }
        self._extras = additional(attributes) | own
        self._extra_pairs = json_lines.pairs(self._extras)
        self._head = b'{"version":"1.1","host":%b,"short_message":"' % json_lines.string(host)

    def blocks(self, groups: Iterable[Group]) -> Iterator[bytes]:
        """Give the messages for a stream, many at a time."""
        parts: list[bytes] = []
        size = 0
        for group in groups:
            for at in range(0, len(group.lines), LINES_AT_A_TIME):
                parts.append(self._block(group, at))
                size += len(parts[-1])
                if size > BLOCK_BYTES:
                    yield b"".join(parts)
                    parts, size = [], 0
        if size:
            yield b"".join(parts)

    def messages(self, group: Group) -> Iterator[bytes]:
        """Give the message of each line, empty for an empty line."""
        end = self._end(group, None)
        for number, line in enumerate(group.lines):
            if group.fields and group.fields[number]:
                end = self._end(group, group.fields[number])
            elif group.fields:
                end = self._end(group, None)
            yield b"%b%b%b" % (self._head, json_lines.inside([line]), end) if line else b""

    def _block(self, group: Group, at: int) -> bytes:
        lines = group.lines[at : at + LINES_AT_A_TIME]
        if group.fields is not None:
            part = group._replace(lines=lines, fields=group.fields[at : at + LINES_AT_A_TIME])
            return b"".join([one + END for one in self.messages(part) if one])
        if not all(lines):
            lines = [line for line in lines if line]
        if not lines:
            return b""
        end = self._end(group, None) + END
        return self._head + json_lines.inside(lines, end + self._head) + end

    def _end(self, group: Group, fields: dict[str, Any] | None) -> bytes:
        """Return what follows the text of a line."""
        extras = self._extra_pairs
        if fields:
            extras = json_lines.pairs(additional(fields) | self._extras)
        if group.partial:
            extras += b"," + json_lines.pairs(partial_fields(group.partial))
        severity = SEVERITY_STDERR if group.stream == STDERR else SEVERITY_STDOUT
        return b'","timestamp":%b,"level":%d,%b}' % (timestamp(group.time_ns), severity, extras)


def additional(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as additional fields: an underscore before the name, and nothing but texts and numbers.

    What has a name that is reserved is left out, and null.
    """
    named = {name if name.startswith("_") else f"_{name}": value for name, value in values.items() if name}
    return {
        name: _text_or_number(value)
        for name, value in named.items()
        if name not in RESERVED and name != "_" and value is not None
    }


def _text_or_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return json_lines.value(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def partial_fields(partial: Partial) -> dict[str, str | int]:
    """Return what tells of a part of an over-long line."""
    return {
        "_partial_message": "true",
        "_partial_id": partial.id,
        "_partial_ordinal": partial.ordinal,
        "_partial_last": "true" if partial.last else "false",
    }


def timestamp(time_ns: int) -> bytes:
    """Return seconds with milliseconds, as short as Go writes them."""
    return repr(time_ns // 1_000_000 / 1000).removesuffix(".0").encode()


@dataclass(frozen=True)
class Packing:
    """How a message becomes datagrams."""

    compression: str
    """GZIP, ZLIB or NONE."""
    level: int
    """-1 to 9, as zlib has them."""

    def datagrams(self, message: bytes) -> list[bytes]:
        """Return the one datagram of a message, or its chunks. Raises TooLargeError if that were more than 128."""
        if self.compression != NONE:
            message = zlib.compress(message, self.level, _WINDOW[self.compression])
        return [message] if len(message) <= CHUNK_BYTES else chunks(message)


def chunks(message: bytes) -> list[bytes]:
    """Cut: magic, a name of eight random bytes, number of the chunk, count of them, data."""
    room = CHUNK_BYTES - CHUNK_HEADER_BYTES
    count = -(-len(message) // room)
    if count > MOST_CHUNKS:
        raise TooLargeError(f"msg too large, would need {count} chunks ({MOST_CHUNKS} are the most)")
    name = os.urandom(8)
    return [
        b"%b%b%c%c%b" % (CHUNK_MAGIC, name, number, count, message[number * room : (number + 1) * room])
        for number in range(count)
    ]
