"""What a reader must give out, worked out line by line from the list of events, with no thought of speed."""

from dataclasses import dataclass, field

from store_builder import Line, StoreBuilder

from logd.logstore.reader import Selection
from logd.logstore.segment import Kind
from logd.record import STDERR, STDOUT


@dataclass
class Event:
    """An index entry, or the begin of a segment (which no selection sees)."""

    kind: str  # write, gap, begin, end
    time_ns: int
    stream: int = 0
    data: bytes = b""
    length: int = 0


@dataclass
class _Logical:
    stream: int
    position: int
    first: int  # the event with its first byte
    time_ns: int
    data: bytes
    last: int | None = None  # the event that ended it


@dataclass
class Model:
    events: list[Event] = field(default_factory=list)

    def build(self, builder: StoreBuilder, operations: list[tuple]) -> None:
        """Carry out random operations on a store and note them here."""
        for operation, *arguments in operations:
            if operation == "write":
                stream, data, step = arguments
                builder.write(stream, data, builder.time_ns + step)
                self.events.append(Event("write", builder.time_ns, stream, data))
            elif operation == "rotate":
                builder.rotate(max(0, builder.time_ns + arguments[0]))
            elif operation == "gap":
                stream, length = arguments
                builder.gap(stream, length)
                self.events.append(Event("gap", builder.time_ns, stream, length=length))
            else:
                builder.mark(Kind.BEGIN if operation == "begin" else Kind.END, 1)
                self.events.append(Event(operation, builder.time_ns))

    def expected(self, selection: Selection, *, finish: bool, gaps: bool = True) -> list[Line]:
        """Return the lines, and the gaps as lines with their reason, in order."""
        begin = 0
        if selection.since_ns is not None:
            begin = next((at for at, event in enumerate(self.events) if event.time_ns >= selection.since_ns), -1)
            if begin < 0:
                return []
        end = len(self.events)
        if selection.until_ns is not None:
            later = (at for at in range(begin, end) if self.events[at].time_ns > selection.until_ns)
            end = next(later, end)
        lines, open_lines = self._lines(selection)
        chosen = [line for line in lines if begin <= line.first < end]
        if selection.tail is not None:
            chosen = chosen[-selection.tail :] if selection.tail else []
            left_open = [line for line in open_lines if line.first < end and line.first >= begin]
        else:
            left_open = [line for line in open_lines if begin <= line.first < end]
        found = [(line.last, 1, Line(line.stream, line.position, line.time_ns, line.data)) for line in chosen]
        if gaps:
            found += [gap for gap in self._gaps(selection) if begin <= gap[0] < end]
        found.sort(key=lambda item: item[:2])
        result = [line for _, _, line in found]
        if finish:
            result += [
                Line(line.stream, line.position, line.time_ns, line.data)
                for line in sorted(left_open, key=lambda line: line.stream)
            ]
        return result

    def _lines(self, selection: Selection) -> tuple[list[_Logical], list[_Logical]]:
        done: list[_Logical] = []
        unfinished: dict[int, _Logical] = {}
        at = {STDOUT: 0, STDERR: 0}
        for number, event in enumerate(self.events):
            if event.kind == "write":
                for byte in event.data:
                    line = unfinished.get(event.stream)
                    if line is None:
                        line = _Logical(event.stream, at[event.stream], number, event.time_ns, b"")
                        unfinished[event.stream] = line
                    line.data += bytes([byte])
                    at[event.stream] += 1
                    if byte == 10:
                        line.last = number
                        done.append(unfinished.pop(event.stream))
            else:
                ended = [event.stream] if event.kind == "gap" else [STDOUT, STDERR]
                for stream in ended:
                    if stream in unfinished:
                        unfinished[stream].last = number
                        done.append(unfinished.pop(stream))
                if event.kind == "gap":
                    at[event.stream] += event.length
        wanted = selection.streams
        return [line for line in done if line.stream in wanted], [
            line for line in unfinished.values() if line.stream in wanted
        ]

    def _gaps(self, selection: Selection) -> list[tuple[int, int, Line]]:
        gaps = []
        at = {STDOUT: 0, STDERR: 0}
        for number, event in enumerate(self.events):
            if event.kind == "write":
                at[event.stream] += len(event.data)
            elif event.kind == "gap":
                if event.stream in selection.streams:
                    text = f"<no-space {event.length}>".encode()
                    gaps.append((number, 2, Line(event.stream, at[event.stream], 0, text)))
                at[event.stream] += event.length
        return gaps
