"""A store is opened on a disk without a free block: a real one, a tmpfs that is filled up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import fill, mounted
from writing import BIG, abandon, put, stored

from logd.logstore.fsck import verify
from logd.logstore.opening import open_store
from logd.logstore.segment import ENTRY_BYTES, HEADER_ENTRIES, Kind
from logd.logstore.totals import read_totals
from logd.logstore.writer import StoreWriter
from logd.record import STDERR, STDOUT

PAGE_ENTRIES = 4096 // ENTRY_BYTES


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "1m") as disk:
        yield disk


def left_with_a_full_page_of_entries(folder: Path) -> None:
    """Let a writer die that had moved bytes of both streams but not indexed them: the next entry needs a new block."""
    writer = open_store(str(folder), BIG)
    for _ in range(PAGE_ENTRIES - HEADER_ENTRIES):
        put(writer, STDOUT, b"x\n")
    abandon(writer)
    with (folder / "0000000001.stdout").open("ab") as file:
        file.write(b"not indexed\n")
    (folder / "0000000001.stderr").write_bytes(b"nor this\n")


def resumed(writer: StoreWriter) -> None:
    while not writer.resume():
        pass


def test_bytes_are_adopted_in_the_room_that_the_ballast_kept(disk: Path) -> None:
    folder = disk / "log"
    left_with_a_full_page_of_entries(folder)
    fill(disk)
    writer = open_store(str(folder), BIG)
    assert not writer.dropping
    writer.close()
    found = stored(folder)
    assert found.text(STDOUT).endswith(b"x\nnot indexed\n")
    assert found.text(STDERR) == b"nor this\n"


def test_without_any_room_the_store_opens_counts_what_it_loses_and_adopts_the_rest_later(disk: Path) -> None:
    folder = disk / "log"
    left_with_a_full_page_of_entries(folder)
    (folder / "ballast").unlink()
    filler = fill(disk)
    writer = open_store(str(folder), BIG)
    assert writer.dropping
    before = len(b"x\n") * (PAGE_ENTRIES - HEADER_ENTRIES) + len(b"not indexed\n")
    assert writer.ends == {STDOUT: before, STDERR: len(b"nor this\n")}
    assert put(writer, STDOUT, b"lost\n") == 5
    assert read_totals(str(folder)).streams[STDOUT].dropped[1] == 5
    filler.unlink()
    resumed(writer)
    assert put(writer, STDOUT, b"after\n") == 0
    writer.close()
    found = stored(folder)
    assert found.text(STDOUT).endswith(b"x\nnot indexed\nafter\n")
    assert found.text(STDERR) == b"nor this\n"
    assert found.gaps == [(STDOUT, before, 5, "no-space")]
    assert verify(str(folder)) == []


def test_entries_that_wait_for_room_go_with_the_writers_place_to_another_process(disk: Path) -> None:
    folder = disk / "log"
    left_with_a_full_page_of_entries(folder)
    (folder / "ballast").unlink()
    filler = fill(disk)
    writer = open_store(str(folder), BIG)
    writer.mark(Kind.BEGIN, 2)
    writer.leave()
    writer = StoreWriter(str(folder), BIG, writer.lock, writer.place)
    assert put(writer, STDERR, b"lost\n") == 5
    filler.unlink()
    resumed(writer)
    put(writer, STDOUT, b"after\n")
    writer.close()
    found = stored(folder)
    assert found.marks == [(Kind.BEGIN, 2)]
    assert found.text(STDOUT).endswith(b"not indexed\nafter\n")
    assert found.gaps == [(STDERR, len(b"nor this\n"), 5, "no-space")]
    assert verify(str(folder)) == []


def test_a_writer_that_dies_on_the_full_disk_again_leaves_it_to_the_next(disk: Path) -> None:
    folder = disk / "log"
    left_with_a_full_page_of_entries(folder)
    (folder / "ballast").unlink()
    filler = fill(disk)
    for _ in range(2):
        writer = open_store(str(folder), BIG)
        put(writer, STDOUT, b"lost\n")
        abandon(writer)
    filler.unlink()
    writer = open_store(str(folder), BIG)
    put(writer, STDOUT, b"after\n")
    writer.close()
    found = stored(folder)
    assert found.text(STDOUT).endswith(b"not indexed\nafter\n")
    assert [(stream, length, reason) for stream, _, length, reason in found.gaps] == [(STDOUT, 10, "no-space")]
    assert read_totals(str(folder)).streams[STDOUT].dropped[1] == 10
    assert verify(str(folder)) == []
