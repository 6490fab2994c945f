"""Docker's events for Splunk's HTTP Event Collector, and a batch cut into the bodies of requests. No I/O.

    {"event": {"line": …, "source": "stdout", "tag": …, "attrs": {…}}, "time": "1700000000.123457", "host": …,
     "source": …, "sourcetype": …, "index": …}

With the format `raw` the event is a string, `TAG NAME=VALUE … LINE`. A body is one such object after the other.

Source: moby daemon/logger/splunk/splunk.go; https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from logd.batch import Batch, ContainerInfo, Group, Partial
from logd.drivers import json_lines
from logd.record import STREAM_NAMES

INLINE: Final = "inline"
JSON: Final = "json"
RAW: Final = "raw"
FORMATS: Final = (INLINE, JSON, RAW)
_WHITESPACE: Final = (b" ", b"\t", b"\n", b"\r")
_BLANK: Final = b" \t\n\v\f\r"
NEWLINE: Final = b"\n"
"""Which is not in JSON without space between its tokens."""


Key = tuple[str, int, int, int, int]
"""What tells a request from all others: container, stream, position of its first line, number of records, hash."""


class Request(NamedTuple):
    """Events that are posted together."""

    key: Key
    body: bytes
    events: int
    begin: int
    """Which record of the batch is its first."""
    end: int
    left_out: tuple[int, ...]
    """The records that have no event, because the collector takes no blank ones."""

    def record(self, event: int) -> int:
        """Return which record of the batch an event of this request is."""
        record = self.begin + event
        for blank in self.left_out:
            if blank > record:
                break
            record += 1
        return record


class _Block(NamedTuple):
    """The events of some neighbouring lines of a group."""

    group: Group
    first: int
    """Which line of the group."""
    lines: int
    data: bytes
    left_out: tuple[int, ...]
    """Among these lines."""


@dataclass(frozen=True)
class Metadata:
    """What Splunk keeps with each event."""

    host: str
    source: str = ""
    sourcetype: str = ""
    index: str = ""


class EventFormat:
    """How the events of one container look."""

    def __init__(
        self, container: ContainerInfo, form: str, tag: str, attributes: Mapping[str, str], metadata: Metadata
    ) -> None:
        self._container_id = container.id
        self._format = form
        known = {"source": metadata.source, "sourcetype": metadata.sourcetype, "index": metadata.index}
        named = {"host": metadata.host} | {name: text for name, text in known.items() if text}
        self._tail = b"".join(b',"%b":%b' % (name.encode(), json_lines.string(text)) for name, text in named.items())
        attrs = b',"attrs":{%b}' % json_lines.pairs(attributes) if attributes else b""
        tagged = b',"tag":%b' % json_lines.string(tag) if tag else b""
        self._after_line = {
            stream: b',"source":"%b"%b%b' % (name.encode(), tagged, attrs) for stream, name in STREAM_NAMES.items()
        }
        prefix = "".join(f"{word} " for word in ([tag] if tag else []) + [f"{k}={v}" for k, v in attributes.items()])
        self._prefix = json_lines.string(prefix)[:-1]
        self._takes_blank = form != RAW or bool(prefix.strip())

    def requests(self, batch: Batch, begin: int, end: int, max_bytes: int) -> Iterator[Request]:
        """Cut the records from `begin` to before `end` into requests of up to `max_bytes`; a longer one is alone."""
        blocks: list[_Block] = []
        size = 0
        at = begin
        for block in self._blocks(batch, begin, end, max_bytes):
            if blocks and size + len(block.data) > max_bytes:
                request = self._request(blocks, at)
                yield request
                blocks, size, at = [], 0, request.end
            blocks.append(block)
            size += len(block.data)
        if blocks:
            yield self._request(blocks, at)

    def _request(self, blocks: list[_Block], begin: int) -> Request:
        first, count = blocks[0], 0
        left_out: list[int] = []
        for block in blocks:
            left_out += (begin + count + line for line in block.left_out)
            count += block.lines
        position = first.group.position + sum(map(len, first.group.lines[: first.first])) + first.first
        body = b"".join(block.data for block in blocks)
        return Request(
            (self._container_id, first.group.stream, position, count, hash(body)),
            body,
            count - len(left_out),
            begin,
            begin + count,
            tuple(left_out),
        )

    def _blocks(self, batch: Batch, begin: int, end: int, max_bytes: int) -> Iterator[_Block]:
        before = 0
        for group in batch.groups:
            count = len(group.lines)
            first, last = max(0, begin - before), min(count, end - before)
            before += count
            if first >= last:
                continue
            line_bytes = len(self._tail) + len(self._after_line[group.stream]) + (group.end - group.position) // count
            step = max(1, max_bytes // (line_bytes or 1))
            for at in range(first, last, step):
                yield from self._halved(group, at, min(at + step, last), max_bytes)

    def _halved(self, group: Group, first: int, last: int, max_bytes: int) -> Iterator[_Block]:
        """Give the lines in one block, in more if escapes have made it too large."""
        block = self._block(group, first, last)
        if len(block.data) <= max_bytes or last - first == 1:
            yield block
            return
        middle = (first + last) // 2
        yield from self._halved(group, first, middle, max_bytes)
        yield from self._halved(group, middle, last, max_bytes)

    def _block(self, group: Group, first: int, last: int) -> _Block:
        lines = group.lines[first:last]
        left_out: tuple[int, ...] = ()
        if not self._takes_blank:
            left_out = tuple(number for number, line in enumerate(lines) if not line.strip(_BLANK))
        if left_out:
            blank = set(left_out)
            lines = [line for number, line in enumerate(lines) if number not in blank]
        data = b""
        if self._format == RAW:
            data = self._raw(group, lines)
        elif group.fields is not None:
            data = b"".join(
                self._events(group, [line], fields)
                for line, fields in zip(lines, group.fields[first:last], strict=True)
            )
        else:
            data = self._events(group, lines, None)
        return _Block(group, first, last - first, data, left_out)

    def _raw(self, group: Group, lines: list[bytes]) -> bytes:
        if not lines:
            return b""
        head = b'{"event":%b' % self._prefix
        partial = b',"fields":{%b}' % json_lines.pairs(partial_fields(group.partial)) if group.partial else b""
        end = b'","time":"%b"%b%b}' % (stamp(group.time_ns), self._tail, partial)
        return head + json_lines.inside(lines, end + head) + end

    def _events(self, group: Group, lines: list[bytes], fields: dict[str, Any] | None) -> bytes:
        more = b',"fields":{%b}' % json_lines.pairs(fields) if fields else b""
        if group.partial:
            more += b"," + json_lines.pairs(partial_fields(group.partial))
        end = b'%b%b},"time":"%b"%b}' % (self._after_line[group.stream], more, stamp(group.time_ns), self._tail)
        if self._format == JSON:
            return b"".join([b'{"event":{"line":%b%b' % (one, end) for one in documents(lines)])
        return b'{"event":{"line":"%b"%b' % (json_lines.inside(lines, b'"%b{"event":{"line":"' % end), end)


def documents(lines: list[bytes]) -> list[bytes]:
    """Return lines that are JSON as they are, without the space between their tokens; others as strings."""
    texts = json_lines.inside(lines, NEWLINE).split(NEWLINE) if lines else []
    return [
        (msgspec.json.format(line, indent=-1) if any(one in line for one in _WHITESPACE) else line)
        if json_lines.is_document(line)
        else b'"%b"' % text
        for line, text in zip(lines, texts, strict=True)
    ]


def partial_fields(partial: Partial) -> dict[str, str]:
    """Return what tells of a part of an over-long line, in the words of Docker's fluentd driver."""
    return {
        "partial_message": "true",
        "partial_id": partial.id,
        "partial_ordinal": str(partial.ordinal),
        "partial_last": "true" if partial.last else "false",
    }


def stamp(time_ns: int) -> bytes:
    """Return a time as Docker writes it: seconds with six decimals, of a number with 53 bits."""
    return b"%.6f" % (time_ns / 1e9)
