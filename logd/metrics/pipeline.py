"""What containers print and where it goes, as metrics: the store, the lines, the drivers' accounts, the forwarders.

A scrape looks at each store through a gauge, whose descriptors stay open, and asks the forwarders which deliveries are
not idle. What takes a look at the index or the data, the observer's process finds out: the lines and their levels, and
what waits for a driver that is behind. The account of a driver is of one moment: its cursor was read first, then the
ends, and what lies between the two is counted by the observer, in this scrape's time or for the next one; until then
the last account that is whole is shown, if it is not old.
"""

import asyncio
import logging
import resource
import time
from collections.abc import Iterable
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from logd.container import Container
from logd.forward.account import Positions, Terms, terms
from logd.logstore.gauge import Gauge, Measure
from logd.logstore.progress import Progress
from logd.metrics import pipeline_series as series
from logd.metrics.daemon import LoggerCounts
from logd.metrics.families import DAEMON, Collector, Layout, Page, Subject
from logd.metrics.observing import Observing
from logd.metrics.pipeline_series import Driver, Shape
from logd.metrics.subjects import Subjects
from logd.units import NS

log = logging.getLogger(__name__)

IDLE: Final = ("idle", 0)
FILES_SHARE: Final = 4
FILES_A_STORE: Final = 8
"""A quarter of the descriptors that the process may have are kept for stores; others are opened at each scrape."""
STALE_S: Final = 60.0
"""How old an account may be that is shown because the present one is not whole yet."""


class Source(Protocol):
    """The engine, as far as it is looked at."""

    def containers(self) -> list[Container]:
        """Return all containers."""

    def departed(self) -> list[Container]:
        """Return those that were removed a short time ago."""

    async def delivery_health(self) -> dict[str, tuple[str, int]]:
        """Return state and time of the oldest line of deliveries that are not idle, by CONTAINER_ID/NAME."""

    def forwarders(self) -> list[dict[str, Any]]:
        """Return the processes that run drivers."""


class _Account(NamedTuple):
    """The account of a driver at a moment. `terms` lack `buffered` and `unread` where it is not `whole`."""

    progress: Progress
    ends: Positions
    captured: Positions
    terms: Terms
    oldest_ns: int
    at_s: float
    seq: int
    whole: bool


class _Driver:
    """One driver of a container, over the scrapes."""

    def __init__(self) -> None:
        self.present: _Account | None = None
        self.asked: _Account | None = None
        """The one for which the observer was asked what waits; it may answer after later scrapes."""
        self.last_whole: _Account | None = None
        self._shown_seq = 0
        self.states: dict[str, None] = {}
        self.counted = (0, 0)
        """Its retries and over-long lines that have been added to the daemon's."""

    def look(self, measure: Measure, progress: Progress, seq: int) -> None:
        """Take the account of this moment; of a driver that has caught up it is whole."""
        before, captured = self.present, measure.captured
        if before is not None and before.whole and before.progress is progress and before.captured == captured:
            return  # as it mostly is
        is_behind = any(at < end for at, end in zip(progress.positions, measure.ends, strict=True))
        account = terms(progress, measure.ends, captured, 0, 0)
        self.present = _Account(progress, measure.ends, captured, account, 0, time.monotonic(), seq, not is_behind)
        if not is_behind:
            self.last_whole = self.present

    def complete(self, seq: int, held: int, missing: int, oldest_ns: int) -> None:
        """Take what the observer has counted for the account of scrape `seq`."""
        account, last = self.asked, self.last_whole
        if account is None or account.seq != seq or (last is not None and last.seq > seq):
            return
        whole = terms(account.progress, account.ends, account.captured, held, missing)
        self.last_whole = account._replace(terms=whole, oldest_ns=oldest_ns, whole=True)
        if self.present is account:
            self.present = self.last_whole

    def shown(self) -> _Account:
        """Return the account to be shown: a whole one, unless the last is old, or older than what was shown before."""
        account, last = self.present, self.last_whole
        assert account is not None
        if not account.whole and last is not None and last.seq >= self._shown_seq:
            account = last if time.monotonic() - last.at_s < STALE_S else account
        self._shown_seq = account.seq
        return account


