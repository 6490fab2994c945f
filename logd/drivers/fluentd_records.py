"""Docker's fluentd record, and a batch cut into chunks of such records.

    {container_id, container_name, source, extras (labels, env), what a line processor read out of the line,
     partial_message, partial_id, partial_ordinal, partial_last (parts of an over-long line), log}

`log` comes last, so that the lines of a group differ at their end only. The first four, `log` and the partial ones are
Docker's own: neither a label nor a field of that name takes their place.

Source: moby daemon/logger/fluentd/fluentd.go (Log).
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from logd.batch import Batch, ContainerInfo, Group, Partial
from logd.drivers import forward_protocol as protocol
from logd.record import STREAM_NAMES

RESERVED: Final = frozenset(
    (
        "container_id",
        "container_name",
        "source",
        "log",
        "partial_message",
        "partial_id",
        "partial_ordinal",
        "partial_last",
    )
)
_ENTRY: Final = b"\x92"
"""An array of two: time and record."""
_LOG: Final = protocol.pack("log")
_OWN_PAIRS: Final = 4  # container_id, container_name, source, log
_LINE_OVERHEAD: Final = 5
"""At most so many bytes say how long a line is."""


class Chunk(NamedTuple):
    """Records that are sent, and acknowledged, together."""

    id: str
    """The same whenever the same records are sent, so that a receiver can tell what it has already."""
    entries: bytes
    size: int
    end: int
    """How many records of the batch are sent with it and those before."""


class RecordFormat:
    """How the records of one container look."""

    def __init__(self, container: ContainerInfo, extras: dict[str, str], *, sub_second: bool) -> None:
        self._container_id = container.id
        self._sub_second = sub_second
        self._extras = _not_reserved(extras)
        self._own = {
            stream: protocol.map_pairs(
                {"container_id": container.id, "container_name": f"/{container.name}", "source": source}
            )
            for stream, source in STREAM_NAMES.items()
        }
        self._plain = {
            stream: b"".join(
                (protocol.map_header(_OWN_PAIRS + len(self._extras)), own, protocol.map_pairs(self._extras), _LOG)
            )
            for stream, own in self._own.items()
        }
        longest_time = len(protocol.event_time(0, sub_second=True))
        self._overhead = len(_ENTRY) + longest_time + max(map(len, self._plain.values())) + _LINE_OVERHEAD

    def entries(self, group: Group, lines: list[bytes], first: int = 0) -> list[bytes]:
        """Return the parts, to be joined, of the entries for `lines`, which are the group's from its `first` on."""
        head = _ENTRY + protocol.event_time(group.time_ns, sub_second=self._sub_second)
        if group.partial is None and group.fields is None:
            return protocol.entries(head + self._plain[group.stream], lines)
        partial = {} if group.partial is None else partial_pairs(group.partial)
        fields: list[dict[str, Any] | None] = group.fields[first:] if group.fields else [None] * len(lines)
        parts = []
        for line, named in zip(lines, fields, strict=False):
            more = self._extras | _not_reserved(named or {}) | partial
            try:
                pairs = protocol.map_pairs(more)
            except protocol.PACK_ERRORS:  # numbers of more than 64 bits, very deep nesting; `log` has them
                more = {name: value for name, value in more.items() if _can_be_packed(value)}
                pairs = protocol.map_pairs(more)
            prefix = b"".join((head, protocol.map_header(_OWN_PAIRS + len(more)), self._own[group.stream], pairs, _LOG))
            parts += protocol.entries(prefix, [line])
        return parts

    def chunks(self, batch: Batch, max_bytes: int) -> Iterator[Chunk]:
        """Cut what is not acknowledged into chunks of about `max_bytes` each; a longer record is one by itself."""
        parts: list[bytes] = []
        size = room = 0
        identity, end = "", batch.acknowledged
        for group, first, lines, cost in self._slices(batch, max_bytes):
            if parts and cost > room:
                yield _chunk(identity, parts, size, end)
                parts = []
            if not parts:
                position = group.position + sum(map(len, group.lines[:first])) + first
                identity, size, room = f"{self._container_id}:{group.stream}:{position}", 0, max_bytes
            parts += self.entries(group, lines, first)
            size += len(lines)
            end += len(lines)
            room -= cost
        if parts:
            yield _chunk(identity, parts, size, end)

    def _slices(self, batch: Batch, max_bytes: int) -> Iterator[tuple[Group, int, list[bytes], int]]:
        """Give the lines that are not acknowledged, in slices that take about `max_bytes` at most.

        Each with its group, its place in it, and about how many bytes it takes.
        """
        skip = batch.acknowledged
        for group in batch.groups:
            count = len(group.lines)
            if skip >= count:
                skip -= count
                continue
            cost = self._overhead + (group.end - group.position) // count  # of one line, on average
            step = max(1, max_bytes // cost)
            for first in range(skip, count, step):
                lines = group.lines if not first and step >= count else group.lines[first : first + step]
                yield group, first, lines, cost * len(lines)
            skip = 0


def partial_pairs(partial: Partial) -> dict[str, str]:
    """Return what Docker adds to a part of an over-long line; all of it is text."""
    return {
        "partial_message": "true",
        "partial_id": partial.id,
        "partial_ordinal": str(partial.ordinal),
        "partial_last": "true" if partial.last else "false",
    }


def _chunk(identity: str, parts: list[bytes], size: int, end: int) -> Chunk:
    entries = b"".join(parts)
    # Where it begins alone would not do: what is sent again may go further by then.
    return Chunk(protocol.chunk_id(f"{identity}:{size}:{len(entries)}"), entries, size, end)


def _not_reserved(values: dict[str, Any]) -> dict[str, Any]:
    if RESERVED.isdisjoint(values):
        return values
    return {name: value for name, value in values.items() if name not in RESERVED}


def _can_be_packed(value: Any) -> bool:
    try:
        protocol.pack(value)
    except protocol.PACK_ERRORS:
        return False
    return True
