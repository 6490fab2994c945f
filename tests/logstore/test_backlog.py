"""The count that goes on from where it was says what a walk of the whole index says."""

import time
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from store_builder import StoreBuilder

from logd.logstore import backlog
from logd.logstore.backlog import Backlog
from logd.logstore.buffered import held_beyond
from logd.logstore.reader import end_positions
from logd.logstore.segment import ENTRY_BYTES, index_name
from logd.record import STDERR, STDOUT

FAR = float("inf")
STREAM = st.sampled_from((STDOUT, STDERR))
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), STREAM, st.integers(1, 9)),
    st.tuples(st.just("many"), STREAM, st.integers(1, 9)),
    st.tuples(st.just("gap"), STREAM, st.integers(0, 5)),
    st.tuples(st.sampled_from(("rotate", "delete", "damage")), STREAM, st.integers(3, 9)),
    st.tuples(st.just("count"), st.integers(0, 100), st.integers(0, 100)),
)


def agrees(counted: Backlog, folder: str, positions: tuple[int, int], ends: tuple[int, int]) -> None:
    waiting = counted.count(positions, ends, FAR)
    assert waiting is not None
    assert waiting[:2] == held_beyond(folder, positions, ends)


@given(st.lists(OPERATIONS, max_size=40))
def test_it_agrees_with_a_walk_of_the_whole_index(
    tmp_path_factory: Any, operations: list[tuple[str, int, int]]
) -> None:
    backlog.MARK_ENTRIES, before = 4, backlog.MARK_ENTRIES
    try:
        compare(StoreBuilder(tmp_path_factory.mktemp("store") / "log"), operations)
    finally:
        backlog.MARK_ENTRIES = before


def compare(builder: StoreBuilder, operations: list[tuple[str, int, int]]) -> None:
    counted = Backlog(builder.path)
    oldest = 1
    for what, stream, number in operations:
        if what == "write":
            builder.write(stream, b"x" * number)
        elif what == "many":
            for _ in range(9):
                builder.write(stream, b"x" * number)
        elif what == "gap":
            builder.gap(stream, number)
        elif what == "rotate":
            builder.rotate()
        elif what == "delete" and oldest < builder.number:
            builder.delete(oldest)
            oldest += 1
        elif what == "damage" and oldest < builder.number and has_entry(builder, builder.number - 1, number):
            builder.damage_entry(builder.number - 1, number)
            counted = Backlog(builder.path)  # what was counted as sound stays so
        elif what == "count":
            ends = end_positions(builder.path)
            agrees(counted, builder.path, (ends[0] * stream // 100, ends[1] * number // 100), ends)
    ends = end_positions(builder.path)
    builder.write(STDERR, b"later")
    agrees(counted, builder.path, (0, 0), ends)
    agrees(counted, builder.path, ends, ends)


def has_entry(builder: StoreBuilder, segment: int, slot: int) -> bool:
    return (builder.folder / index_name(segment)).stat().st_size > slot * ENTRY_BYTES


def test_the_oldest_is_the_batch_in_which_the_cursor_lies(tmp_path: Path) -> None:
    builder = StoreBuilder(tmp_path)
    builder.write(STDOUT, b"1234", 10)
    builder.write(STDERR, b"1234", 20)
    builder.rotate(25)
    builder.write(STDOUT, b"5678", 30)
    counted, ends = Backlog(str(tmp_path)), end_positions(str(tmp_path))
    oldest = [counted.count(at, ends, FAR).oldest_ns for at in ((2, 0), (4, 0), (4, 4), (5, 4), (8, 4))]  # type: ignore[union-attr]
    assert oldest == [10, 20, 30, 30, 0]


def test_out_of_time_it_goes_on_at_the_next_call_and_walks_each_entry_once(tmp_path: Path, monkeypatch: Any) -> None:
    builder = StoreBuilder(tmp_path)
    for _ in range(3000):
        builder.write(STDOUT, b"x")
    counted, ends = Backlog(str(tmp_path)), end_positions(str(tmp_path))
    blocks: list[int] = []
    take = backlog._Tally._take_at_once
    monkeypatch.setattr(backlog._Tally, "_take_at_once", lambda self, block: blocks.append(1) or take(self, block))
    past = time.monotonic() - 1
    assert counted.count((0, 0), ends, past) is None
    assert blocks == []
    monkeypatch.setattr(backlog.time, "monotonic", lambda: len(blocks))
    rounds = 0
    while (waiting := counted.count((0, 0), ends, len(blocks) + 0.5)) is None:
        rounds += 1
    assert waiting.held == 3000
    assert rounds == 2
    assert len(blocks) == 3
    counted.count((0, 0), ends, FAR)
    assert len(blocks) == 3
