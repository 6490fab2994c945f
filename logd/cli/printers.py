"""Events of log streams → bytes on the two outputs: exact, with prefixes, or as JSON.

In a pipe one container's bytes come out as the container wrote them, its stdout on stdout and its stderr on stderr.
Nothing is buffered here: what has been received has been written.
"""

import os
import select
from collections.abc import Sequence
from typing import Final, Protocol

from logd.cli import terminal
from logd.cli.frames import Event, Failure
from logd.cli.streams import LogStream, positions_after
from logd.record import STDERR, STDOUT, STREAM_NAMES, Gap, Run

STDOUT_FD: Final = 1
STDERR_FD: Final = 2


class Printer(Protocol):
    """What shows events. `failed` is set by one that means that the log is not all there."""

    failed: bool

    def show(self, stream: LogStream, events: Sequence[Event]) -> None:
        """Write the events of one stream, in their order."""

    def finish(self) -> None:
        """Leave the terminal as it was found."""


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, to a descriptor that may be in non-blocking mode too (ssh makes terminals so)."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Notices:
    """What `logs` itself says on stderr about a log: gaps and failures."""

    def __init__(self) -> None:
        self.failed = False
        self._colour = terminal.wants_colour("auto", STDERR_FD)

    def show(self, stream: LogStream, event: Gap | Failure) -> None:
        """Write one line."""
        if isinstance(event, Failure):
            self.failed = True
            self.line(f"{stream.container.name}: {event.text}")
            return
        amount = f"{event.length} bytes" if event.length else "an unknown number of bytes"
        source = STREAM_NAMES.get(event.stream, "output")
        self.line(f"{stream.container.name}: {amount} of {source} missing here: {event.reason}")

    def line(self, text: str) -> None:
        """Write `text`, marked as ours."""
        data = f"logs: {terminal.visible(text)}".encode()
        write_all(STDERR_FD, terminal.GAP_COLOUR + data + terminal.RESET + b"\n" if self._colour else data + b"\n")


class ExactPrinter:
    """One container without prefixes: its very bytes, but for what a terminal would obey."""

    def __init__(self, notices: Notices, *, raw: bool) -> None:
        self.failed = False
        self._notices = notices
        self._guard = {fd: not raw and terminal.is_terminal(fd) for fd in (STDOUT_FD, STDERR_FD)}
        self._coloured: set[int] = set()

    def show(self, stream: LogStream, events: Sequence[Event]) -> None:
        """Write the events; runs of one stream that follow each other go out in one write."""
        pieces: list[bytes] = []
        target = STDOUT
        for event in events:
            if isinstance(event, Run):
                if event.stream != target:
                    self._write(target, pieces)
                    pieces, target = [], event.stream
                pieces.append(event.data)
            elif isinstance(event, (Gap, Failure)):
                self._write(target, pieces)
                pieces = []
                self._notices.show(stream, event)
        self._write(target, pieces)
        self.failed = self._notices.failed

    def finish(self) -> None:
        """Reset colours that the container left on."""
        for descriptor in self._coloured:
            write_all(descriptor, terminal.RESET)

    def _write(self, stream: int, pieces: list[bytes]) -> None:
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._guard[stream]:  # the numbers of the streams are those of the descriptors
            data = terminal.neutralise(data)
            if terminal.has_colour(data):
                self._coloured.add(stream)
        write_all(stream, data)


