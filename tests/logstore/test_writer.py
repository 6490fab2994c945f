"""The writer and its recovery: whatever stops it, what was taken is there once, exactly, at its own position."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writing import BIG, abandon, die_at, put, stored

from logd.logstore import opening
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.segment import Kind, data_name, index_name, segment_numbers
from logd.logstore.totals import SLOT_BYTES, read_totals
from logd.logstore.writer import StoreWriter
from logd.record import STDERR, STDOUT

STREAMS = (STDOUT, STDERR)


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="logd-store-"))
    try:
        yield folder / "log"
    finally:
        shutil.rmtree(folder)


@contextmanager
def opened(folder: Path, options: StoreOptions = BIG) -> Iterator[StoreWriter]:
    writer = open_store(str(folder), options)
    try:
        yield writer
    finally:
        writer.close()


# -- batches, rotations, recoveries ------------------------------------------------------------------------------

batches = st.tuples(st.sampled_from(STREAMS), st.binary(min_size=1, max_size=40))
steps = st.lists(
    st.one_of(
        batches,
        st.just("rotate"),
        st.just("close"),
        st.just("die"),
        st.just("hand over"),
        st.tuples(st.just("cut index"), st.integers(0, 200)),
        st.tuples(st.just("cut data"), st.sampled_from(STREAMS), st.integers(0, 60)),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_what_was_taken_is_read_back_and_no_position_is_used_twice(story: list) -> None:
    with scratch() as folder:
        model = Model(folder)
        for step in story:
            model.do(step)
        model.check()
        model.writer.close()


class Model:
    """A store, and each byte that was put into it by its position."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = open_store(str(folder), BIG)
        self.bytes: dict[int, dict[int, int]] = {STDOUT: {}, STDERR: {}}

    def do(self, step: object) -> None:
        if step == "rotate":
            self.writer.rotate()
        elif step == "close":
            self.writer.close()
            self.writer = open_store(str(self.folder), BIG)
        elif step == "die":
            self.reopen()
        elif step == "hand over":
            self.writer.leave()
            self.writer = StoreWriter(str(self.folder), BIG, self.writer.lock, self.writer.place)
        elif step[0] == "cut index":  # type: ignore[index]
            self.cut_index(step[1])  # type: ignore[index]
        elif step[0] == "cut data":  # type: ignore[index]
            self.cut_data(step[1], step[2])  # type: ignore[index]
        else:
            self.put(*step)  # type: ignore[misc]

    def put(self, stream: int, data: bytes) -> None:
        position = self.writer.ends[stream]
        assert not set(range(position, position + len(data))) & self.bytes[stream].keys(), "a position is used twice"
        assert put(self.writer, stream, data) == 0
        self.bytes[stream] |= dict(enumerate(data, position))

    def reopen(self) -> None:
        abandon(self.writer)
        self.writer = open_store(str(self.folder), BIG)

    def cut_index(self, count: int) -> None:
        """The process died before its last entries were written: nothing is lost, but for entries with their header."""
        path = self.folder / index_name(self.writer.number)
        size = max(0, path.stat().st_size - count)
        os.truncate(path, size)
        if size < 96:  # the header is gone: the segment is set aside, its bytes with it
            for stream in STREAMS:
                first = self.writer.place.begins[stream - 1]
                self.bytes[stream] = {at: byte for at, byte in self.bytes[stream].items() if at < first}
        self.reopen_at_or_after()

    def cut_data(self, stream: int, count: int) -> None:
        """The machine died before its last pages were written; the index tells of more."""
        path = self.folder / data_name(self.writer.number, stream)
        if not path.exists():
            return
        size = max(0, path.stat().st_size - count)
        os.truncate(path, size)
        last = self.writer.place.begins[stream - 1] + size
        self.bytes[stream] = {at: byte for at, byte in self.bytes[stream].items() if at < last}
        self.reopen_at_or_after()

    def reopen_at_or_after(self) -> None:
        before = dict(self.writer.ends)
        self.reopen()
        for stream in STREAMS:
            assert self.writer.ends[stream] >= before[stream], "a reader may have seen what is gone now"

    def check(self) -> None:
        found = stored(self.folder)
        for stream in STREAMS:
            have = {at + n: byte for at, data in found.runs[stream] for n, byte in enumerate(data)}
            assert have == self.bytes[stream]
            ends = [at + len(data) for at, data in found.runs[stream]]
            begins = [at for at, _ in found.runs[stream]]
            assert all(begin >= end for begin, end in zip(begins[1:], ends[:-1], strict=True))


