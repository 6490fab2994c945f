"""Join lines to one record: the log-opts `multiline-start`, a pattern of first lines, and `multiline`, stack traces.

The record has its lines with newlines between, the time of the first, and the place of all of them. It ends with the
next one's beginning, when it would be larger than `multiline-max-size`, or when the stream's next line arrives, or
fails to arrive, more than `multiline-flush` after its last one: by the times at which lines arrived, so that a backlog
is joined as it would have been at once. Each stream is joined on its own. Parts of over-long lines go on as they are.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field)

from abc import abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, NamedTuple

from logd import units
from logd.batch import ContainerInfo, exec_of
from logd.driver import duration
from logd.hookspecs import hookimpl
from logd.pattern import LinePattern, parse_line_pattern
from logd.processor import Group, Item, Processor, ProcessorFactory, opt, part, positions
from logd.processors.stacktraces import BEFORE, NAMES, Machine, States, may_end
from logd.units import NS

FLUSH_S: Final = 1.0
MAX_BYTES: Final = 1 << 20


def parse_presets(text: str) -> tuple[str, ...]:
    """Parse names of presets, with commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in NAMES:
            raise ValueError(f"{name!r} (known: {', '.join(NAMES)})")
    return names


def parse_flush(text: str) -> float:
    """Parse how long lines are held back: a duration above 0."""
    seconds = duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r}: without any time no lines can be joined")
    return seconds


def parse_max_size(text: str) -> int:
    """Parse a record's largest size."""
    size = units.parse_size(text)
    if size < 1:
        raise ValueError(f"{text!r}: at least 1 byte")
    return size


@dataclass(frozen=True, kw_only=True)
class MultilineOptions:
    """What is joined."""

    multiline_start: LinePattern | None = opt(
        parse_line_pattern, default=None, help="a line in which it is found begins a record, others go on with it"
    )
    multiline: tuple[str, ...] = opt(parse_presets, default=(), help="join stack traces: python, java, go, node")
    multiline_flush: float = opt(parse_flush, default=FLUSH_S, help="how long a record waits for its next line")
    multiline_max_size: int = opt(parse_max_size, default=MAX_BYTES, help="records are not joined beyond this size")

    def __post_init__(self) -> None:
        if self.multiline and self.multiline_start:
            raise ValueError("multiline and multiline-start can't be used together")


class Held(NamedTuple):
    """A line that may have to be joined with later ones."""

    time_ns: int
    position: int
    end: int
    line: bytes


class Multiline(Processor):
    """What both ways of joining have in common: holding lines, letting go of them."""

    def __init__(self, options: MultilineOptions) -> None:
        self.flush_after_s = options.multiline_flush
        self._flush_ns = int(options.multiline_flush * NS)
        self._max_bytes = options.multiline_max_size
        self._held: dict[int, list[Held]] = {}
        self._sizes: dict[int, int] = {}

    @property
    def held(self) -> dict[int, int]:
        """Where the held lines of each stream begin."""
        return {stream: lines[0].position for stream, lines in self._held.items()}

    def feed(self, items: list[Item]) -> list[Item]:
        """Return the items, lines joined; the last record of a stream may be held back."""
        out: list[Item] = []
        for item in items:
            if type(item) is not Group:
                self._let_go(item.stream, out)
                out.append(item)
                continue
            for stream, held in [*self._held.items()]:
                if item.time_ns - held[-1].time_ns > self._flush_ns:
                    self._let_go(stream, out)
            if item.partial or exec_of(item):
                self._let_go(item.stream, out)
                out.append(item)
            else:
                self._take(item, out)
        return out

    def flush(self) -> list[Item]:
        """Return what is held back."""
        out: list[Item] = []
        for stream in sorted(self._held):
            self._let_go(stream, out)
        return out

    @abstractmethod
    def _take(self, group: Group, out: list[Item]) -> None:
        """Join a group's lines."""

    @abstractmethod
    def _let_go(self, stream: int, out: list[Item]) -> None:
        """Give out what is held of a stream: nothing will be joined with it any more."""

    def _hold(self, stream: int, line: Held, out: list[Item]) -> None:
        """Add a line to what is held, or begin with it anew where that would be too large."""
        size = self._sizes.get(stream, 0) + len(line.line) + 1
        if stream in self._held and size > self._max_bytes + 1:
            self._give(stream, self._drop(stream), out)
            size = len(line.line) + 1
        self._held.setdefault(stream, []).append(line)
        self._sizes[stream] = size

    def _drop(self, stream: int) -> list[Held]:
        """Hold nothing of a stream any more; return what was held."""
        self._sizes.pop(stream, None)
        return self._held.pop(stream, [])

    @staticmethod
    def _give(stream: int, lines: list[Held], out: list[Item]) -> None:
        """Give out lines as one record."""
        if lines:
            joined = b"\n".join([one.line for one in lines])
            out.append(Group(lines[0].time_ns, stream, lines[0].position, lines[-1].end, [joined]))