class _Watched:
    """One container, over the scrapes. Call `close`."""

    def __init__(self, container: Container, *, is_new: bool) -> None:
        """Raises FileNotFoundError where there is no store."""
        self.container = container
        self.is_new = is_new
        """Whether it has begun to print after the daemon had started: then all its lines count."""
        self.gauge: Gauge | None = Gauge(str(container.log_dir))
        self.measure = self.gauge.read()
        self.begin: Positions = (0, 0) if is_new else self.measure.ends
        """Where an observer that is new begins to count lines."""
        self.read: Positions = self.begin
        """How far the observer has come."""
        self.told: tuple[int, bool] = (0, False)
        """Which observer knows of it, and whether it was told that the layer is live."""
        self.lines: dict[str, int] = {}
        self.skipped = 0
        self.followers = 0
        self.layer_bytes: int | None = None
        self.drivers: dict[str, _Driver] = {}
        self.found = 0
        """How often the observer has found lines."""
        self.shape: tuple[Subject, Shape] | None = None
        self.layouts: tuple[Layout, Layout] | None = None
        self.written: tuple[object, tuple[tuple[Layout, tuple[float, ...]], ...]] | None = None
        """What was written last, and what that hangs on where nothing is under way."""

    def look(self, seq: int) -> None:
        """Measure the store (reads; may block)."""
        if self.gauge is None:
            self.gauge = Gauge(str(self.container.log_dir))
        if self.container.removed:
            self.gauge.keep_cursors()
        self.measure = self.gauge.read()
        for gone in self.drivers.keys() - self.measure.drivers.keys():
            del self.drivers[gone]
        for name, progress in self.measure.drivers.items():
            if name not in self.drivers:
                self.drivers[name] = _Driver()
                self.drivers[name].counted = (0, 0) if self.is_new else (progress.retries, progress.long_lines)
            self.drivers[name].look(self.measure, progress, seq)

    @property
    def is_behind(self) -> bool:
        """Whether the account of some driver is not whole."""
        return any(one.present is not None and not one.present.whole for one in self.drivers.values())

    def ask(self) -> Iterable[list[Any]]:
        """Give what the observer is to be asked for the accounts that are not whole."""
        for name, driver in self.drivers.items():
            account = driver.asked = driver.present
            if account is not None and not account.whole:
                yield [self.container.id, name, *account.progress.positions, *account.ends]

    def close(self) -> None:
        """Close the files; a later look opens them again."""
        if self.gauge is not None:
            self.gauge.close()
            self.gauge = None


