"""The gauge says at any moment what the readers of the whole store say, and opens nothing where nothing has changed."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_builder import StoreBuilder
from writing import put

from logd.api.stores import disk_bytes
from logd.logstore.gauge import SETTLED_NS, Gauge
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.progress import Progress, ProgressFile, read_progress, remove_progress
from logd.logstore.reader import end_positions
from logd.logstore.segment import Kind
from logd.logstore.summary import summary
from logd.logstore.totals import read_totals
from logd.record import STDERR, STDOUT

SMALL = StoreOptions(max_size=4096, max_file=3, min_free=0)


def agrees(gauge: Gauge, folder: str) -> None:
    measure, held = gauge.read(), summary(folder)
    assert measure.ends == end_positions(folder)
    assert (measure.segments, measure.stored_bytes) == (held.segments, held.stdout_bytes + held.stderr_bytes)
    assert measure.disk_bytes == disk_bytes(folder)
    assert vars_of(measure.totals) == vars_of(read_totals(folder))
    assert measure.drivers == read_progress(folder)


def vars_of(totals: Any) -> list[tuple[int, ...]]:
    return [(one.end, one.expired, one.cleared, *one.dropped) for one in totals.streams.values()]


def deliver(folder: str, name: str, **values: object) -> None:
    file = ProgressFile(folder, name, Progress())
    for field, value in values.items():
        setattr(file.progress, field, value)
    file.save()
    file.close()


OPERATIONS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from((STDOUT, STDERR)), st.integers(1, 3000)),
    st.tuples(st.just("gap"), st.sampled_from((STDOUT, STDERR)), st.integers(0, 500)),
    st.tuples(st.sampled_from(("rotate", "mark", "delete", "look")), st.just(0), st.just(0)),
)


@given(st.lists(OPERATIONS, max_size=25))
def test_it_agrees_with_the_readers_of_the_whole_store(tmp_path_factory: Any, operations: list[tuple]) -> None:
    builder = StoreBuilder(tmp_path_factory.mktemp("store") / "log")
    gauge = Gauge(builder.path)
    oldest, written_in, written_ns = 1, 0, 0
    for number, (what, stream, length) in enumerate(operations, start=1):
        if what == "write":
            builder.write(stream, b"x" * length, number)
            written_in, written_ns = builder.number, number
        elif what == "gap":
            builder.gap(stream, length, time_ns=number)
        elif what == "rotate":
            builder.rotate(number)
        elif what == "mark":
            builder.mark(Kind.BEGIN, 1, number)
        elif what == "delete" and oldest < builder.number:
            builder.delete(oldest)
            oldest += 1
        else:
            agrees(gauge, builder.path)
    agrees(gauge, builder.path)
    assert gauge.read().last_ns == written_ns or written_in < oldest
    gauge.close()
    shutil.rmtree(builder.folder)


def test_it_follows_a_writer_over_rotation_retention_and_a_clear(tmp_path: Path) -> None:
    gauge = Gauge(str(tmp_path))
    agrees(gauge, str(tmp_path))
    writer = open_store(str(tmp_path), SMALL)
    for size in (100, 5000, 30, 9000, 20_000, 1, 40_000):
        for at in range(0, size, 1500):
            put(writer, STDOUT, b"x" * min(size - at, 1500))
        put(writer, STDERR, b"oops\n")
        agrees(gauge, str(tmp_path))
    assert gauge.read().totals.streams[STDOUT].expired > 0
    writer.clear()
    agrees(gauge, str(tmp_path))
    put(writer, STDERR, b"on\n")
    agrees(gauge, str(tmp_path))
    writer.close()
    agrees(gauge, str(tmp_path))
    gauge.close()


def test_segments_that_came_and_went_between_two_looks_don_t_stop_it(tmp_path: Path) -> None:
    builder = StoreBuilder(tmp_path)
    builder.write(STDOUT, b"x" * 10, 5)
    gauge = Gauge(str(tmp_path))
    assert gauge.read().ends == (10, 0)
    for _ in range(4):
        builder.rotate(6)
        builder.write(STDOUT, b"x" * 10, 7)
    for number in (1, 2, 3):
        builder.delete(number)
    measure = gauge.read()
    assert (measure.ends, measure.segments, measure.last_ns) == ((50, 0), 2, 7)
    gauge.close()


def test_the_last_outputs_time_is_found_in_an_older_segment(tmp_path: Path) -> None:
    builder = StoreBuilder(tmp_path)
    builder.write(STDERR, b"last\n", 17)
    builder.rotate(20)
    builder.mark(Kind.END, 1, 30)
    gauge = Gauge(str(tmp_path))
    assert gauge.read().last_ns == 17
    gauge.close()


def test_the_last_figures_stay_when_the_folder_is_moved_and_deleted(tmp_path: Path) -> None:
    builder = StoreBuilder(tmp_path / "log")
    builder.write(STDOUT, b"one\n")
    deliver(builder.path, "x", delivered=4)
    gauge = Gauge(builder.path)
    gauge.read()
    builder.folder.rename(tmp_path / "moved")
    builder.folder = tmp_path / "moved"
    builder.write(STDOUT, b"two\n")
    assert gauge.read().ends == (8, 0)
    shutil.rmtree(builder.folder)
    measure = gauge.read()
    assert (measure.ends, measure.drivers["x"].delivered) == ((8, 0), 4)
    gauge.close()


def test_a_driver_that_was_removed_and_came_again_begins_anew(tmp_path: Path) -> None:
    deliver(str(tmp_path), "x", delivered=4)
    gauge = Gauge(str(tmp_path))
    assert gauge.read().drivers["x"].delivered == 4
    remove_progress(str(tmp_path), "x")
    deliver(str(tmp_path), "x")
    deliver(str(tmp_path), "y", records=1)
    drivers = gauge.read().drivers
    assert (drivers["x"].delivered, drivers["y"].records) == (0, 1)
    remove_progress(str(tmp_path), "x")
    assert list(gauge.read().drivers) == ["y"]
    gauge.close()


def test_a_slot_torn_in_the_middle_of_a_save_leaves_the_last_figures(tmp_path: Path) -> None:
    deliver(str(tmp_path), "x", delivered=4)
    gauge = Gauge(str(tmp_path))
    assert gauge.read().drivers["x"].delivered == 4
    path = tmp_path / "cursors" / "x"
    path.write_bytes(b"?" * path.stat().st_size)
    assert gauge.read().drivers["x"].delivered == 4
    gauge.close()


@pytest.fixture
def opened() -> Callable[[], list[object]]:
    """Return what this process has opened or listed since the last call."""
    calls: list[object] = []
    ours = os.getpid()

    def hook(event: str, arguments: tuple) -> None:
        if event in {"open", "os.scandir", "os.listdir"} and os.getpid() == ours:
            calls.append(arguments[0])

    sys.addaudithook(hook)  # stays for good, and costs little

    def take() -> list[object]:
        taken = list(calls)
        calls.clear()
        return taken

    return take


def test_a_look_at_a_store_that_has_only_grown_opens_nothing(
    tmp_path: Path, opened: Callable[[], list[object]]
) -> None:
    builder = StoreBuilder(tmp_path)
    builder.write(STDOUT, b"one\n")
    deliver(str(tmp_path), "x")
    gauge = Gauge(str(tmp_path))
    gauge.read()
    while time.time_ns() - max(tmp_path.stat().st_mtime_ns, (tmp_path / "cursors").stat().st_mtime_ns) <= SETTLED_NS:
        pass  # names may change again without a sign
    gauge.read()
    opened()
    gauge.read()
    assert opened() == []
    with open(tmp_path / "0000000001.stdout", "ab") as data:
        data.write(b"two\n")
    builder.entry(STDOUT, 4, 4, Kind.DATA)
    opened()
    assert gauge.read().ends == (8, 0)
    assert opened() == []
    gauge.close()