@pytest.mark.parametrize("name", ["index", "stdout", "stderr"])
def test_a_store_cut_at_any_byte_opens_and_goes_on(tmp_path: Path, name: str) -> None:
    whole = tmp_path / "whole"
    with opened(whole) as writer:
        for number in range(6):
            put(writer, STREAMS[number % 2], b"%d line\n" % number)
    full = (whole / f"0000000001.{name}").read_bytes()
    before = stored(whole)
    for size in range(len(full)):
        folder = tmp_path / str(size)
        shutil.copytree(whole, folder)
        os.truncate(folder / f"0000000001.{name}", size)
        with opened(folder) as writer:
            at = dict(writer.ends)
            put(writer, STDOUT, b"more\n")
            put(writer, STDERR, b"more\n")
        after = stored(folder)
        for stream in STREAMS:
            assert at[stream] >= before.end(stream), "a position is used twice"
            assert after.runs[stream][-1] == (at[stream], b"more\n")
            assert before.text(stream).startswith(after.text(stream)[: -len(b"more\n")])
        if name == "index" and size >= 96:
            assert [after.text(stream)[:-5] for stream in STREAMS] == [before.text(stream) for stream in STREAMS]
        shutil.rmtree(folder)


# -- kills -------------------------------------------------------------------------------------------------------


def _write_and_rotate(writer: StoreWriter) -> None:
    put(writer, STDOUT, b"third\n")
    writer.rotate()
    put(writer, STDOUT, b"fourth\n")


@pytest.mark.parametrize(
    ("step", "nth", "kept"),
    [
        pytest.param("splice", 1, b"", id="before the data"),
        pytest.param("pwrite", 1, b"third\n", id="between data and entry"),
        pytest.param("rename", 1, b"third\n", id="before the new index has its name"),
        pytest.param("close", 3, b"third\n", id="while the old segment is closed"),
        pytest.param("pwrite", 2, b"third\n", id="before the counts are saved"),
        pytest.param("unlink", 1, b"third\n", id="before the oldest segment's index goes"),
        pytest.param("unlink", 2, b"third\n", id="between the oldest segment's index and its data"),
        pytest.param("pwrite", 4, b"third\nfourth\n", id="after the rotation, between data and entry"),
    ],
)
def test_a_writer_killed_at_a_step_leaves_a_store_that_goes_on(
    tmp_path: Path, step: str, nth: int, kept: bytes
) -> None:
    options = StoreOptions(max_size=1 << 40, max_file=2, min_free=0)
    folder = tmp_path / "log"
    with opened(folder, options) as writer:
        put(writer, STDOUT, b"first\n")
        writer.rotate()
        put(writer, STDOUT, b"second\n")
    die_at(step, nth, folder, options, _write_and_rotate)
    with opened(folder, options) as writer:
        assert writer.ends[STDOUT] == len(b"first\nsecond\n" + kept)
        put(writer, STDOUT, b"last\n")
    found = stored(folder)
    assert (b"first\nsecond\n" + kept + b"last\n").endswith(found.text(STDOUT))
    assert found.text(STDOUT).endswith(kept + b"last\n")
    assert found.gaps == []
    names = {path.name.partition(".")[0] for path in folder.glob("0*")}
    assert names == {f"{number:010}" for number in segment_numbers(str(folder))}, "debris of a removed segment"
    lost = len(b"first\nsecond\n" + kept + b"last\n") - len(found.text(STDOUT))
    assert read_totals(str(folder)).streams[STDOUT].expired in (lost, 0)  # 0: killed before it was counted