class PipelineCollector(Collector):
    """See this module's docstring. Call `close`."""

    name: ClassVar = "pipeline"
    families: ClassVar = series.FAMILIES

    def __init__(self, source: Source, subjects: Subjects, counts: LoggerCounts) -> None:
        self._source = source
        self._subjects = subjects
        self._counts = counts
        self._observing = Observing(self._hear)
        self._began_ns = time.time_ns()
        self._watched: dict[str, _Watched] = {}
        self._seq = 0
        self._gone: list[str] = []
        """What the observer knows of and need not any longer."""
        self._health: dict[str, tuple[str, int]] = {}
        self._forwarders: list[dict[str, Any]] = []
        self._measuring: asyncio.Future[None] | None = None

    async def close(self) -> None:
        """End the observer, close all files."""
        await self._observing.close()
        if self._measuring is not None:
            await asyncio.wait({self._measuring})
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()

    def layer_bytes(self, container: Container) -> int | None:
        """Return the size of a container's writable layer, as it was found last; None if it has not been yet."""
        watched = self._watched.get(container.id)
        return None if watched is None else watched.layer_bytes

    # -- looking -----------------------------------------------------------------------------------------------------

    async def gather(self) -> None:
        """Measure the stores, ask the forwarders, and wait a moment for the observer."""
        if self._measuring is not None and not self._measuring.done():
            raise TimeoutError("a disk does not answer: the stores are still being measured")
        containers = [*self._source.containers(), *self._source.departed()]
        self._seq += 1
        loop = asyncio.get_running_loop()
        self._measuring = loop.run_in_executor(None, self._measure, containers, self._seq)
        self._health, _ = await asyncio.gather(self._source.delivery_health(), asyncio.shield(self._measuring))
        self._forwarders = self._source.forwarders()
        for watched in self._watched.values():
            watched.followers = len(watched.container.log_holds)
            self._count(watched)
        if await self._observing.ready():
            await self._observing.round(**self._request(self._seq))

    def _measure(self, containers: Iterable[Container], seq: int) -> None:
        """Look at all stores (in a thread)."""
        ids = {container.id for container in containers}
        for gone in self._watched.keys() - ids:
            self._watched.pop(gone).close()
            self._gone.append(gone)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = limit // FILES_SHARE // FILES_A_STORE
        for number, container in enumerate(containers):
            try:
                self._look(container, seq, keeps=number < room)
            except FileNotFoundError:  # it has never been started, or is removed
                continue
            except OSError as error:  # and the others' figures are worth having
                log.warning("metrics: the store can't be read: %s", error, extra={"container": container.id})

    def _look(self, container: Container, seq: int, *, keeps: bool) -> None:
        watched = self._watched.get(container.id)
        if watched is None:
            is_new = seq > 1 or container.created_ns > self._began_ns
            watched = self._watched[container.id] = _Watched(container, is_new=is_new)
        watched.look(seq)
        if not keeps:
            watched.close()

    def _count(self, watched: _Watched) -> None:
        """Add to dockerd's counters what a container's drivers have come upon since the last scrape."""
        for name, driver in watched.drivers.items():
            progress = watched.measure.drivers[name]
            retries, long_lines = driver.counted
            self._counts.writes_failed += max(0, progress.retries - retries)
            self._counts.entries_too_long += max(0, progress.long_lines - long_lines)
            driver.counted = progress.retries, progress.long_lines

    # -- the observer ------------------------------------------------------------------------------------------------

    def _request(self, seq: int) -> dict[str, Any]:
        """Return what to ask of the observer."""
        generation = self._observing.generation
        watch, layers, grown = [], [], []
        waiting: list[list[Any]] = []
        for key, watched in self._watched.items():
            container = watched.container
            is_live = container.state.running
            if watched.told[0] != generation:
                watch.append([key, str(container.log_dir), *watched.begin])
                watched.read = watched.begin
            if watched.told != (generation, is_live) and not container.removed:
                layers.append([key, str(container.upper), is_live])
            watched.told = generation, is_live
            if watched.read != watched.measure.ends:
                grown.append(key)
            waiting += watched.ask()
        forget, self._gone = self._gone, []
        return {
            "number": seq,
            "watch": watch,
            "forget": forget,
            "grown": grown,
            "waiting": waiting,
            "layers": layers,
        }

    def _hear(self, message: dict[str, Any]) -> None:
        """Take in what the observer has found. It may be of containers that are gone by now."""
        event = message.get("event")
        if event == "waiting":
            for key, name, held, missing, oldest_ns in message["found"]:
                watched = self._watched.get(key)
                if watched is not None and (driver := watched.drivers.get(name)) is not None:
                    driver.complete(message["number"], held, missing, oldest_ns)
        elif event == "lines":
            for key, stdout, stderr, stdout_read, stderr_read, lines, skipped in message["found"]:
                if (watched := self._watched.get(key)) is not None:
                    watched.begin, watched.read = (stdout, stderr), (stdout_read, stderr_read)
                    watched.skipped += skipped
                    watched.found += 1
                    for level, count in lines.items():
                        watched.lines[level] = watched.lines.get(level, 0) + count
        elif event == "layers":
            for key, size in message["found"]:
                if (watched := self._watched.get(key)) is not None:
                    watched.layer_bytes = size

    # -- writing -----------------------------------------------------------------------------------------------------

    def collect(self, page: Page) -> None:
        """Write the series."""
        now_s = time.time()
        for watched in self._watched.values():
            self._write(page, watched, now_s)
        for one in self._forwarders:
            plugin = one["plugin"]
            page.add(series.FORWARDER_UP, int(one["state"] == "running"), DAEMON, plugin)
            page.add(series.FORWARDER_RESTARTS, one["restarts"], DAEMON, plugin)
            page.add(series.FORWARDER_LAG, one["lag"], DAEMON, plugin)
            page.add(series.FORWARDER_DELIVERIES, one["routes"], DAEMON, plugin)

    def _write(self, page: Page, watched: _Watched, now_s: float) -> None:
        busy = [self._health.get(f"{watched.container.id}/{name}", IDLE) for name in watched.drivers]
        is_quiet = all(one is IDLE for one in busy) and not watched.is_behind
        subject = self._subjects.log(watched.container)
        present = (subject, watched.measure, watched.found, watched.followers) if is_quiet else None
        if present is None or watched.written is None or watched.written[0] != present:
            watched.written = present, self._written(watched, subject, now_s)
        for layout, values in watched.written[1]:  # as they mostly are
            page.put(layout, values)

    def _written(
        self, watched: _Watched, subject: Subject, now_s: float
    ) -> tuple[tuple[Layout, tuple[float, ...]], tuple[Layout, tuple[float, ...]]]:
        """Return a container's series and its drivers', and their values."""
        drivers = [self._driver(watched, name, driver, now_s) for name, driver in sorted(watched.drivers.items())]
        lines = dict(watched.lines)
        shape = series.shape_of(watched.measure, lines, drivers)
        if watched.layouts is None or watched.shape != (subject, shape):
            watched.shape = subject, shape
            watched.layouts = Layout(subject, series.series_of(shape)), Layout(subject, series.driver_series(shape))
        own, of_drivers = watched.layouts
        values = series.values_of(shape, watched.measure, lines, watched.skipped, watched.followers)
        return (own, values), (of_drivers, series.driver_values(shape, drivers))

    def _driver(self, watched: _Watched, name: str, driver: _Driver, now_s: float) -> Driver:
        """Return what is to be shown of a driver."""
        state, oldest_ns = self._health.get(f"{watched.container.id}/{name}", IDLE)
        driver.states[state] = None
        account = driver.shown()
        if state == "idle":
            oldest_ns = 0  # what may be there is no whole line
        elif account.whole:
            oldest_ns = account.oldest_ns
        return Driver(
            name,
            account.terms,
            account.whole,
            account.progress.records,
            account.progress.retries,
            account.progress.dropped,
            max(0.0, now_s - oldest_ns / NS) if oldest_ns else 0.0,
            state,
            tuple(driver.states),
        )
