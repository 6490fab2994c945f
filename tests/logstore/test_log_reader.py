"""LogReader and RawReader where things go wrong, go on, or are large."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_builder import StoreBuilder, lines_of, read_all

from logd.logstore.reader import LogReader, RawReader, Selection, end_positions
from logd.logstore.segment import Kind, data_name, index_name
from logd.record import STDERR, STDOUT, Gap, Run


@pytest.fixture
def store(tmp_path: Path) -> StoreBuilder:
    return StoreBuilder(tmp_path / "log")


def texts(items: list) -> list[bytes]:
    return [line.data for line in lines_of(items)]


def finished(reader: LogReader) -> list:
    return read_all(reader) + reader.finish()


# -- nothing there yet


def test_a_store_that_does_not_exist_yet_is_empty_and_then_read_from_its_begin(store):
    folder = store.path + "-later"
    with LogReader(folder, Selection(tail=1)) as reader:
        assert reader.read() == []
        later = StoreBuilder(Path(folder))
        later.write(STDOUT, b"a\nb\n", 1)
        assert texts(reader.read()) == [b"a\n", b"b\n"]
    assert end_positions(store.path + "-never") == (0, 0)


def test_a_segment_whose_header_is_being_written_is_waited_for(store):
    store.write(STDOUT, b"a\n", 1)
    store.rotate()
    store.write(STDOUT, b"b\n")
    index = store.folder / index_name(2)
    whole = index.read_bytes()
    with LogReader(store.path, Selection()) as reader:
        index.write_bytes(whole[:40])
        assert texts(read_all(reader)) == [b"a\n"]
        index.write_bytes(whole)
        assert texts(read_all(reader)) == [b"b\n"]


def test_since_in_the_future_waits_and_leaves_out_the_line_begun_before(store):
    store.write(STDOUT, b"old\nbegun ", 10)
    with LogReader(store.path, Selection(since_ns=100, tail=1)) as reader:
        store.write(STDERR, b"early\n", 50)
        assert reader.read() == []
        store.write(STDOUT, b"before\nnew\nnewer\n", 100)
        assert lines_of(read_all(reader)) == [(STDOUT, 17, 100, b"new\n"), (STDOUT, 21, 100, b"newer\n")]


def test_until_ends_the_reading_once_lines_begun_before_are_complete(store):
    store.write(STDOUT, b"one\nhalf", 10)
    with LogReader(store.path, Selection(until_ns=20)) as reader:
        assert texts(read_all(reader)) == [b"one\n"]
        store.write(STDERR, b"late\n", 30)
        assert read_all(reader) == []
        assert not reader.finished
        store.write(STDOUT, b" a line\nlate\n", 31)
        assert lines_of(read_all(reader)) == [(STDOUT, 4, 10, b"half a line\n")]
        assert reader.finished
        assert reader.cursor == (16, 0)


# -- rotation and deletion


def test_who_does_not_follow_gets_what_was_there_however_much_is_written_meanwhile(store):
    for number, (selection, expected) in enumerate(
        (
            (Selection(present=True), [b"one\n", b"two\n", b"err\n"]),
            (Selection(present=True, stdout=False), [b"err\n"]),
            (Selection(present=True, stderr=False, tail=1), [b"two\n"]),
            (Selection(present=True, since_ns=11), [b"err\n"]),
        )
    ):
        fresh = StoreBuilder(store.folder / str(number))
        fresh.write(STDOUT, b"one\ntwo\n", 10)
        fresh.write(STDERR, b"err\n", 11)
        with LogReader(fresh.path, selection, times=False) as reader:
            fresh.write(STDOUT, b"later\n", 12)
            fresh.rotate()
            fresh.write(STDERR, b"later\n", 13)
            assert texts(finished(reader)) == expected


def test_who_does_not_follow_gets_of_an_unfinished_line_what_was_there(store):
    store.write(STDOUT, b"whole\npart", 10)
    with LogReader(store.path, Selection(present=True), times=False) as reader:
        store.write(STDOUT, b"ly\nlater\n", 11)
        assert texts(finished(reader)) == [b"whole\n", b"part"]


def test_who_does_not_follow_is_not_told_of_later_bytes_as_missing(store):
    store.write(STDOUT, b"a\n", 10)
    with LogReader(store.path, Selection(present=True)) as reader:
        store.rotate()
        store.write(STDOUT, b"b\n", 11)
        assert finished(reader) == [Run(10, STDOUT, 0, b"a\n")]


def test_a_line_over_three_segments_is_whole_and_has_its_first_bytes_time(store):
    store.write(STDOUT, b"be", 5)
    store.rotate(7)
    store.write(STDOUT, b"gin", 8)
    store.rotate(3)  # the clock stepped back
    store.write(STDOUT, b"ning\n", 4)
    with LogReader(store.path, Selection()) as reader:
        assert lines_of(read_all(reader)) == [(STDOUT, 0, 5, b"beginning\n")]
    with LogReader(store.path, Selection(tail=1)) as reader:
        assert lines_of(read_all(reader)) == [(STDOUT, 0, 5, b"beginning\n")]


def test_a_segment_deleted_while_it_is_read_is_read_to_its_end(store):
    for number in range(1000):
        store.write(STDOUT, b"%04d" % number + b"x" * 995 + b"\n", 1)
    with LogReader(store.path, Selection(), budget=4096) as reader:
        lines = texts(reader.read())
        store.rotate()
        store.write(STDOUT, b"next\n")
        store.delete(1)
        lines += texts(read_all(reader))
    assert len(lines) == 1001
    assert lines[-1] == b"next\n"
    assert b"<" not in b"".join(line[:1] for line in lines)


def test_segments_deleted_before_they_were_read_are_a_gap_of_their_bytes(store):
    store.write(STDOUT, b"first\nunfinished", 1)
    with LogReader(store.path, Selection()) as reader:
        assert texts(reader.read()) == [b"first\n"]
        store.rotate()
        store.write(STDOUT, b" line\n")
        store.write(STDERR, b"error\n")
        store.rotate()
        store.write(STDOUT, b"last\n")
        store.delete(1)
        store.delete(2)
        items = read_all(reader)
    assert items[0] == Run(1, STDOUT, 6, b"unfinished")
    assert items[1:3] == [Gap(1, STDOUT, 16, 6, "retention"), Gap(1, STDERR, 0, 6, "retention")]
    assert texts(items[3:]) == [b"last\n"]


def test_a_segment_lost_between_others_is_damage_not_retention(store):
    for text in (b"first\n", b"second\n", b"third\n"):
        store.write(STDOUT, text, 1)
        store.rotate()
    store.delete(2)
    with LogReader(store.path, Selection()) as reader:
        items = finished(reader)
    assert items[1:2] == [Gap(1, STDOUT, 6, 7, "damaged")]
    assert texts(items[:1] + items[2:]) == [b"first\n", b"third\n"]


def test_a_cursor_in_deleted_segments_tells_how_much_is_gone(store):
    store.write(STDOUT, b"12345\n", 1)
    store.rotate()
    store.write(STDOUT, b"67890\n")
    store.delete(1)
    with LogReader(store.path, Selection(after=(2, 0))) as reader:
        assert read_all(reader) == [Gap(1, STDOUT, 2, 4, "retention"), Run(1, STDOUT, 6, b"67890\n")]
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"67890\n"], "who asks for all there is misses nothing"


def test_raw_reading_begins_at_the_present_end_and_tells_of_deletion(store):
    store.write(STDOUT, b"before", 1)
    with RawReader(store.path) as reader:
        assert reader.read() == []
        assert reader.position == (6, 0)
        store.write(STDOUT, b"prompt> ")
        assert reader.read() == [Run(1, STDOUT, 6, b"prompt> ")]
        store.write(STDOUT, b"gone")
        store.rotate()
        store.write(STDOUT, b"gone too")
        store.rotate()
        store.write(STDOUT, b"here")
        for number in (1, 2):
            store.delete(number)
        assert reader.read() == [Run(1, STDOUT, 14, b"gone")]
        assert reader.read() == [Gap(1, STDOUT, 18, 8, "retention"), Run(1, STDOUT, 26, b"here")]


def test_a_folder_removed_under_the_reader_is_an_end_without_more(store):
    store.write(STDOUT, b"a\n", 1)
    with LogReader(store.path, Selection()) as reader:
        for file in store.folder.iterdir():
            file.unlink()
        store.folder.rmdir()
        assert texts(read_all(reader)) == [b"a\n"]
        assert reader.read() == []


# -- the begin and the end of runs


def test_a_line_does_not_go_on_from_one_run_of_the_container_into_the_next(store):
    store.mark(Kind.BEGIN, 1, 1)
    store.write(STDOUT, b"last words", 2)
    store.mark(Kind.END, 1, 3)
    store.mark(Kind.BEGIN, 2, 9)
    store.write(STDOUT, b"first words\n", 9)
    for selection in (Selection(), Selection(tail=2)):
        with LogReader(store.path, selection) as reader:
            assert read_all(reader) == [Run(2, STDOUT, 0, b"last words"), Run(9, STDOUT, 10, b"first words\n")]
    with LogReader(store.path, Selection(tail=1)) as reader:
        assert read_all(reader) == [Run(9, STDOUT, 10, b"first words\n")]


def test_an_unfinished_prompt_holds_back_neither_the_other_stream_nor_itself_at_the_end(store):
    store.write(STDOUT, b"name? ", 1)
    store.write(STDERR, b"warning\n", 2)
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"warning\n"]
        assert reader.cursor == (0, 8)
        assert texts(reader.finish()) == [b"name? "]
        assert reader.cursor == (6, 8)


# -- damage


def test_a_damaged_entry_is_a_gap_of_its_bytes_and_reading_goes_on(store):
    for word in (b"one\n", b"two\n", b"three\n"):
        store.write(STDOUT, word, 1)
    store.damage_entry(1, 4)
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n", b"<damaged 4>", b"three\n"]


def test_damage_at_a_segments_end_is_told_when_the_next_goes_on_or_the_output_ends(store):
    store.write(STDOUT, b"one\n", 1)
    store.write(STDOUT, b"two\n")
    store.damage_entry(1, 4)
    store.rotate()
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n"]
        assert texts(reader.finish()) == [b"<damaged 4>"]
    store.write(STDOUT, b"three\n")
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n", b"<damaged 4>", b"three\n"]


def test_a_damaged_last_entry_may_yet_be_mended(store):
    store.write(STDOUT, b"one\n", 1)
    store.write(STDOUT, b"two\n")
    store.damage_entry(1, 4)
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n"]
        store.damage_entry(1, 4)  # flips the bits back
        assert texts(read_all(reader)) == [b"two\n"]


@pytest.mark.parametrize("torn", [1, 31])
def test_half_an_entry_at_the_end_of_the_index_is_not_there_yet(store, torn):
    store.write(STDOUT, b"one\n", 1)
    store.write(STDOUT, b"two\n")
    index = store.folder / index_name(1)
    whole = index.read_bytes()
    os.truncate(index, len(whole) - torn)
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n"]
        index.write_bytes(whole)
        assert texts(read_all(reader)) == [b"two\n"]


def test_data_shorter_than_the_index_is_a_gap_of_what_is_missing(store):
    store.write(STDOUT, b"one\n", 1)
    store.write(STDOUT, b"two\nthree\n")
    store.write(STDERR, b"error\n")
    store.cut_data(1, STDOUT, 6)
    store.rotate()
    store.write(STDOUT, b"four\n")
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n", b"tw", b"<damaged 8>", b"error\n", b"four\n"]


def test_a_data_file_that_is_gone_is_a_gap(store):
    store.write(STDOUT, b"one\n", 1)
    store.write(STDERR, b"two\n")
    (store.folder / data_name(1, STDOUT)).unlink()
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"<damaged 4>", b"two\n"]


def test_a_damaged_header_costs_its_segment_and_no_more(store):
    for word in (b"one\n", b"two\n", b"three\n"):
        store.write(STDOUT, word, 1)
        store.rotate()
    store.damage_entry(2, 0)
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n", b"<damaged 4>", b"three\n"]
    store.damage_entry(1, 1)
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"<damaged 8>", b"three\n"]


def test_a_damaged_header_of_the_newest_segment_is_told_at_the_end(store):
    store.write(STDOUT, b"one\n", 1)
    store.rotate()
    store.write(STDOUT, b"two\n")
    store.damage_entry(2, 2)
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n"]
        assert texts(reader.finish()) == [b"<damaged 4>"]


def test_a_segment_of_a_later_format_is_not_guessed_at(store):
    store.write(STDOUT, b"one\n", 1)
    store.rotate()
    store.write(STDOUT, b"two\n")
    index = store.folder / index_name(2)
    raw = index.read_bytes()
    from logd.logstore.segment import pack_entry

    index.write_bytes(pack_entry(0, 1, 4, 9, STDOUT, Kind.BASE) + raw[32:])
    store.rotate()
    store.write(STDOUT, b"three\n")
    with LogReader(store.path, Selection()) as reader:
        assert texts(read_all(reader)) == [b"one\n", b"<damaged 4>", b"three\n"]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_is_damaged_each_byte_is_given_or_told_of_and_none_is_invented(data, tmp_path_factory):
    store = StoreBuilder(tmp_path_factory.mktemp("damage") / "log")
    written = {STDOUT: b"", STDERR: b""}
    for number in range(data.draw(st.integers(1, 30))):
        if number and data.draw(st.integers(0, 5)) == 0:
            store.rotate()
        stream = data.draw(st.sampled_from([STDOUT, STDERR]))
        text = b"%d line\n" % number * data.draw(st.integers(1, 3)) + data.draw(st.sampled_from([b"", b"rest "]))
        store.write(stream, text, number)
        written[stream] += text
    for _ in range(data.draw(st.integers(1, 4))):
        file = data.draw(st.sampled_from(sorted(store.folder.glob("*.index"))))
        at = data.draw(st.integers(0, file.stat().st_size - 1))
        raw = bytearray(file.read_bytes())
        what = data.draw(st.sampled_from(["flip", "zeros", "cut data"]))
        if what == "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        elif what == "zeros":
            raw[at : at + 64] = bytes(len(raw[at : at + 64]))
        elif (victim := file.with_suffix(".stdout")).exists():
            os.truncate(victim, at % (victim.stat().st_size + 1))
        file.write_bytes(raw)
    tail = data.draw(st.sampled_from([None, 0, 3]))
    with LogReader(store.path, Selection(tail=tail), times=data.draw(st.booleans())) as reader:
        items = finished(reader)
    at = {}
    for item in items:
        length = len(item.data) if isinstance(item, Run) else item.length
        assert item.position == at.get(item.stream, item.position), "in order, without a hole, nothing twice"
        at[item.stream] = item.position + length
        if isinstance(item, Run):
            assert item.data == written[item.stream][item.position : at[item.stream]]
    if tail is None:
        first = {item.stream: item.position for item in reversed(items)}
        assert all(position == 0 for position in first.values())


# -- any bytes, any size


@pytest.mark.parametrize(
    "data",
    [b"\x00\n\x00", b"a\r\nb\r", b"\xff\xfe\n\xc3", b"\n\n\n", b"\xe2\x80\xa8\x85\x0b\x0c\x1c\n", b"\n", b"x"],
)
@pytest.mark.parametrize("step", [1, 2, 100])
def test_any_bytes_come_back_as_they_were(store, data, step):
    for at in range(0, len(data), step):
        store.write(STDOUT, data[at : at + step], at)
    with LogReader(store.path, Selection()) as reader:
        runs = finished(reader)
    assert b"".join(run.data for run in runs) == data
    assert [run.data for run in runs[:-1] if not run.data.endswith(b"\n")] == []


def test_a_hundred_megabytes_without_a_newline_are_read_in_parts_and_in_little_memory(store):
    block = os.urandom(1 << 20).replace(b"\n", b"\r")
    digest = hashlib.sha256()
    for _ in range(100):
        store.write(STDOUT, block, 1)
        digest.update(block)
    read = hashlib.sha256()
    tracemalloc.start()
    with LogReader(store.path, Selection(), max_line_bytes=1 << 20) as reader:
        lengths = []
        while items := reader.read():
            for item in items:
                read.update(item.data)
                lengths.append(len(item.data))
        for item in reader.finish():
            read.update(item.data)
            lengths.append(len(item.data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.digest() == digest.digest()
    assert set(lengths) == {1 << 20}
    assert peak < 8 << 20
    with LogReader(store.path, Selection(tail=1)) as reader:
        assert sum(len(item.data) for item in finished(reader)) == 100 << 20


def test_a_budget_bounds_what_one_read_returns(store):
    for _ in range(8):
        store.write(STDOUT, b"x" * 99_999 + b"\n", 1)
    for _ in range(5000):
        store.write(STDERR, b"\n")
    with LogReader(store.path, Selection(), budget=65536) as reader:
        while items := reader.read():
            assert sum(len(item.data) for item in items) <= 65536 + 100_000
            assert len(items) < 1000


def test_batches_without_times_come_as_large_runs(store):
    for number in range(3000):
        store.write(STDOUT, b"line %d\n" % number, number)
    with LogReader(store.path, Selection(), times=False) as reader:
        runs = read_all(reader)
    assert len(runs) < 10
    assert b"".join(run.data for run in runs) == b"".join(b"line %d\n" % number for number in range(3000))


# -- a writer at the same time

WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from store_builder import StoreBuilder
store = StoreBuilder(Path({folder!r}))
for number in range(4000):
    store.write(1 + number % 5 // 4, b"%d\\n" % number, number)
    if number % 100 == 99:
        store.rotate()
    if {deletes} and number % 100 == 50 and store.number > 3:
        store.delete(store.number - 3)
store.write(1, b"end\\n")
"""


