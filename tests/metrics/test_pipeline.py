"""What stores and drivers are shown to have done, on real stores and with the real observer's process."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from scraping import Scrape

from logd.config import DaemonConfig
from logd.container import Container, Record, State
from logd.logstore.gauge import SETTLED_NS
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.progress import Progress, ProgressFile
from logd.logstore.reader import RawReader, end_positions
from logd.logstore.writer import StoreWriter
from logd.metrics import observing, pipeline
from logd.metrics.daemon import LoggerCounts
from logd.metrics.exposition import render
from logd.metrics.families import Page
from logd.metrics.pipeline import PipelineCollector
from logd.metrics.subjects import Subjects
from logd.record import STDERR, STDOUT, Run
from logd.spec import ContainerSpec, HostConfig

LARGE = StoreOptions(max_size=1 << 30, max_file=5, min_free=0)
SMALL = StoreOptions(max_size=4096, max_file=3, min_free=0)
PATIENCE_S = 60.0


class Home:
    """Containers whose stores the test writes, in the place of the engine; and a collector that looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.present: list[Container] = []
        self.removed: list[Container] = []
        self.busy: dict[str, tuple[str, int]] = {}
        self.counts = LoggerCounts()
        config = DaemonConfig(data_root=folder)
        self.collector = PipelineCollector(self, Subjects(config, lambda one: f"/logd/{one.id}"), self.counts)

    def containers(self) -> list[Container]:
        return self.present

    def departed(self) -> list[Container]:
        return self.removed

    async def delivery_health(self) -> dict[str, tuple[str, int]]:
        return self.busy

    def forwarders(self) -> list[dict[str, Any]]:
        return [{"plugin": "logd", "state": "running", "restarts": 2, "lag": 0.5, "routes": 7}]

    def add(self, name: str, *, is_old: bool = False) -> Container:
        """Add a container, created now or before the daemon was started."""
        number = len(self.present) + len(self.removed)
        container = Container(
            Record(
                id=f"{number:064x}",
                name=name,
                created_ns=1 if is_old else time.time_ns(),
                image_id="sha256:1",
                image_ref="busybox",
                os="linux",
                path="sh",
                args=[],
                config=ContainerSpec(image="busybox"),
                host_config=HostConfig(),
                mounts=[],
                run=1,
                restart_count=0,
                state=State(running=True),
            ),
            self.folder / f"{number:064x}",
            self.folder,
        )
        container.log_dir.mkdir(parents=True)
        self.present.append(container)
        return container

    async def scrape(self) -> Scrape:
        page = Page(self.collector.families)
        await self.collector.gather()
        await asyncio.to_thread(self.collector.collect, page)
        return Scrape(render(page, "text"))

    async def scrape_until(self, holds: Callable[[Scrape], object]) -> Scrape:
        """Scrape until the observer has found out what is waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(AssertionError):
                seen = await self.scrape()
                if holds(seen):
                    return seen
            assert time.monotonic() < deadline, seen.text
            await asyncio.sleep(0.05)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path)
    yield made
    await made.collector.close()


def put(writer: StoreWriter, stream: int, data: bytes) -> None:
    reading, writing = os.pipe()
    for at in range(0, len(data), 60_000):
        piece = data[at : at + 60_000]
        os.write(writing, piece)
        assert writer.take(stream, reading, len(piece)) == 0
    os.close(reading)
    os.close(writing)


def deliver(container: Container, name: str = "x", **values: object) -> None:
    file = ProgressFile(str(container.log_dir), name, Progress(budget=1 << 30))
    for field, value in values.items():
        setattr(file.progress, field, value)
    file.save()
    file.close()


def lines(seen: Scrape, name: str) -> dict[str, int]:
    return {one.labels["level"]: int(one.value) for one in seen.series("logd_lines_total", name=name) if one.value}


async def test_a_store_is_shown_as_it_is(home: Home) -> None:
    container = home.add('we"b')
    deliver(container)
    await home.scrape()
    writer = open_store(str(container.log_dir), LARGE)
    put(writer, STDOUT, b"INFO one\nplain\n")
    put(writer, STDERR, b"ERROR two\n")
    deliver(container, delivered=15, records=2, positions=(15, 0))
    seen = await home.scrape_until(lambda one: sum(lines(one, 'we"b').values()) == 3)
    of = {"id": f"/logd/{container.id}", "name": 'we"b'}
    assert lines(seen, 'we"b') == {"info": 1, "error": 1, "none": 1}
    assert seen.value("logd_lines_total", **of, level="critical") == 0
    assert seen.value("logd_captured_bytes_total", **of, stream="stdout") == 15
    assert seen.value("logd_captured_bytes_total", **of, stream="stderr") == 10
    assert seen.value("logd_stored_bytes", **of) == 25
    assert seen.value("logd_store_segments", **of) == 1
    assert seen.value("logd_store_disk_bytes", **of) > 0
    assert seen.value("logd_store_dropped_bytes_total", **of, stream="stdout", reason="no-space") == 0
    assert abs(seen.value("logd_last_output_timestamp_seconds", **of) - time.time()) < PATIENCE_S
    assert seen.value("logd_followers", **of) == 0
    driver = {**of, "driver": "x"}
    seen = await home.scrape_until(lambda one: one.value("logd_driver_buffered_bytes", **driver) == 10)
    assert seen.value("logd_driver_captured_bytes_total", **driver) == 25
    assert seen.value("logd_driver_delivered_bytes_total", **driver) == 15
    assert seen.value("logd_driver_unaccounted_bytes", **driver) == 0
    assert seen.value("logd_driver_up", **driver) == 1
    assert seen.value("logd_forwarder_up", plugin="logd") == 1
    assert seen.value("logd_forwarder_restarts_total", plugin="logd") == 2
    assert seen.value("logd_forwarder_deliveries", plugin="logd") == 7
    with contextlib.closing(container.hold_log()):
        assert (await home.scrape()).value("logd_followers", **of) == 1
    writer.close()


async def test_every_line_counts_once_over_rotation_and_kills_of_the_observer(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "BACKOFF_S", (0.0,))
    old = home.add("old", is_old=True)
    writers = {"old": open_store(str(old.log_dir), StoreOptions(max_size=20_000, max_file=1000, min_free=0))}
    put(writers["old"], STDOUT, b"before the first scrape\n")
    await home.scrape()
    new = home.add("new")
    writers["new"] = open_store(str(new.log_dir), LARGE)
    rng = random.Random(7)
    text = b"".join(b"%s line %d\n" % (rng.choice((b"ERROR", b"INFO", b"some")), at) for at in range(6000))
    at, pids = 0, set()
    while at < len(text):
        size = rng.choice((1, 50, 3000, 9000))
        for writer in writers.values():
            put(writer, STDOUT if at % 2 else STDERR, text[at : at + size])
        at += size
        if rng.random() < 0.15:
            await home.scrape()
            pid = home.collector._observing.pid
            if pid and rng.random() < 0.4:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pids.add(pid)
    for writer in writers.values():
        put(writer, STDOUT, b"\n")
        put(writer, STDERR, b"\n")
    stores = {"old": old, "new": new}
    expected = {name: newlines(str(one.log_dir)) for name, one in stores.items()}
    expected["old"] -= 1  # that was there before
    seen = await home.scrape_until(lambda one: {name: sum(lines(one, name).values()) for name in stores} == expected)
    assert lines(seen, "old").keys() == {"error", "info", "none"}
    assert len(pids - {0}) > 1
    assert seen.value("logd_lines_skipped_bytes_total", name="new") == 0
    for writer in writers.values():
        writer.close()


def newlines(folder: str) -> int:
    with RawReader(folder, start=(0, 0)) as reader:
        count = 0
        while items := reader.read():
            count += sum(item.data.count(b"\n") for item in items if isinstance(item, Run))
        return count


async def test_what_retention_took_before_it_was_looked_at_is_skipped_and_counted(home: Home) -> None:
    await home.scrape()
    container = home.add("web")
    writer = open_store(str(container.log_dir), SMALL)
    put(writer, STDOUT, b"x" * 99 + b"\n")
    await home.scrape_until(lambda one: lines(one, "web") == {"none": 1})
    os.kill(home.collector._observing.pid, signal.SIGSTOP)
    for _ in range(1000):
        put(writer, STDOUT, b"x" * 99 + b"\n")
    os.kill(home.collector._observing.pid, signal.SIGCONT)

    def all_seen(one: Scrape) -> bool:
        return sum(lines(one, "web").values()) * 100 + one.value("logd_lines_skipped_bytes_total") == 100_100

    seen = await home.scrape_until(all_seen)
    assert seen.value("logd_lines_skipped_bytes_total", name="web") > 80_000
    assert seen.value("logd_store_expired_bytes_total", name="web") > 80_000
    writer.close()


BROKEN = [{"delivered": 3}, {"unconfirmed": 1}, {"dropped": {"rejected": 2}}, {"positions": (3, 0)}]


@pytest.mark.parametrize("text", [b"1234", b"12345678"], ids=["caught up", "behind"])
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_counter_shows(home: Home, broken: dict[str, object], text: bytes) -> None:
    container = home.add("web")
    writer = open_store(str(container.log_dir), LARGE)
    put(writer, STDOUT, text)
    writer.close()
    deliver(container, positions=(4, 0), delivered=4)
    await home.scrape_until(lambda one: one.value("logd_driver_unaccounted_bytes", driver="x") == 0)
    deliver(container, **broken)
    await home.scrape_until(lambda one: one.value("logd_driver_unaccounted_bytes", driver="x") != 0)


async def test_the_account_adds_up_at_any_moment_while_bytes_flow(home: Home) -> None:
    container = home.add("web")
    folder = str(container.log_dir)
    file = ProgressFile(folder, "x", Progress())
    writer = open_store(folder, SMALL)
    done = threading.Event()

    def flow() -> None:
        reading = RawReader(folder, start=(0, 0))
        while not done.is_set():
            put(writer, random.choice((STDOUT, STDERR)), b"x" * random.randrange(1, 200))
            if random.random() < 0.1:
                for item in reading.read(1000):
                    if isinstance(item, Run):
                        file.progress.delivered += len(item.data)
                    else:
                        file.progress.dropped["retention"] = file.progress.dropped.get("retention", 0) + item.length
                file.progress.positions = reading.position
                file.save()
        reading.close()

    flowing = threading.Thread(target=flow)
    flowing.start()
    try:
        before: dict[str, float] = {}
        accounts, deadline = 0, time.monotonic() + PATIENCE_S
        while accounts < 40:
            assert time.monotonic() < deadline
            seen = await home.scrape()
            for one in seen.series("logd_driver_unaccounted_bytes"):
                assert one.value == 0, seen.text
                accounts += 1
            counters = {key(one): one.value for one in seen.samples if one.name.endswith("_total")}
            assert all(value >= before.get(name, 0) for name, value in counters.items())
            before = counters
    finally:
        done.set()
        flowing.join()
    assert before["logd_driver_delivered_bytes_total{'driver': 'x'}"] > 0
    file.close()
    writer.close()


def key(sample: Any) -> str:
    own = {name: value for name, value in sample.labels.items() if name not in {"id", "name"}}
    return f"{sample.name}{own}"


async def test_a_driver_that_is_behind_shows_how_long_and_how_much(home: Home) -> None:
    container = home.add("web")
    deliver(container, budget=0)
    writer = open_store(str(container.log_dir), SMALL)
    began_s = time.time()
    for _ in range(1000):
        put(writer, STDOUT, b"x" * 99 + b"\n")
    home.busy = {f"{container.id}/x": ("retrying", 1)}
    await home.scrape_until(lambda one: one.value("logd_driver_unread_gap_bytes", driver="x") > 0)
    seen = await home.scrape()
    buffered = seen.value("logd_driver_buffered_bytes", driver="x")
    assert buffered == seen.value("logd_stored_bytes", name="web") > 0
    assert buffered + seen.value("logd_driver_unread_gap_bytes", driver="x") == 100_000
    assert 0 < seen.value("logd_driver_lag_seconds", driver="x") <= time.time() - began_s
    assert seen.value("logd_driver_up", driver="x") == 0
    assert seen.value("logd_driver_state", driver="x", state="retrying") == 1
    home.busy = {}
    deliver(container, positions=end_positions(str(container.log_dir)), delivered=100_000)
    seen = await home.scrape()
    assert seen.value("logd_driver_lag_seconds", driver="x") == 0
    assert seen.value("logd_driver_state", driver="x", state="retrying") == 0
    assert seen.value("logd_driver_state", driver="x", state="idle") == 1
    assert seen.value("logd_driver_unaccounted_bytes", driver="x") == 0
    writer.close()


async def test_the_last_figures_of_a_removed_container_are_seen(home: Home) -> None:
    container = home.add("web")
    deliver(container)
    writer = open_store(str(container.log_dir), LARGE)
    put(writer, STDOUT, b"one\n")
    await home.scrape()
    put(writer, STDOUT, b"two\n")
    writer.close()
    deliver(container, positions=(8, 0), delivered=8)
    container.removed = True
    home.present, home.removed = [], [container]
    shutil.rmtree(container.dir)
    seen = await home.scrape()
    assert seen.value("logd_captured_bytes_total", name="web", stream="stdout") == 8
    assert seen.value("logd_driver_delivered_bytes_total", name="web", driver="x") == 8
    assert seen.value("logd_driver_unaccounted_bytes", name="web", driver="x") == 0
    home.removed = []
    assert (await home.scrape()).series("logd_captured_bytes_total") == []


async def test_dockers_counters_count_what_happens_while_the_daemon_runs(home: Home) -> None:
    container = home.add("web", is_old=True)
    deliver(container, retries=5, long_lines=2)
    await home.scrape()
    assert (home.counts.writes_failed, home.counts.entries_too_long) == (0, 0)
    deliver(container, retries=7, long_lines=3)
    await home.scrape()
    later = home.add("later")
    deliver(later, retries=1)
    await home.scrape()
    assert (home.counts.writes_failed, home.counts.entries_too_long) == (3, 1)


async def test_with_few_descriptors_stores_are_opened_at_each_scrape_and_one_that_fails_costs_no_other(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "FILES_A_STORE", 1 << 40)
    for name in ("one", "two"):
        deliver(home.add(name), delivered=3)
    writer = open_store(str(home.present[0].log_dir), LARGE)
    for _ in range(2):
        put(writer, STDOUT, b"one\n")
        before = len(os.listdir("/proc/self/fd"))
        seen = await home.scrape()
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the observer's
    await home.scrape_until(lambda one: lines(one, "one") == {"none": 2})
    writer.close()
    (home.present[1].log_dir / "cursors").rename(home.folder / "gone")
    (home.present[1].log_dir / "cursors").write_text("no folder")
    seen = await home.scrape()
    assert seen.value("logd_captured_bytes_total", name="one", stream="stdout") == 8
    assert seen.series("logd_captured_bytes_total", name="two")


async def test_the_writable_layers_size_is_found(home: Home) -> None:
    container = home.add("web")
    container.upper.mkdir()
    (container.upper / "file").write_bytes(b"x" * 1000)
    assert home.collector.layer_bytes(container) is None
    await home.scrape_until(lambda _: home.collector.layer_bytes(container) == 1000)


async def test_a_scrape_of_stores_in_which_nothing_happens_opens_nothing(home: Home) -> None:
    for number in range(20):
        container = home.add(f"c{number}")
        deliver(container)
        writer = open_store(str(container.log_dir), LARGE)
        put(writer, STDOUT, b"one\n")
        writer.close()
        deliver(container, positions=(4, 0), delivered=4)
    await home.scrape()
    newest_ns = max(one.stat().st_mtime_ns for one in home.folder.rglob("*"))
    while time.time_ns() - newest_ns <= SETTLED_NS:
        await asyncio.sleep(0)
    await home.scrape()
    opened: list[object] = []
    is_counting = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if is_counting and event in {"open", "os.scandir", "os.listdir"}:
            opened.append(arguments[0])

    sys.addaudithook(hook)  # stays for good
    await home.scrape()
    is_counting = False
    assert opened == []