class PrefixPrinter:
    """Lines with a prefix: the container's name, the time, or both."""

    def __init__(
        self,
        notices: Notices,
        names: Sequence[str] | None,
        *,
        timestamps: bool,
        raw: bool,
        colour: str = "auto",
    ) -> None:
        """`names` are those to be told apart, others may come; None for one container, whose lines carry no name."""
        self.failed = False
        self._notices = notices
        self._timestamps = timestamps
        self._terminal = {fd: terminal.is_terminal(fd) for fd in (STDOUT_FD, STDERR_FD)}
        self._raw = raw
        self._one_place = all(self._terminal.values())  # stdout and stderr are seen in one place
        self._open: dict[int, tuple[LogStream, int]] = {}  # descriptor → whose line is not ended there
        self._tags: dict[tuple[int, str], bytes] = {}
        self._colour = {fd: terminal.wants_colour(colour, fd) for fd in self._terminal}
        self._named = names is not None
        self._width = max(map(len, names or ()), default=0)
        self._numbers = {name: index for index, name in enumerate(names or ())}  # → the colour

    def show(self, stream: LogStream, events: Sequence[Event]) -> None:
        """Write the events, line by line where they must be."""
        for event in events:
            if isinstance(event, Run):
                self._show_run(stream, event)
            elif isinstance(event, (Gap, Failure)):
                self._end_line(STDERR_FD)
                self._notices.show(stream, event)
        self.failed = self._notices.failed

    def finish(self) -> None:
        """Nothing is left on: colours are reset at each line's end."""

    def _show_run(self, stream: LogStream, run: Run) -> None:
        descriptor = run.stream
        data = run.data
        if self._terminal[descriptor] and not self._raw:
            data = terminal.neutralise(data)
        prefix = self._prefix(stream, run)
        whole = data.endswith(b"\n")
        body = data[:-1] if whole else data
        end = terminal.RESET if self._terminal[descriptor] and terminal.has_colour(body) else b""
        text = body.replace(b"\n", end + b"\n" + prefix) + end + (b"\n" if whole else b"")
        place = STDOUT_FD if self._one_place else descriptor
        if self._open.get(place) != (stream, run.stream):
            self._end_line(descriptor)
            text = prefix + text
        if whole:
            self._open.pop(place, None)
        else:
            self._open[place] = (stream, run.stream)
        write_all(descriptor, text)

    def _prefix(self, stream: LogStream, run: Run) -> bytes:
        tag = self._tag(run.stream, stream.container.name) if self._named else b""
        if not self._timestamps:
            return tag
        from logd.units import format_time  # noqa: PLC0415  # `logs` without a time need not import it

        return tag + format_time(run.time_ns).encode() + b" "

    def _tag(self, descriptor: int, name: str) -> bytes:
        """Return what stands before the lines of a container."""
        tag = self._tags.get((descriptor, name))
        if tag is None:
            number = self._numbers.setdefault(name, len(self._numbers))
            tag = f"{terminal.visible(name.ljust(self._width) if self._terminal[descriptor] else name)} | ".encode()
            if self._colour[descriptor]:
                tag = terminal.name_colour(number) + tag + terminal.RESET
            self._tags[descriptor, name] = tag
        return tag

    def _end_line(self, descriptor: int) -> None:
        """End the line of another stream that stands open in the same place."""
        place = STDOUT_FD if self._one_place else descriptor
        if self._open.pop(place, None) is not None:
            write_all(descriptor, b"\n")


class JsonPrinter:
    """One JSON object a line, on stdout, whichever stream it came from."""

    def __init__(self, notices: Notices) -> None:
        import json  # noqa: PLC0415  # only here

        self.failed = False
        self._notices = notices
        self._encode = json.JSONEncoder(ensure_ascii=True).encode  # ASCII: safe on a terminal too
        self._positions: dict[LogStream, tuple[int, int]] = {}

    def show(self, stream: LogStream, events: Sequence[Event]) -> None:
        """Write the lines of the events."""
        for event in events:
            before = self._positions.get(stream) or stream.after or (0, 0)
            if isinstance(event, Run):
                write_all(STDOUT_FD, self._lines(stream, event, before))
            elif isinstance(event, (Gap, Failure)):
                self._notices.show(stream, event)
            self._positions[stream] = positions_after(event, before)
        self.failed = self._notices.failed

    def finish(self) -> None:
        """Nothing to leave."""

    def _lines(self, stream: LogStream, run: Run, positions: tuple[int, int]) -> bytes:
        """Return the objects of a run. The cursor of each is the place behind it."""
        from logd.units import format_time  # noqa: PLC0415  # see PrefixPrinter

        encode, container = self._encode, stream.container
        head = (
            f'{{"time":"{format_time(run.time_ns)}","container":{encode(container.id)},'
            f'"name":{encode(container.name)},"stream":"{STREAM_NAMES[run.stream]}",'
        )
        objects: list[str] = []
        position = run.position
        *lines, rest = run.data.split(b"\n")
        for line in lines:
            position += len(line) + 1
            objects.append(f'{head}{self._text(line)},"cursor":"{self._cursor(stream, run, position, positions)}"}}\n')
        if rest:
            position += len(rest)
            cursor = self._cursor(stream, run, position, positions)
            objects.append(f'{head}{self._text(rest)},"partial":true,"cursor":"{cursor}"}}\n')
        return "".join(objects).encode()

    def _text(self, line: bytes) -> str:
        try:
            return f'"line":{self._encode(line.decode())}'
        except UnicodeDecodeError:
            import base64  # noqa: PLC0415  # for what is not text

            exact = base64.b64encode(line).decode()
            return f'"line":{self._encode(line.decode("utf-8", "replace"))},"line_base64":"{exact}"'

    @staticmethod
    def _cursor(stream: LogStream, run: Run, position: int, before: tuple[int, int]) -> str:
        return stream.cursor((position, before[1]) if run.stream == STDOUT else (before[0], position))


assert (STDOUT, STDERR) == (STDOUT_FD, STDERR_FD)