def test_a_second_writer_waits_for_the_first_ones_end(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    writer = open_store(str(folder), BIG)
    put(writer, STDOUT, b"one\n")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(writer.lock)  # a fork shares the lock
            with opened(folder) as second:
                os.write(writing, b"%d" % second.ends[STDOUT])
        finally:
            os._exit(0)
    os.close(writing)
    time.sleep(0.1)
    put(writer, STDOUT, b"two\n")
    writer.close()
    assert os.read(reading, 16) == b"8"
    os.close(reading)
    os.waitpid(pid, 0)


# -- time --------------------------------------------------------------------------------------------------------


def test_a_clock_that_steps_back_begins_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [2_000_000_000]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    with opened(tmp_path / "log") as writer:
        put(writer, STDOUT, b"before\n")
        now[0] -= 1_000_000_000
        put(writer, STDOUT, b"at the step\n")
        put(writer, STDOUT, b"after\n")
    found = stored(tmp_path / "log")
    assert found.text(STDOUT) == b"before\nat the step\nafter\n"
    assert len(found.times) == 2
    assert all(times == sorted(times) for times in found.times)
    assert found.times[1][0] == 1_000_000_000


def test_another_boot_begins_a_segment_beyond_all_that_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "log"
    with opened(folder) as writer:
        put(writer, STDOUT, b"on the disk\n")
        put(writer, STDOUT, b"in the page cache\n")
    os.truncate(folder / "0000000001.stdout", len(b"on the disk\n"))
    monkeypatch.setattr(opening, "read_boot_id", lambda: bytes(16))
    with opened(folder) as writer:
        assert writer.number == 2
        put(writer, STDOUT, b"new\n")
    found = stored(folder)
    assert found.runs[STDOUT] == [(0, b"on the disk\n"), (30, b"new\n")]
    assert found.gaps == [(STDOUT, 12, 18, "unclean-boot")]


# -- bounds ------------------------------------------------------------------------------------------------------


def test_max_size_and_max_file_bound_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with opened(folder, StoreOptions(max_size=100, max_file=3, min_free=0)) as writer:
        for number in range(20):
            assert writer.room() <= 100
            put(writer, STREAMS[number % 2], b"%049d\n" % number)
        assert segment_numbers(str(folder)) == [9, 10, 11]
    found = stored(folder)
    assert found.text(STDOUT) == b"%049d\n%049d\n" % (16, 18)
    totals = read_totals(str(folder)).streams
    assert [(totals[stream].expired, totals[stream].end) for stream in STREAMS] == [(400, 500), (400, 500)]


def test_max_age_removes_closed_segments_with_old_last_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    folder = tmp_path / "log"
    with opened(folder, StoreOptions(max_age_s=60, min_free=0)) as writer:
        put(writer, STDOUT, b"old\n")
        writer.rotate()
        now[0] += 50 * 10**9
        put(writer, STDOUT, b"younger\n")
        writer.rotate()
        now[0] += 20 * 10**9
        writer.enforce()
        assert stored(folder).text(STDOUT) == b"younger\n"
        now[0] += 50 * 10**9
        put(writer, STDOUT, b"open\n")
        writer.enforce()
    assert stored(folder).text(STDOUT) == b"open\n"


def test_max_total_counts_the_stores_of_the_host_and_frees_this_ones(tmp_path: Path) -> None:
    other, folder = (tmp_path / name / "log" for name in ("other", "this"))
    with opened(other) as writer:
        put(writer, STDOUT, bytes(40_000))
    with opened(folder, StoreOptions(max_total=400_000, max_file=100, min_free=0)) as writer:
        for _ in range(10):
            put(writer, STDOUT, bytes(40_000))
            writer.rotate()
        assert sum(file.stat().st_blocks for file in tmp_path.glob("*/log/*")) * 512 <= 400_000
        assert 1 < len(segment_numbers(str(folder))) < 10
    assert stored(other).end(STDOUT) == 40_000


def test_min_free_frees_own_segments_then_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    free = [1 << 30]
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=1 << 30, f_frsize=1, f_bavail=free[0]))
    with opened(folder, StoreOptions(max_size=1 << 40, max_file=9, min_free=1000)) as writer:
        put(writer, STDOUT, b"old\n")
        writer.rotate()
        free[0] = 0
        for _ in range(130):  # 8.4 MB: the host is looked at every 8 MiB
            put(writer, STDOUT, bytes(65_000))
        assert writer.dropping
        put(writer, STDERR, b"lost\n")
        assert read_totals(str(folder)).streams[STDOUT].expired == 4
        assert read_totals(str(folder)).streams[STDERR].dropped[2] == 5
        free[0] = 1 << 30
        while not writer.resume():
            time.sleep(0.01)
        put(writer, STDERR, b"kept\n")
    found = stored(folder)
    assert found.end(STDOUT) == 4 + 130 * 65_000
    assert found.runs[STDERR] == [(5, b"kept\n")]
    assert found.gaps == [(STDERR, 0, 5, "min-free")]


