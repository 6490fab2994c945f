"""Batches of two streams → whole lines, and parts of over-long ones. No I/O.

A line's time is that of the batch with its first byte. A line is given out when its newline has arrived, so that an
unfinished line of one stream never holds back the other. Memory: what is unfinished, at most `max_line_bytes` and a
batch for each stream.
"""

from logd.record import Run

NEWLINE = b"\n"


class _Line:
    """A line whose newline has not arrived; `skipped` ones are not wanted."""

    __slots__ = ("data", "position", "skipped", "time_ns")

    def __init__(self, time_ns: int, position: int, data: bytes, *, skipped: bool = False) -> None:
        self.time_ns = time_ns
        self.position = position
        self.data = bytearray(data)
        self.skipped = skipped


class LineAssembler:
    """Takes batches in the order of the index; appends to `out` runs of whole lines of one stream and one time.

    A line with more than `max_line_bytes` before its newline comes in parts of exactly that many bytes and a rest:
    each part is a run without a newline at its end, and all have the line's time. How the bytes were spread over
    batches makes no difference to the parts.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._limit = max_line_bytes
        self._open: dict[int, _Line] = {}

    def start(self, stream: int) -> int | None:
        """Return the position of the unfinished line's first byte that was not given out, None if there is none."""
        line = self._open.get(stream)
        return None if line is None or line.skipped else line.position

    def is_open(self, stream: int) -> bool:
        """Tell whether a wanted line of the stream is unfinished."""
        return self.start(stream) is not None

    def skip(self, stream: int) -> None:
        """Leave out what comes of the stream up to its next newline (or cut)."""
        self._open[stream] = _Line(0, 0, b"", skipped=True)

    def feed(self, batch: Run, out: list[Run]) -> None:
        """Take a batch, which need not end at a newline."""
        data, stream = batch[3], batch[1]
        if stream in self._open:
            self._go_on(batch, out)
        elif data.endswith(NEWLINE) and len(data) <= self._limit:
            out.append(batch)
        else:
            self._whole_lines(batch, out)

    def cut(self, stream: int, out: list[Run]) -> None:
        """End the unfinished line of the stream as it is: nothing of it will follow."""
        line = self._open.pop(stream, None)
        if line is not None and not line.skipped:
            out.append(Run(line.time_ns, stream, line.position, bytes(line.data)))

    def cut_all(self, out: list[Run]) -> None:
        """End the unfinished lines of all streams, stdout's first."""
        for stream in sorted(self._open):
            self.cut(stream, out)

    def _whole_lines(self, batch: Run, out: list[Run]) -> None:
        """Take a batch that begins with a line's begin."""
        time_ns, stream, position, data = batch
        end = data.rfind(NEWLINE) + 1
        if end:
            whole = batch if end == len(data) else Run(time_ns, stream, position, data[:end])
            if end <= self._limit:
                out.append(whole)
            else:
                out.extend(split_long(whole, self._limit))
        if end < len(data):
            self._open[stream] = _Line(time_ns, position + end, data[end:])
            self._give_parts(stream, out)

    def _go_on(self, batch: Run, out: list[Run]) -> None:
        """Take a batch that begins in the middle of a line."""
        time_ns, stream, position, data = batch
        line = self._open[stream]
        end = data.find(NEWLINE) + 1
        if line.skipped:
            if not end:
                return
            del self._open[stream]
        elif not end:
            line.data += data
            self._give_parts(stream, out)
            return
        elif line.time_ns == time_ns and len(data) + len(line.data) <= self._limit:
            end = data.rfind(NEWLINE) + 1  # one piece of a batch after the other: one run, one copy
            out.append(Run(time_ns, stream, line.position, b"".join((line.data, memoryview(data)[:end]))))
            if end < len(data):
                self._open[stream] = _Line(time_ns, position + end, data[end:])
            else:
                del self._open[stream]
            return
        else:
            line.data += data[:end]
            self._give_parts(stream, out)
            self.cut(stream, out)
        if end < len(data):
            self.feed(Run(time_ns, stream, position + end, data[end:]), out)

    def _give_parts(self, stream: int, out: list[Run]) -> None:
        """Give out parts of the unfinished line while it is too long."""
        line, limit = self._open[stream], self._limit
        at = 0
        while len(line.data) - at - line.data.endswith(NEWLINE) > limit:
            out.append(Run(line.time_ns, stream, line.position + at, bytes(line.data[at : at + limit])))
            at += limit
        if at:
            del line.data[:at]
            line.position += at


def split_long(lines: Run, limit: int) -> list[Run]:
    """Split whole lines so that those longer than `limit` before their newline are in parts of that size."""
    time_ns, stream, position, data = lines
    runs: list[Run] = []
    begin = at = 0
    while len(data) - at > limit + 1:
        newline = data.rfind(NEWLINE, at, at + limit + 1)
        if newline >= 0:
            at = newline + 1
            continue
        if at > begin:
            runs.append(Run(time_ns, stream, position + begin, data[begin:at]))
        runs.append(Run(time_ns, stream, position + at, data[at : at + limit]))
        at += limit
        begin = at
    runs.append(Run(time_ns, stream, position + begin, data[begin:]))
    return runs