@pytest.mark.parametrize("deletes", [False, True])
def test_reading_while_another_process_writes_loses_and_doubles_nothing(store, deletes):
    script = WRITER.format(tests=str(Path(__file__).parent), folder=store.path, deletes=deletes)
    at = {STDOUT: 0, STDERR: 0}
    lines = []
    with (
        subprocess.Popen([sys.executable, "-c", script]) as writer,
        LogReader(store.path, Selection(), budget=2048) as reader,
    ):
        while b"end\n" not in lines[-1:]:
            for line in lines_of(reader.read()):
                assert line.position == at[line.stream]
                gap = line.data.startswith(b"<retention ")
                assert not gap or deletes
                at[line.stream] += int(line.data[11:-1]) if gap else len(line.data)
                lines.append(line.data)
        assert writer.wait() == 0
    numbers = [int(line) for line in lines[:-1] if not line.startswith(b"<")]
    assert numbers == sorted(numbers)
    if not deletes:
        assert numbers == list(range(4000))


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> StoreBuilder:
    """A store of 20,000 batches of one stream, for tests that only read."""
    made = StoreBuilder(tmp_path_factory.mktemp("long") / "log")
    for number in range(1, 20_001):
        made.write(STDOUT, b"a\n", number)
    return made


@pytest.mark.parametrize(
    "selection",
    [
        Selection(tail=3),
        Selection(since_ns=20_000 - 3),
        Selection(since_ns=20_000 - 9, tail=3),
        Selection(since_ns=20_000 - 9, until_ns=20_000 - 3),
        Selection(after=(20_000 * 2 - 6, 0)),
    ],
)
def test_the_end_of_a_long_log_of_one_stream_is_found_without_reading_the_rest(long_log, monkeypatch, selection):
    read = 0
    pread = os.pread

    def counting(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        data = pread(descriptor, length, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    with LogReader(long_log.path, selection) as reader:
        lines = lines_of(read_all(reader))
    assert 3 <= len(lines) <= 10
    assert read < 20_000, "of 640,000 bytes of index"


def test_gaps_at_a_segments_begin_place_a_stream_that_has_no_bytes_there(store):
    store.write(STDERR, b"error\n", 1)
    store.gap(STDERR, 100, time_ns=2)
    store.write(STDOUT, b"one\ntwo\n", 3)
    assert end_positions(store.path) == (8, 106)
    with LogReader(store.path, Selection(after=(0, 50))) as reader:
        assert [line.data for line in lines_of(read_all(reader))] == [b"<no-space 56>", b"one\n", b"two\n"]
    with LogReader(store.path, Selection(since_ns=3)) as reader:
        assert [line.data for line in lines_of(read_all(reader))] == [b"one\n", b"two\n"]
        assert reader.cursor == (8, 106)
