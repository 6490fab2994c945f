"""A container's log as a stream of runs: what is in the store, and then, if followed, what comes, to its end."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from logd.logstore.reader import LogReader
from logd.logstore.selection import Selection
from logd.record import Gap, Run
from logd.units import NS

if TYPE_CHECKING:
    from logd.api.call import Parts
    from logd.container import Container, LogHold
    from logd.logstore.follow import Subscription

T = TypeVar("T")

BUDGET: Final = 256 * 1024
"""Bytes read at a time: what a slow client costs, and enough for a fast one (measured: larger is no faster)."""


PUSHED_BYTES: Final = 1024
"""What counts as little: of any content, less than 64 KiB with times before its lines and frames around them."""


def is_little(items: list[Run | Gap]) -> bool:
    """Tell whether these are runs of few bytes."""
    total = 0
    for item in items:
        if isinstance(item, Gap):
            return False
        total += len(item.data)
    return total <= PUSHED_BYTES


class LogStream:
    """`next` gives the runs; an asynchronous context manager. Without `finish` a last line without a newline is left.

    What is followed ends with the container's present run, or, with `restarts`, when no restart policy starts another.
    History is read in threads, because it may have to come from the disk; a follower that has caught up reads in
    the event loop what was written just now, which is in memory.
    """

    def __init__(
        self,
        parts: "Parts",
        container: "Container",
        selection: Selection,
        *,
        follow: bool,
        restarts: bool = False,
        budget: int = BUDGET,
        times: bool = True,
        finish: bool = True,
    ) -> None:
        self._parts = parts
        self._container = container
        self._selection = selection
        self._budget = budget
        self._times = times
        self._finish = finish
        self._restarts = restarts
        self._follow = follow and not self._output_has_ended()
        if not self._follow and not container.log_ended.is_set():
            self._selection = dataclasses.replace(selection, present=True)
        self._run = container.run
        self._caught_up = False
        self._finishing = False
        self._reader: LogReader | None = None
        self._hold: LogHold | None = None
        self._sink: Callable[[list[Run | Gap]], bool] | None = None
        self._refused: list[Run | Gap] = []
        self._working: asyncio.Future[object] | None = None
        self._subscription: Subscription | None = None
        self._end: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._follow:  # before the first read, so that nothing falls in between
            self._subscription = self._parts.watcher.subscribe(str(self._container.log_dir))
            self._end = asyncio.create_task(self._wake_at_the_end(self._subscription), name="end of output")
        try:
            self._hold = self._container.hold_log()
            await self._in_thread(partial(self._open, self._hold.path))
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @property
    def cursor(self) -> tuple[int, int]:
        """Positions (stdout, stderr) of the next bytes not given out."""
        assert self._reader is not None
        return self._reader.cursor

    async def next(self) -> list[Run | Gap]:
        """Return the next runs, whole lines but for the last of the output; an empty list is the end."""
        assert self._reader is not None
        while not self._finishing:
            if self._refused:
                items, self._refused = self._refused, []
                return items
            ended = self._has_ended()  # looked at before reading, so that all that came before is read
            items = await self._read(self._reader)
            if items:
                return items
            if self._reader.finished:
                return []
            if ended:
                self._finishing = True
                return self._reader.finish() if self._finish else []
            await self._wait()
        return []

    def push_to(self, sink: Callable[[list[Run | Gap]], bool]) -> None:
        """Have the little that comes while `next` waits handed to `sink`, a turn of the loop before `next` could.

        What `sink` refuses by a false, `next` returns, as it does with gaps and with much at a time.
        """
        self._sink = sink

    def _push(self) -> bool:
        """Hand on what is new; false if `next` has to go on."""
        assert self._reader is not None
        assert self._sink is not None
        items = self._reader.read()
        if items and not (is_little(items) and self._sink(items)):
            self._refused = items
        return not self._refused and not self._reader.finished

    def _open(self, folder: str) -> None:
        self._reader = LogReader(
            folder,
            self._selection,
            max_line_bytes=self._parts.engine.max_line_bytes(self._container),
            budget=self._budget,
            times=self._times,
        )

    async def _read(self, reader: LogReader) -> list[Run | Gap]:
        if self._caught_up:
            return reader.read()
        items = await self._in_thread(reader.read)
        self._caught_up = not items
        return items

    def _has_ended(self) -> bool:
        until_ns = self._selection.until_ns
        return (
            not self._follow
            or self._output_has_ended()
            or (self._container.run != self._run and not self._restarts)
            or (until_ns is not None and time.time_ns() > until_ns)
        )

    def _output_has_ended(self) -> bool:
        container = self._container
        return container.log_ended.is_set() and not (self._restarts and container.state.restarting)

    async def _wait(self) -> None:
        """Return when the store may have grown, the output has ended, or `until` has come."""
        assert self._subscription is not None
        until_ns = self._selection.until_ns
        timeout = None if until_ns is None else max(0.0, (until_ns - time.time_ns()) / NS) + 0.001
        await self._subscription.wait(timeout, self._push if self._sink is not None and self._caught_up else None)

    async def _wake_at_the_end(self, subscription: "Subscription") -> None:
        await self._container.log_ended.wait()
        while not self._output_has_ended():
            await self._container.wait("next-exit")
        subscription.wake()

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Run a function that may wait for the disk. Cancelled, it goes on: a thread can't be stopped."""
        work = asyncio.get_running_loop().run_in_executor(self._parts.readers, function)
        self._working = work  # type: ignore[assignment]  # only waited for
        return await asyncio.shield(work)

    def _close(self) -> None:
        """End all, the reader when no thread works with it any more."""
        if self._subscription is not None:
            self._subscription.close()
        if self._end is not None:
            self._end.cancel()
        if self._working is None or self._working.done():
            self._close_reader()
        else:
            self._working.add_done_callback(self._close_reader)

    def _close_reader(self, work: "asyncio.Future[object] | None" = None) -> None:
        if work is not None and not work.cancelled():
            work.exception()  # seen: nobody waits for this work any more
        if self._reader is not None:
            self._reader.close()
        if self._hold is not None:
            self._hold.close()
