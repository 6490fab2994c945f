"""What a driver leaves out counts as dropped, for its reason, however its batches end."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.batch import Dropped, Group
from logd.driver import Batch, CommonOptions, LogDriver, Reject
from logd.forward import destination
from logd.forward.delivery import split
from logd.forward.intake import take_out
from logd.record import STDERR, STDOUT
from logd.testing.bench import Bench


@dataclass(frozen=True, kw_only=True)
class PickyOptions(CommonOptions):
    pass


class Picky(LogDriver[PickyOptions]):
    """Takes no lines with `-`, rejects `bad`, fails at `poison`, and breaks off after half of its first batch."""

    name = "picky"
    options_type = PickyOptions
    got: list[bytes]
    batches: int

    async def open(self) -> None:
        pass

    async def send(self, batch: Batch) -> None:
        Picky.batches += 1
        lines = [record.line for record in batch.records()]
        for number, line in enumerate(lines):
            if b"-" in line:
                batch.leave_out(number, line.decode())
        for number, line in enumerate(lines):
            if line == b"bad":
                raise Reject(number, "bad")
            if line == b"poison":
                raise ConnectionResetError("poison")
            if Picky.batches == 1 and number == len(lines) // 2:
                raise ConnectionResetError("half of it")
            if b"-" not in line:
                Picky.got.append(line)
            batch.ack(number + 1)

    async def close(self) -> None:
        pass


async def test_what_is_left_out_is_dropped_for_its_reason_and_the_account_adds_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(destination, "LONGEST_BACKOFF_S", 0.001)
    Picky.got, Picky.batches = [], 0
    stdout = [b"-a", b"one", b"-b", b"-a", b"bad", b"two", b"-a", b"poison", b"-b", b"-b", b"-a", b"", b"three", b"-b"]
    async with Bench(tmp_path, Picky, {}) as bench:
        box = bench.container()
        box.prints([(STDOUT, line) for line in stdout] + [(STDERR, b"-a"), (STDERR, b"four"), (STDERR, b"-a")])
        bench.deliver(box)
        await bench.finish()
        account = box.account
    assert sorted(Picky.got) == [b"", b"four", b"one", b"three", b"two"]
    assert account["dropped"] == {"-a": 6 * 3, "-b": 4 * 3, "rejected": 4, "poison": 7}
    assert account["delivered"] == sum(len(line) + 1 for line in Picky.got)
    assert (account["records"], account["buffered"], account["difference"]) == (5, 0, 0)


LINES = st.lists(st.sampled_from([b"", b"x", b"line"]), min_size=1, max_size=6)


@given(st.lists(LINES, max_size=5), st.data())
def test_whatever_is_taken_out_the_items_stand_for_the_same_bytes(
    groups: list[list[bytes]], data: st.DataObject
) -> None:
    items: list[Group | Dropped] = []
    at = 0
    for lines in groups:
        end = at + sum(map(len, lines)) + len(lines)
        items += [Group(1, STDOUT, at, end, lines), Dropped(STDOUT, end, end + 5, "gap")]
        at = end + 5
    count = sum(map(len, groups))
    left_out = data.draw(st.dictionaries(st.integers(0, count), st.sampled_from(["empty", "blank"])))
    out = take_out(items, left_out)
    ends = [0, *(one.end for one in out)]
    assert [one.position for one in out] == ends[:-1][: len(out)]
    kept = [line for one in out if type(one) is Group for line in one.lines]
    all_lines = [line for lines in groups for line in lines]
    assert kept == [line for number, line in enumerate(all_lines) if number not in left_out]
    assert all(one.end - one.position == sum(map(len, one.lines)) + len(one.lines) for one in out if type(one) is Group)
    assert split(out, len(kept))[1] == []
