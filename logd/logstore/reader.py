"""Reading a store: LogReader gives lines that a selection asks for, RawReader batches as they are.

Neither waits. `read() == []` says that there is nothing more at present; follow.py tells when to look again. Both go on
over rotation, and over deletion of segments that they have not read, which is a Gap with the reason "retention".
"""

from types import TracebackType
from typing import Final, Self

from logd.logstore.lines import LineAssembler
from logd.logstore.places import Place, Store
from logd.logstore.segment import HEADER_ENTRIES
from logd.logstore.selection import Selection, find_start
from logd.logstore.walk import Item, Mark, Walk
from logd.record import STDERR, STDOUT, ExecRun, Gap, Run

__all__ = ["LogReader", "RawReader", "Selection", "end_positions"]

MAX_LINE_BYTES: Final = 1 << 20
BUDGET_BYTES: Final = 256 * 1024
"""Fits the processor's cache, and is a good size of a write to a socket."""


class LogReader:
    """One pass over the store in `folder`, which need not exist yet. A context manager.

    Lines come in the order in which their newlines arrived, in runs of one stream and one time: the time of the batch
    with a line's first byte. A line never goes on beyond a gap, or beyond the end of one run of the container. With
    `times=False` neighbouring batches are joined into larger runs with the time of the first: for who needs no times.
    Lines longer than `max_line_bytes` come in parts: see LineAssembler. Lines of execs come as ExecRun.
    """

    def __init__(
        self,
        folder: str,
        selection: Selection,
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
        budget: int = BUDGET_BYTES,
        times: bool = True,
    ) -> None:
        self.finished = False
        """Whether `until` has passed and all lines begun before it are complete: nothing can follow."""
        self._folder = folder
        self._selection = selection
        self._budget = budget
        self._times = times
        self._lines = LineAssembler(max_line_bytes)
        self._exec_lines: dict[int, tuple[int | None, str]] = {}
        """Of a stream in the middle of an exec's line: where that began, and the exec's id."""
        self._past_until = False
        self._is_first_look = True
        self._searched: Place | None = None
        self._passed = dict(zip((STDOUT, STDERR), selection.after or (0, 0), strict=True))
        self._bound: dict[int, int] | None = None
        self._walk: Walk | None = None
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        if self._walk is not None:
            self._walk.close()

    @property
    def cursor(self) -> tuple[int, int]:
        """The positions of stdout and stderr from which on nothing was given out; of unread streams, as begun."""
        stdout, stderr = (self._passed[stream] for stream in (STDOUT, STDERR))
        open_out, open_err = self._lines.start(STDOUT), self._lines.start(STDERR)
        return stdout if open_out is None else open_out, stderr if open_err is None else open_err

    def read(self) -> list[Run | Gap]:
        """Return the next runs of whole lines and gaps, about `budget` bytes; nothing if there are none at present."""
        if self._walk is None:
            self._begin()
        out: list[Run | Gap] = []
        while self._walk is not None and not out and not self.finished and not self._is_at_bound():
            items = self._walk.read(self._budget)
            if not items:
                break
            self._take(items if self._bound is None else self._within(self._bound, items), out)
        return out

    def finish(self) -> list[Run | Gap]:
        """Return, after a `read` that gave nothing, the unfinished last lines too: the output has ended."""
        out: list[Run | Gap] = []
        self._lines.cut_all(out)  # type: ignore[arg-type]  # only appends
        if self._walk is not None and not self.finished and not self._past_until and not self._is_at_bound():
            out += self._walk.missing_end()
            self._passed.update(self._walk.positions)
        self.finished = self.finished or self._past_until
        return out

    def _is_at_bound(self) -> bool:
        """Tell whether all that there was at the first look has been read, if no more is wanted."""
        return self._bound is not None and all(self._passed[stream] >= at for stream, at in self._bound.items())

    def _within(self, bound: dict[int, int], items: list[Item]) -> list[Item]:
        """Return what of the items lies before the bound."""
        kept: list[Item] = []
        for item in items:
            left = 1 if isinstance(item, Mark) or not item.stream else bound[item.stream] - item.position
            if isinstance(item, Run) and left < len(item.data):
                item = item._replace(data=item.data[: max(left, 0)])  # noqa: PLW2901 - the same item, cut
            if left > 0:
                kept.append(item)
        return kept

    def _take(self, items: list[Item], out: list[Run | Gap]) -> None:
        lines: list[Run] = out  # type: ignore[assignment]  # only appends
        feed, passed = self._lines.feed, self._passed
        for item in items:
            if self._past_until:
                self._complete(item, lines)
            elif type(item) is Run:
                feed(item, lines)
                passed[item[1]] = item[2] + len(item[3])
            elif type(item) is ExecRun:
                self._take_of_exec(item, lines)
                passed[item.stream] = item.position + len(item.data)
            elif type(item) is Gap:
                for stream in (item.stream,) if item.stream else (STDOUT, STDERR):
                    self._lines.cut(stream, lines)
                if item.stream:
                    passed[item.stream] = item.position + item.length
                out.append(item)
            elif type(item) is Mark and item.is_until:
                self._past_until = True
                self.finished = not any(self._lines.is_open(stream) for stream in self._selection.streams)
            else:
                self._lines.cut_all(lines)

    def _take_of_exec(self, run: ExecRun, out: list[Run]) -> None:
        """Take what an exec has printed: what completes a line that is open belongs to who began it."""
        time_ns, stream, position, data = run
        start = self._lines.start(stream)
        began, exec_id = self._exec_lines.pop(stream, (None, ""))
        first = data.find(b"\n") + 1 or len(data)
        if start is None:
            first = 0
        elif began != start:
            exec_id = ""
        for owner, piece, at in ((exec_id, data[:first], position), (run.exec_id, data[first:], position + first)):
            done = len(out)
            if piece:
                self._lines.feed(Run(time_ns, stream, at, piece), out)
            if owner:
                out[done:] = [ExecRun.of(owner, one) for one in out[done:]]
        owner = run.exec_id if first < len(data) else exec_id
        if owner and self._lines.is_open(stream):
            self._exec_lines[stream] = self._lines.start(stream), owner

    def _complete(self, item: Item, out: list[Run]) -> None:
        """Take, of what is later than `until`, what completes lines begun before it."""
        if isinstance(item, Run):
            if self._lines.is_open(item.stream):
                data = item.data[: item.data.find(b"\n") + 1] or item.data
                self._passed[item.stream] = item.position + len(data)
                self._lines.feed(item._replace(data=data), out)
        elif isinstance(item, Gap) and item.stream:
            self._lines.cut(item.stream, out)
        else:
            self._lines.cut_all(out)
        self.finished = not any(self._lines.is_open(stream) for stream in self._selection.streams)

    def _begin(self) -> None:
        """Begin, unless `since` has not come yet."""
        with Store(self._folder) as store:
            start = find_start(store, self._selection, self._searched, is_first_look=self._is_first_look)
            if self._is_first_look and self._selection.present:
                end, streams = store.end(), self._selection.streams
                self._bound = {stream: store.position_before(end, stream) if end else 0 for stream in streams}
            self._is_first_look = False
            if start is None:
                self._searched = store.end() or self._searched
                return
            self._passed |= start.positions
            for stream in start.skipped:
                self._lines.skip(stream)
            self._walk = Walk(
                self._folder,
                start.positions,
                store.detach(start.place.segment) if start.place else None,
                start.place.slot if start.place else HEADER_ENTRIES,
                until_ns=self._selection.until_ns,
                merge=not self._times,
                reason=start.reason,
            )


