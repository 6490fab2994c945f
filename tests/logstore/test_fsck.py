import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from store_builder import StoreBuilder

from logd.errors import Conflict, NotFound
from logd.logstore.fsck import verify
from logd.logstore.seal import seal, unsealed
from logd.logstore.segment import Kind, data_name, index_name, sealed_name
from logd.logstore.summary import summary
from logd.record import STDERR, STDOUT, Gap


@pytest.fixture
def store(tmp_path: Path) -> StoreBuilder:
    """Three segments, both streams, a gap, two runs."""
    store = StoreBuilder(tmp_path / "log")
    store.mark(Kind.BEGIN, 1, 1)
    store.write(STDOUT, b"one\n", 2)
    store.write(STDERR, b"error\n", 3)
    store.write(STDOUT, b"two\n", 4)
    store.mark(Kind.END, 1, 5)
    store.rotate(6)
    store.write(STDOUT, b"three\n", 7)
    store.gap(STDOUT, 100, "no-space", 8)
    store.write(STDOUT, b"four\n", 9)
    return store


def problems(store: StoreBuilder) -> list[str]:
    return [str(finding) for finding in verify(store.path)]


def test_a_whole_store_has_no_findings(store):
    for number in (1, 2):
        seal(store.path, number)
    assert problems(store) == []


def test_a_store_whose_oldest_segments_went_by_retention_is_whole(store):
    store.delete(1)
    assert problems(store) == []


def test_a_damaged_entry_and_the_bytes_that_hang_on_it_are_found(store):
    store.damage_entry(1, 4)
    assert problems(store) == [
        "segment 1: entry 4 is damaged",
        "segment 1, stdout at 0: 4 bytes are missing, and no entry says why",
    ]


def test_damaged_entries_at_the_end_are_found(store):
    for slot in (6, 7):
        store.damage_entry(1, slot)
    assert problems(store) == [
        "segment 1: entries 6 to 7 are damaged",
        "segment 1, stdout at 4: 4 bytes are not in the index",
        "segment 2, stdout at 4: 4 bytes are missing, and no entry says why",
    ]


def test_data_cut_off_is_found_where_it_ends(store):
    store.cut_data(1, STDOUT, 5)
    assert problems(store) == ["segment 1, stdout at 5: the file 0000000001.stdout ends here, 3 bytes too early"]
    (store.folder / data_name(1, STDERR)).unlink()
    assert "segment 1, stderr at 0: the file 0000000001.stderr ends here, 6 bytes too early" in problems(store)


def test_bytes_that_no_entry_names_are_found_in_closed_segments_only(store):
    for number in (2, 3):
        with open(store.folder / data_name(number, STDOUT), "ab") as file:
            file.write(b"more")
    assert problems(store) == ["segment 2, stdout at 14: 4 bytes are not in the index"]


def test_a_segment_that_is_missing_between_others_is_found(store):
    store.delete(2)
    assert problems(store) == ["segment 3: segment 2 is missing before it"]


def test_a_header_that_cannot_be_read_is_found(store):
    store.damage_entry(2, 1)
    assert problems(store) == ["segment 2: the header is damaged"]


def test_an_entry_told_twice_and_a_time_that_goes_back_are_found(store):
    store.ends[STDOUT] -= 5
    store.time_ns = 1
    store.write(STDOUT, b"again")
    assert problems(store) == [
        "segment 3: entry 5 has an earlier time than the one before it",
        "segment 3, stdout at 114: entry 5 tells again of 5 bytes told of before",
    ]


def test_what_recovery_set_aside_is_told_of(store):
    (store.folder / "0000000009.index.damaged").write_bytes(b"?")
    assert problems(store) == [
        "segment 9: set aside as 0000000009.index.damaged when the store was opened after a crash"
    ]


def test_a_store_that_is_being_written_is_whole(store):
    def write() -> None:
        for number in range(600):
            store.write(STDOUT if number % 2 else STDERR, b"more\n", 10 + number)
            if number % 20 == 0:
                store.rotate()

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        while not writing.done():
            assert problems(store) == []
        writing.result()
    assert problems(store) == []


# -- seals


def test_a_bit_that_flips_in_sealed_data_is_found(store):
    seal(store.path, 1)
    assert unsealed(store.path) == [2]
    (store.folder / data_name(1, STDOUT)).write_bytes(b"one\ntwp\n")
    assert problems(store) == ["segment 1: 0000000001.stdout: the bytes changed since it was sealed"]


def test_sealed_files_that_grow_or_go_are_found(store):
    seal(store.path, 2)
    (store.folder / data_name(2, STDERR)).write_bytes(b"where from?")
    (store.folder / data_name(2, STDOUT)).unlink()
    found = problems(store)
    assert "segment 2: 0000000002.stdout: is missing" in found
    assert "segment 2: 0000000002.stderr: is not in the seal" in found


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 1, "files": {"a": 7}}', b"\xff"])
def test_a_seal_that_cannot_be_read_is_found(store, content):
    (store.folder / sealed_name(1)).write_bytes(content)
    assert problems(store) == ["segment 1: 0000000001.sealed: the seal can't be read"]


def test_a_seal_of_a_later_version_is_not_guessed_at(store):
    (store.folder / sealed_name(1)).write_bytes(b'{"version": 2, "files": {}}')
    assert problems(store) == ["segment 1: 0000000001.sealed: version 2 (supported: 1)"]


def test_a_seal_holds_sizes_and_checksums_of_the_files(store):
    seal(store.path, 1)
    content = json.loads((store.folder / sealed_name(1)).read_text())
    assert content["version"] == 1
    assert set(content["files"]) == {"0000000001.stdout", "0000000001.stderr", "0000000001.index"}
    assert content["files"]["0000000001.stderr"]["bytes"] == 6


def test_the_newest_segment_is_not_sealed_nor_one_that_is_gone(store):
    with pytest.raises(Conflict, match="segment 3: the newest"):
        seal(store.path, 3)
    with pytest.raises(NotFound, match="segment 9"):
        seal(store.path, 9)


# -- summary


def test_a_summary_tells_sizes_positions_times_and_gaps(store):
    found = summary(store.path)
    assert (found.segments, found.stdout_bytes, found.stderr_bytes) == (3, 19, 6)
    assert found.index_bytes == sum((store.folder / index_name(number)).stat().st_size for number in (1, 2, 3))
    assert (found.begins, found.ends) == ((0, 0), (119, 6))
    assert (found.first_ns, found.last_ns) == (1, 9)
    assert found.gaps == (Gap(8, STDOUT, 14, 100, "no-space"),)


def test_the_summary_of_nothing_is_empty(tmp_path):
    found = summary(str(tmp_path / "none"))
    assert (found.segments, found.ends, found.first_ns, found.gaps) == (0, (0, 0), None, ())
