"""A store whose container ended with nobody there to see it."""

import fcntl
import os
from pathlib import Path

import pytest
from writing import BIG, abandon, put, stored

from logd.logstore import opening, unobserved
from logd.logstore.fsck import verify
from logd.logstore.opening import open_store
from logd.logstore.reader import LogReader, Selection
from logd.logstore.segment import Kind
from logd.logstore.unobserved import note_unobserved_end
from logd.record import STDERR, STDOUT, Gap, Run


def left_behind(folder: Path, *, run: int = 1, ended: bool = False) -> None:
    """Write a run's output and die."""
    writer = open_store(str(folder), BIG)
    writer.mark(Kind.BEGIN, run)
    put(writer, STDOUT, b"begun")
    if ended:
        writer.mark(Kind.END, run)
    abandon(writer)


def test_an_end_that_nobody_saw_is_a_gap_of_both_streams_and_ends_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    left_behind(folder)
    assert note_unobserved_end(str(folder), BIG, 1)
    found = stored(folder)
    assert found.gaps == [(STDOUT, 5, 0, "crash"), (STDERR, 0, 0, "crash")]
    assert found.marks == [(Kind.BEGIN, 1), (Kind.END, 1)]
    assert verify(str(folder)) == []
    with LogReader(str(folder), Selection()) as reader:
        items = reader.read()
    assert [(item.stream, item.data if isinstance(item, Run) else item.reason) for item in items] == [
        (STDOUT, b"begun"),
        (STDOUT, "crash"),
        (STDERR, "crash"),
    ]
    assert all(item.length == 0 for item in items if isinstance(item, Gap))


def test_it_is_noted_once(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    left_behind(folder)
    assert note_unobserved_end(str(folder), BIG, 1)
    assert not note_unobserved_end(str(folder), BIG, 1)
    assert len(stored(folder).gaps) == 2


def test_an_end_that_was_seen_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    left_behind(folder, ended=True)
    before = sorted((file.name, file.read_bytes()) for file in folder.glob("0*"))
    assert not note_unobserved_end(str(folder), BIG, 1)
    assert sorted((file.name, file.read_bytes()) for file in folder.glob("0*")) == before


def test_the_end_of_an_earlier_run_says_nothing_of_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    left_behind(folder, ended=True)
    left_behind(folder, run=2)
    assert note_unobserved_end(str(folder), BIG, 2)
    assert stored(folder).gaps[0] == (STDOUT, 10, 0, "crash")


def test_output_after_the_end_in_further_segments_does_not_hide_it(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    left_behind(folder, ended=True)
    writer = open_store(str(folder), BIG)
    writer.rotate()
    put(writer, STDOUT, b"late")
    abandon(writer)
    assert not note_unobserved_end(str(folder), BIG, 1)
    assert stored(folder).gaps == []


def test_bytes_without_an_entry_come_before_the_gap(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    left_behind(folder)
    with open(folder / "0000000001.stdout", "ab") as file:
        file.write(b" and on")
    assert note_unobserved_end(str(folder), BIG, 1)
    found = stored(folder)
    assert found.text(STDOUT) == b"begun and on"
    assert found.gaps[0] == (STDOUT, 12, 0, "crash")


def test_after_another_boot_that_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    left_behind(folder)
    for module in (opening, unobserved):
        monkeypatch.setattr(module, "read_boot_id", lambda: bytes(16))
    assert note_unobserved_end(str(folder), BIG, 1)
    assert stored(folder).gaps == [(STDOUT, 5, 0, "unclean-boot"), (STDERR, 0, 0, "unclean-boot")]


def test_a_store_that_another_process_writes_is_left_to_it_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    left_behind(folder)
    lock = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not note_unobserved_end(str(folder), BIG, 1)
    finally:
        os.close(lock)
    assert stored(folder).gaps == []


def test_a_store_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    assert not note_unobserved_end(str(tmp_path / "log"), BIG, 1)
    assert not (tmp_path / "log").exists()