def test_a_lease_keeps_every_segment_that_holds_something_beyond_it(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with opened(folder, StoreOptions(max_size=10, max_file=2, min_free=0)) as writer:
        writer.protected = (15, 0)
        for number in range(6):
            put(writer, STDOUT, b"%09d\n" % number)
        assert stored(folder).runs[STDOUT][0][0] == 10, "only what lies wholly before the lease is gone"
        writer.protected = None
        writer.enforce()
        assert segment_numbers(str(folder)) == [6, 7]


def test_clearing_removes_and_counts_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with opened(folder) as writer:
        put(writer, STDOUT, b"gone\n")
        writer.clear()
        put(writer, STDOUT, b"new\n")
    assert stored(folder).runs[STDOUT] == [(5, b"new\n")]
    totals = read_totals(str(folder)).streams[STDOUT]
    assert (totals.cleared, totals.expired, totals.end) == (5, 0, 9)


def test_what_is_cleared_on_a_full_disk_counts_as_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=1 << 30, f_frsize=1, f_bavail=0))
    with opened(folder, StoreOptions(min_free=1000)) as writer:
        put(writer, STDOUT, b"gone\n")
        writer.clear()
    totals = read_totals(str(folder)).streams[STDOUT]
    assert (totals.cleared, totals.expired) == (5, 0)


# -- a full disk -------------------------------------------------------------------------------------------------


