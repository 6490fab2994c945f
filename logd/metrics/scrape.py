"""One scrape: the collectors are asked one after the other in a thread, what they write becomes a page.

Who asks while a scrape is under way gets the next one, together with all who ask for the same meanwhile: any number of
scrapers costs the work of one. Each page is made of what there is then, so that what is gone does not stay.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final, NamedTuple

from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from logd.metrics.daemon import DaemonMetrics
from logd.metrics.exposition import CONTENT_TYPES, EOF, Format
from logd.metrics.families import DAEMON, Collector, Family, Page
from logd.metrics.pieces import Pages

log = logging.getLogger(__name__)

GATHER_S: Final = 2.0
"""What a collector's `gather` may take: Prometheus gives up after 10 s."""
DURATION: Final = Family(
    "logd_scrape_collector_duration_seconds", "gauge", "How long a collector took in this scrape.", ("collector",)
)
SUCCESS: Final = Family(
    "logd_scrape_collector_success",
    "gauge",
    "Whether a collector succeeded; without that its series are missing.",
    ("collector",),
)


FAMILIES: Final = (DURATION, SUCCESS)


class Wanted(NamedTuple):
    """What a scraper asks for."""

    style: Format
    gzip: bool


class Scraper:
    """All metrics. `page` is called in the event loop."""

    def __init__(self, daemon: DaemonMetrics, collectors: Sequence[Collector]) -> None:
        self.daemon: Final = daemon
        self.families: Final = (*(one for part in collectors for one in part.families), *FAMILIES)
        names = [family.name for family in self.families]
        assert len(set(names)) == len(names), "a metric is in two collectors"
        self._collectors = tuple(collectors)
        self._failing: set[str] = set()
        self._lock = asyncio.Lock()
        self._waiting: dict[Wanted, asyncio.Task[bytes]] = {}
        self._pages: dict[Format, Pages] = {style: Pages(style) for style in CONTENT_TYPES}
        self._thread = ThreadPoolExecutor(1, "metrics")

    def close(self) -> None:
        """Scrape no more."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.daemon.close()

    async def page(self, wanted: Wanted) -> bytes:
        """Return a page that was begun after this call."""
        task = self._waiting.get(wanted)
        if task is None:
            task = asyncio.create_task(self._scrape(wanted), name="scrape")
            self._waiting[wanted] = task
        return await asyncio.shield(task)

    async def _scrape(self, wanted: Wanted) -> bytes:
        async with self._lock:
            del self._waiting[wanted]
            self.daemon.look()
            pages = []
            took_s: dict[str, float] = {}
            for collector in self._collectors:
                begun = time.perf_counter()
                pages.append(await self._ask(collector))
                took_s[collector.name] = time.perf_counter() - begun
            pages.append(self._accounts(took_s))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._finished, wanted, pages)

    async def _ask(self, collector: Collector) -> Page:
        """Return a collector's series, none where it fails: that is told when it begins and when it ends."""
        page = Page(collector.families)
        try:
            async with asyncio.timeout(GATHER_S):
                await collector.gather()
            await asyncio.get_running_loop().run_in_executor(self._thread, collector.collect, page)
        except Exception:  # whatever it is, the others' series are worth having
            if collector.name not in self._failing:
                log.exception("metrics: the collector %s fails", collector.name)
            self._failing.add(collector.name)
            return Page(())
        if collector.name in self._failing:
            log.info("metrics: the collector %s succeeds again", collector.name)
            self._failing.discard(collector.name)
        return page

    def _accounts(self, took_s: dict[str, float]) -> Page:
        page = Page(FAMILIES)
        for name, seconds in took_s.items():
            page.add(DURATION, seconds, DAEMON, name)
            page.add(SUCCESS, int(name not in self._failing), DAEMON, name)
        return page

    def _finished(self, wanted: Wanted, pages: Sequence[Page]) -> bytes:
        """Put the page together (in a thread)."""
        generate = generate_openmetrics if wanted.style == "openmetrics" else generate_latest
        own = generate(self.daemon.registry).removesuffix(EOF.encode())
        return self._pages[wanted.style].page(own, _parts(pages), gzip=wanted.gzip)


def _parts(pages: Sequence[Page]) -> Iterator[tuple[Family, list[Sequence[str]]]]:
    return chain.from_iterable(page.parts() for page in pages)
