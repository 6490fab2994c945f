"""Lines that execs have printed, between the container's own: as they are written and as they are read."""

import os
from pathlib import Path

import pytest
from writing import BIG, put

from logd.logstore.fsck import verify
from logd.logstore.opening import open_store
from logd.logstore.reader import LogReader, RawReader, Selection
from logd.record import STDERR, STDOUT, ExecRun

FIRST, SECOND = "0123456789ab", "ffffffffffff"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def put_of_exec(writer, exec_id: str, stream: int, data: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, data)
    begun = writer.is_at_line_begin(stream)
    assert writer.take_of_exec(exec_id, stream, reading, len(data), on_new_line=not begun) == 0
    os.close(reading)
    os.close(writing)


def lines(folder: str, **more) -> list[tuple[str, int, bytes]]:
    """Return (exec or "", stream, line) of all that is read."""
    found = []
    with LogReader(folder, Selection(), **more) as reader:
        while items := reader.read():
            found += items
        found += reader.finish()
    owned = [(item.exec_id if isinstance(item, ExecRun) else "", item.stream, item.data) for item in found]
    return [(who, stream, line) for who, stream, data in owned for line in data.splitlines(keepends=True)]


@pytest.mark.parametrize("more", [{}, {"times": False}, {"budget": 1}])
def test_lines_of_execs_are_known_and_the_others_are_not(folder, more):
    writer = open_store(folder, BIG)
    put(writer, STDOUT, b"one\n")
    put_of_exec(writer, FIRST, STDOUT, b"a\nb\n")
    put_of_exec(writer, SECOND, STDERR, b"c\n")
    put(writer, STDERR, b"two\n")
    put_of_exec(writer, SECOND, STDOUT, b"d\n")
    put(writer, STDOUT, b"three\n")
    writer.close()
    assert lines(folder, **more) == [
        ("", STDOUT, b"one\n"),
        (FIRST, STDOUT, b"a\n"),
        (FIRST, STDOUT, b"b\n"),
        (SECOND, STDERR, b"c\n"),
        ("", STDERR, b"two\n"),
        (SECOND, STDOUT, b"d\n"),
        ("", STDOUT, b"three\n"),
    ]


def test_an_unfinished_line_of_the_container_is_ended_and_stays_its_own(folder):
    writer = open_store(folder, BIG)
    put(writer, STDOUT, b"Password: ")
    put_of_exec(writer, FIRST, STDOUT, b"hello\n")
    put(writer, STDOUT, b"thanks\n")
    writer.close()
    assert lines(folder) == [
        ("", STDOUT, b"Password: \n"),
        (FIRST, STDOUT, b"hello\n"),
        ("", STDOUT, b"thanks\n"),
    ]
    with RawReader(folder, start=(0, 0), execs=False) as reader:  # to who is attached nothing of it is there
        assert b"".join(run.data for run in reader.read()) == b"Password: thanks\n"
        assert reader.passed_over == len(b"\nhello\n")
        assert reader.position == (len(b"Password: \nhello\nthanks\n"), 0)


def test_a_line_longer_than_a_read_is_its_execs_as_a_whole(folder):
    writer = open_store(folder, BIG)
    long = b"x" * 50_000 + b"\n"
    put_of_exec(writer, FIRST, STDOUT, long)
    put(writer, STDOUT, b"own\n")
    writer.close()
    assert lines(folder, budget=1) == [(FIRST, STDOUT, long), ("", STDOUT, b"own\n")]
    parts = lines(folder, budget=1, max_line_bytes=20_000)
    assert [(who, len(part)) for who, _, part in parts] == [(FIRST, 20_000), (FIRST, 20_000), (FIRST, 10_001), ("", 4)]


def test_a_reader_that_goes_on_in_the_middle_knows_whose_lines_they_are(folder):
    writer = open_store(folder, BIG)
    put(writer, STDOUT, b"own\n")
    put_of_exec(writer, FIRST, STDOUT, b"a\nb\n")
    writer.close()
    for position, rest in ((4, [b"a\nb\n"]), (6, [b"b\n"])):
        with LogReader(folder, Selection(after=(position, 0))) as reader:
            found = reader.read()
        assert [run.data for run in found] == rest
        assert [type(run) for run in found] == [ExecRun]


def test_a_reader_that_follows_knows_whose_the_next_batch_is(folder):
    writer = open_store(folder, BIG)
    put(writer, STDOUT, b"own\n")
    with LogReader(folder, Selection()) as reader:
        assert [type(run).__name__ for run in reader.read()] == ["Run"]
        for exec_id in (FIRST, SECOND):
            put_of_exec(writer, exec_id, STDOUT, b"a\n")
            assert [(run.exec_id, run.data) for run in reader.read()] == [(exec_id, b"a\n")]
        put(writer, STDOUT, b"own\n")
        assert [type(run).__name__ for run in reader.read()] == ["Run"]
    writer.close()


@pytest.mark.parametrize("lines_wanted", [1, 2, 3, 4])
def test_the_last_lines_are_counted_with_those_of_execs(folder, lines_wanted):
    writer = open_store(folder, BIG)
    put(writer, STDOUT, b"own")
    put_of_exec(writer, FIRST, STDOUT, b"a\nb\n")
    put(writer, STDOUT, b"last\n")
    writer.close()
    with LogReader(folder, Selection(tail=lines_wanted)) as reader:
        found = b"".join(run.data for run in reader.read())
    assert found == b"".join([b"own\n", b"a\n", b"b\n", b"last\n"][-lines_wanted:])


def test_a_store_with_execs_in_it_is_sound_also_over_segments_and_a_new_writer(folder):
    small = BIG._replace(max_size=40)
    writer = open_store(folder, small)
    for _ in range(20):
        put(writer, STDOUT, b"own line\n")
        put_of_exec(writer, FIRST, STDOUT, b"exec's line\n")
    writer.leave()
    os.close(writer.lock)
    writer = open_store(folder, small)
    assert writer.is_at_line_begin(STDOUT)
    writer.close()
    assert verify(folder) == []
    assert lines(folder) == [("", STDOUT, b"own line\n"), (FIRST, STDOUT, b"exec's line\n")] * 20