class FullDisk:
    """A disk on which data no longer fits; small writes still do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._splice = os.splice
        monkeypatch.setattr(os, "splice", self.splice)

    def splice(self, source: int, target: int, count: int) -> int:
        if self.full and not os.path.samestat(os.fstat(target), os.stat(os.devnull)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._splice(source, target, count)


def test_what_a_full_disk_costs_is_a_gap_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    folder = tmp_path / "log"
    with opened(folder) as writer:
        put(writer, STDOUT, b"before\n")
        disk.full = True
        assert put(writer, STDOUT, b"lost\n") == 5
        assert put(writer, STDOUT, b"lost too\n") == 9
        disk.full = False
        while not writer.resume():
            time.sleep(0.01)
        put(writer, STDOUT, b"after\n")
        writer.clear()
    found = stored(folder)
    totals = read_totals(str(folder)).streams[STDOUT]
    assert totals.dropped[1] == 14
    assert totals.cleared == len(b"before\nafter\n"), "what was dropped is not counted again"
    assert totals.end == totals.dropped[1] + totals.cleared
    assert found.runs[STDOUT] == []


def test_the_gap_of_a_full_disk_stands_where_the_bytes_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    folder = tmp_path / "log"
    writer = open_store(str(folder), BIG)
    put(writer, STDOUT, b"before\n")
    disk.full = True
    put(writer, STDOUT, b"lost\n")
    abandon(writer)  # the writer dies with the gap only in its counts
    disk.full = False
    with opened(folder) as writer:
        put(writer, STDOUT, b"after\n")
    found = stored(folder)
    assert found.runs[STDOUT] == [(0, b"before\n"), (12, b"after\n")]
    assert found.gaps == [(STDOUT, 7, 5, "no-space")]


def test_own_old_segments_go_before_anything_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    folder = tmp_path / "log"
    with opened(folder) as writer:
        put(writer, STDOUT, b"old\n")
        writer.rotate()
        disk.full = True
        real = os.unlink

        def unlink(path: str) -> None:
            real(path)
            disk.full = False

        monkeypatch.setattr(os, "unlink", unlink)
        assert put(writer, STDOUT, b"new\n") == 0
    assert stored(folder).runs[STDOUT] == [(4, b"new\n")]
    assert read_totals(str(folder)).streams[STDOUT].expired == 4


# -- durability --------------------------------------------------------------------------------------------------


def test_sync_always_forces_each_batch_and_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[str] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        forced.append(os.readlink(f"/proc/self/fd/{descriptor}").rpartition(".")[2])
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with opened(tmp_path / "log", BIG._replace(sync="always")) as writer:
        put(writer, STDOUT, b"one\n")
        assert forced == ["stdout", "index"]
        put(writer, STDERR, b"two\n")
        assert forced[2:] == ["stdout", "stderr", "index"]
        writer.sync()
        assert len(forced) == 5, "nothing new to force"


def test_a_failed_sync_is_a_gap_in_a_new_segment_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "log"
    tried = []

    def fdatasync(descriptor: int) -> None:
        tried.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer = open_store(str(folder), BIG)
    put(writer, STDOUT, b"one\n")
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    writer.sync()
    writer.sync()
    assert len(tried) == 1
    writer.close()
    found = stored(folder)
    assert segment_numbers(str(folder)) == [1, 2]
    assert found.gaps == [(STDOUT, 4, 0, "sync-failed")]


# -- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [0, 1])
def test_a_torn_slot_of_the_counts_leaves_the_other(tmp_path: Path, slot: int) -> None:
    folder = tmp_path / "log"
    with opened(folder) as writer:
        put(writer, STDOUT, b"one\n")
        writer.clear()
    before = read_totals(str(folder))
    with open(folder / "totals", "r+b") as file:
        file.seek(slot * SLOT_BYTES + 100)
        file.write(b"\xff" * 40)
    after = read_totals(str(folder))
    assert before.sequence - after.sequence in (0, 1)
    with opened(folder) as writer:
        assert writer.ends[STDOUT] == 4
        put(writer, STDOUT, b"two\n")
    assert stored(folder).runs[STDOUT] == [(4, b"two\n")]


def test_a_segment_with_a_damaged_header_is_set_aside_and_its_positions_are_not_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with opened(folder) as writer:
        put(writer, STDOUT, b"first\n")
        writer.rotate()
        put(writer, STDOUT, b"second\n")
    with open(folder / "0000000002.index", "r+b") as file:
        file.write(b"garbage")
    with opened(folder) as writer:
        put(writer, STDOUT, b"third\n")
    assert (folder / "0000000002.stdout.damaged").read_bytes() == b"second\n"
    assert (folder / "0000000002.index.damaged").exists()
    found = stored(folder)
    [first, third] = found.runs[STDOUT]
    assert first == (0, b"first\n")
    assert third[0] >= 13
    assert third[1] == b"third\n"
    assert found.gaps == [(STDOUT, 6, third[0] - 6, "damaged")]


def test_marks_tell_of_runs(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with opened(folder) as writer:
        writer.mark(Kind.BEGIN, 1)
        put(writer, STDOUT, b"x")
        writer.mark(Kind.END, 1)
    assert stored(folder).marks == [(Kind.BEGIN, 1), (Kind.END, 1)]
