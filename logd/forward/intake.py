"""What a reader of a store gives → items for a driver: lines in groups, parts of over-long lines marked. No I/O."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from logd.batch import EXEC_FIELD, Dropped, ExecId, Group, Item, Partial
from logd.processor import part, positions
from logd.record import STDERR, STDOUT, ExecRun, Gap, Run

NEWLINE = b"\n"


class Intake:
    """Takes runs and gaps in their order. `limit` is the size of a part, in bytes.

    `lines`: for each stream the position at which the over-long line begins in the middle of which the reading does,
    -1 if it does not.
    """

    def __init__(self, container_id: str, limit: int, positions: tuple[int, int], lines: tuple[int, int]) -> None:
        self._container_id = container_id
        self._limit = limit
        self._open: dict[int, tuple[int, int]] = {
            stream: (begin, position)
            for stream, position, begin in zip((STDOUT, STDERR), positions, lines, strict=True)
            if begin >= 0
        }
        """Streams in the middle of an over-long line: where it began, and where it goes on."""

    def take(self, found: Iterable[Run | Gap], out: list[Item]) -> None:
        """Append to `out` what they hold."""
        for one in found:
            if isinstance(one, Run):
                done = len(out)
                self._run(one, out)
                if isinstance(one, ExecRun):
                    out[done:] = [_of_exec(one.exec_id, item) for item in out[done:]]
            elif one.stream and one.length:
                out.append(Dropped(one.stream, one.position, one.position + one.length, one.reason))

    def _run(self, run: Run, out: list[Item]) -> None:
        time_ns, stream, position, data = run
        begin = self._goes_on(stream, position)
        is_whole = data.endswith(NEWLINE)
        lines = data.split(NEWLINE)
        if is_whole:
            lines.pop()
        if begin < 0 and is_whole:  # as nearly always
            out.append(Group(time_ns, stream, position, position + len(data), lines))
            return
        rest = None if is_whole else lines.pop()
        if begin >= 0 and lines:
            first = lines.pop(0)
            end = position + len(first) + 1
            out.append(self._part(Group(time_ns, stream, position, end, [first]), begin, is_last=True))
            position, begin = end, -1
        if lines:
            end = position + sum(map(len, lines)) + len(lines)
            out.append(Group(time_ns, stream, position, end, lines))
            position = end
        if rest is not None:
            self._unfinished(Group(time_ns, stream, position, position + len(rest), [rest]), begin, out)

    def _goes_on(self, stream: int, position: int) -> int:
        """Return where the over-long line began that goes on at a position, -1 if none does."""
        begin, expected = self._open.pop(stream, (-1, -1))
        return begin if expected == position else -1

    def _unfinished(self, line: Group, begin: int, out: list[Item]) -> None:
        """Take a line without a newline: part of an over-long one, or the last of all (a part too, as with Docker)."""
        begin = line.position if begin < 0 else begin
        out.append(self._part(line, begin, is_last=False))
        if len(line.lines[0]) == self._limit:
            self._open[line.stream] = (begin, line.end)

    def _part(self, line: Group, begin: int, *, is_last: bool) -> Group:
        name = hashlib.sha256(f"{self._container_id}:{line.stream}:{begin}".encode()).hexdigest()
        return line._replace(partial=Partial(name, (line.position - begin) // self._limit + 1, is_last))


def _of_exec(exec_id: str, item: Item) -> Item:
    assert isinstance(item, Group)
    return item._replace(fields=[{EXEC_FIELD: ExecId(exec_id)} for _ in item.lines])


def line_begin(group: Group, limit: int) -> int:
    """Return where the over-long line begins in the middle of which a group ends, -1 if it does not."""
    partial = group.partial
    if partial is None or partial.last or group.end - group.position < limit:
        return -1
    return group.position - (partial.ordinal - 1) * limit


def take_records(items: list[Item], count: int) -> list[Group]:
    """Return the groups with the first `count` records among the items, the last one cut if need be."""
    groups = []
    for item in items:
        if type(item) is not Group:
            continue
        if len(item.lines) > count:
            if count:
                groups.append(cut(item, count)[0])
            return groups
        groups.append(item)
        count -= len(item.lines)
    return groups


def take_out(items: list[Item], left_out: Mapping[int, str]) -> list[Item]:
    """Return the items with some records, by their numbers from 0, as dropped for the reasons given."""
    at, last = 0, max(left_out, default=-1)
    out: list[Item] = []
    for number, item in enumerate(items):
        if at > last:
            return out + items[number:]
        if type(item) is not Group:
            out.append(item)
            continue
        reasons = [left_out.get(record) for record in range(at, at + len(item.lines))]
        at += len(item.lines)
        out += _without(item, reasons) if any(reasons) else [item]
    return out


def _without(group: Group, reasons: list[str | None]) -> Iterator[Item]:
    begins = positions(group)
    first = 0
    for reason, run in groupby(reasons):
        last = first + len(list(run))
        if reason is None:
            yield part(group, begins, first, last)
        else:
            yield Dropped(group.stream, begins[first], begins[last], reason)
        first = last


def cut(group: Group, count: int) -> tuple[Group, Group]:
    """Return a group's first `count` lines and the others, as two."""
    lines, fields = group.lines, group.fields
    middle = group.position + sum(map(len, lines[:count])) + count
    return (
        group._replace(end=middle, lines=lines[:count], fields=fields and fields[:count]),
        group._replace(position=middle, lines=lines[count:], fields=fields and fields[count:]),
    )
