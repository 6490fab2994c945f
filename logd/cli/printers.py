"""Events of log streams → bytes for the two outputs: exact, with prefixes, or as JSON.

In a pipe one container's bytes come out as the container wrote them, its stdout on stdout and its stderr on stderr.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from logd.cli import terminal
from logd.cli.frames import Event, Failure
from logd.cli.output import STDERR_FD, STDOUT_FD, Notices, Output
from logd.cli.streams import LogStream, positions_after
from logd.record import STDERR, STDOUT, STREAM_NAMES, ExecRun, Gap, Run


class Printer(Protocol):
    """What shows events."""

    def show(self, stream: LogStream, events: Sequence[Event]) -> None:
        """Write the events of one stream, in their order."""

    def finish(self) -> None:
        """Leave the terminal as it was found."""


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    from logd.units import format_time  # noqa: PLC0415  # `logs` without a time need not import it

    return format_time(seconds * 1_000_000_000)[:-10]


def stamp(time_ns: int) -> str:
    """Return RFC 3339 with nine digits, as `units.format_time` does; runs mostly share their second."""
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}{fraction:09d}Z"


class ExactPrinter:
    """One container without prefixes: its very bytes, but for what a terminal would obey."""

    def __init__(self, output: Output, notices: Notices, *, raw: bool) -> None:
        self._output = output
        self._notices = notices
        self._guard = {fd: not raw and terminal.is_terminal(fd) for fd in (STDOUT_FD, STDERR_FD)}
        self._coloured: set[int] = set()

    def show(self, stream: LogStream, events: Sequence[Event]) -> None:
        """Write the events."""
        for event in events:
            if isinstance(event, Run):
                self._show_run(event)
            elif isinstance(event, (Gap, Failure)):
                self._notices.show(stream, event)

    def finish(self) -> None:
        """Reset colours that the container left on."""
        for descriptor in self._coloured:
            self._output.write(descriptor, terminal.RESET)

    def _show_run(self, run: Run) -> None:
        data, descriptor = run.data, run.stream  # the numbers of the streams are those of the descriptors
        if self._guard[descriptor]:
            data = terminal.neutralise(data)
            if terminal.has_colour(data):
                self._coloured.add(descriptor)
        self._output.write(descriptor, data)


class PrefixPrinter:
    """Lines with a prefix: the container's name, the time, or both."""

    def __init__(
        self,
        output: Output,
        notices: Notices,
        names: Sequence[str] | None,
        *,
        timestamps: bool,
        raw: bool,
        colour: str = "auto",
    ) -> None:
        """`names` are those to be told apart, others may come; None for one container, whose lines carry no name."""
        self._output = output
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
        self._output.write(descriptor, text)

    def _prefix(self, stream: LogStream, run: Run) -> bytes:
        tag = self._tag(run.stream, stream.container.name) if self._named else b""
        if not self._timestamps:
            return tag
        return tag + stamp(run.time_ns).encode() + b" "

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
            self._output.write(descriptor, b"\n")


class JsonPrinter:
    """One JSON object a line, on stdout, whichever stream it came from."""

    def __init__(self, output: Output, notices: Notices) -> None:
        import json  # noqa: PLC0415  # only here

        self._output = output
        self._notices = notices
        # ASCII, so that it is safe on a terminal; newlines between the items of a list, where no string has one
        self._encode = json.JSONEncoder(ensure_ascii=True, separators=("\n", ":")).encode
        self._positions: dict[LogStream, tuple[int, int]] = {}

    def show(self, stream: LogStream, events: Sequence[Event]) -> None:
        """Write the lines of the events."""
        for event in events:
            before = self._positions.get(stream) or stream.after or (0, 0)
            if isinstance(event, Run):
                self._output.write(STDOUT_FD, self._lines(stream, event, before))
            elif isinstance(event, (Gap, Failure)):
                self._notices.show(stream, event)
            self._positions[stream] = positions_after(event, before)

    def finish(self) -> None:
        """Nothing to leave."""

    def _lines(self, stream: LogStream, run: Run, positions: tuple[int, int]) -> bytes:
        """Return the objects of a run. The cursor of each is the place behind it."""
        encode, container = self._encode, stream.container
        head = (
            f'{{"time":"{stamp(run.time_ns)}","container":{encode(container.id)},'
            f'"name":{encode(container.name)},"stream":"{STREAM_NAMES[run.stream]}",'
        )
        if isinstance(run, ExecRun):
            head += f'"exec":{encode(run.exec_id)},'
        before, after = stream.cursor_around(run.stream, positions)
        objects: list[str] = []
        position = run.position
        *lines, rest = run.data.split(b"\n")
        for line, text in zip(lines, self._texts(lines), strict=True):
            position += len(line) + 1
            objects.append(f'{head}{text},"cursor":"{before}{position}{after}"}}\n')
        if rest:
            position += len(rest)
            objects.append(f'{head}{self._text(rest)},"partial":true,"cursor":"{before}{position}{after}"}}\n')
        return "".join(objects).encode()

    def _texts(self, lines: list[bytes]) -> list[str]:
        """Return the fields for the text of each line; encoding many at once is four times as fast."""
        try:
            texts = b"\n".join(lines).decode().split("\n") if lines else []
        except UnicodeDecodeError:
            return list(map(self._text, lines))
        return [f'"line":{text}' for text in self._encode(texts)[1:-1].split("\n")] if texts else []

    def _text(self, line: bytes) -> str:
        try:
            return f'"line":{self._encode(line.decode())}'
        except UnicodeDecodeError:
            import base64  # noqa: PLC0415  # for what is not text

            exact = base64.b64encode(line).decode()
            return f'"line":{self._encode(line.decode("utf-8", "replace"))},"line_base64":"{exact}"'


assert (STDOUT, STDERR) == (STDOUT_FD, STDERR_FD)