class RawReader:
    """Batches as they arrive, lines not considered: for attach. A context manager.

    `start` are the positions of stdout and stderr to begin with; None means the present end. Neighbouring batches of a
    stream come as one run with the time of the first. Without `execs` what execs have printed is passed over.
    """

    def __init__(
        self,
        folder: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        start: tuple[int, int] | None = None,
        execs: bool = True,
    ) -> None:
        self._left_out: tuple[type, ...] = (Mark,) if execs else (Mark, ExecRun)
        self.passed_over = 0
        """Bytes of execs, which were not wanted."""
        begin = end_positions(folder) if start is None else start
        self._passed = dict(zip((STDOUT, STDERR), begin, strict=True))
        positions = {s: self._passed[s] for s, wanted in ((STDOUT, stdout), (STDERR, stderr)) if wanted}
        with Store(folder) as store:
            place = store.place_of(positions)
            first = store.detach(place.segment) if place else None
            self._walk = Walk(folder, positions, first, place.slot if place else HEADER_ENTRIES, merge=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._walk.close()

    @property
    def position(self) -> tuple[int, int]:
        """The positions of stdout and stderr that come next; of an unread stream, as begun."""
        at = self._passed | self._walk.positions
        return at[STDOUT], at[STDERR]

    @property
    def holds_deleted(self) -> bool:
        """Whether it has files of a segment open that is deleted, which so take room on the disk."""
        return self._walk.holds_deleted

    def read(self, budget: int = BUDGET_BYTES) -> list[Run | Gap]:
        """Return what there is, about `budget` bytes of it; nothing if there is nothing more at present."""
        while items := self._walk.read(budget):
            wanted = [item for item in items if not isinstance(item, self._left_out)]
            if len(wanted) < len(items) and ExecRun in self._left_out:
                self.passed_over += sum(len(item.data) for item in items if isinstance(item, ExecRun))
            if wanted:
                return wanted  # type: ignore[return-value]  # no Mark
        return []


def end_positions(folder: str) -> tuple[int, int]:
    """Return the positions after the last byte of stdout and of stderr that the index names; 0 in an empty store."""
    with Store(folder) as store:
        end = store.end()
        if end is None:
            return 0, 0
        return store.position_before(end, STDOUT), store.position_before(end, STDERR)