class StartJoiner(Multiline):
    """Joins each line in which a pattern is found with those after it in which it is not."""

    def __init__(self, options: MultilineOptions, start: LinePattern) -> None:
        super().__init__(options)
        self._start = start

    def _take(self, group: Group, out: list[Item]) -> None:
        begins = positions(group)
        starts = self._start.lines_with(group.lines)
        count, number, place = len(group.lines), 0, 0
        while number < count:
            if place < len(starts) and starts[place] == number:
                self._let_go(group.stream, out)
                first = number
                while place + 1 < len(starts) and starts[place + 1] == number + 1:
                    place, number = place + 1, number + 1  # the line before it is a record of its own
                if number > first:
                    out.append(part(group, begins, first, number))
                place += 1
            line = Held(group.time_ns, begins[number], begins[number + 1], group.lines[number])
            self._hold(group.stream, line, out)
            number += 1

    def _let_go(self, stream: int, out: list[Item]) -> None:
        self._give(stream, self._drop(stream), out)


class TraceJoiner(Multiline):
    """Joins the lines of stack traces; all others go on at once."""

    def __init__(self, options: MultilineOptions) -> None:
        super().__init__(options)
        self._machine = Machine(options.multiline)
        self._states: dict[int, States] = {}
        self._sure: dict[int, int] = {}
        """How many of a stream's held lines are the trace's, whatever follows; the first always is."""

    def _take(self, group: Group, out: list[Item]) -> None:
        begins = positions(group)
        starts = self._machine.begin.lines_with(group.lines)
        number, count = 0, len(group.lines)
        while number < count:
            if group.stream not in self._held:
                place = bisect_left(starts, number)
                begin = starts[place] if place < len(starts) else count
                if begin > number:
                    out.append(part(group, begins, number, begin))
                    number = begin
                    continue
            self._line(group.stream, Held(group.time_ns, begins[number], begins[number + 1], group.lines[number]), out)
            number += 1

    def _line(self, stream: int, line: Held, out: list[Item]) -> None:
        """Take one line: of the trace that is held, of a new one, or of none."""
        states = self._machine.step(self._states.get(stream, BEFORE), line.line)
        if not states and stream in self._held:
            self._end_trace(stream, out)
            self._line(stream, line, out)
            return
        if not states:
            self._give(stream, [line], out)
            return
        self._hold(stream, line, out)
        self._states[stream] = states
        if may_end(states) or len(self._held[stream]) == 1:
            self._sure[stream] = len(self._held[stream])
        if not self._machine.may_go_on(states):
            self._end_trace(stream, out)

    def _end_trace(self, stream: int, out: list[Item]) -> None:
        """Give out what is surely the trace; what was held after it may be the begin of another."""
        lines, sure = self._drop(stream), self._sure.pop(stream)
        del self._states[stream]
        self._give(stream, lines[:sure], out)
        for line in lines[sure:]:
            self._line(stream, line, out)

    def _let_go(self, stream: int, out: list[Item]) -> None:
        while stream in self._held:
            self._end_trace(stream, out)


class MultilineFactory(ProcessorFactory):
    """Makes them."""

    name = "multiline"
    options_type = MultilineOptions
    order = 10

    def make(self, options: MultilineOptions, container: ContainerInfo) -> Multiline | None:
        """Return one, if lines are to be joined."""
        if options.multiline_start:
            return StartJoiner(options, options.multiline_start)
        return TraceJoiner(options) if options.multiline else None


@hookimpl
def logd_line_processors() -> list[ProcessorFactory]:
    """The processors of this module."""
    return [MultilineFactory()]
