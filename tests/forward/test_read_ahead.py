"""What is read while a large batch is on its way: all of it arrives, once and in its order."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.driver import Batch, CommonOptions, LogDriver
from logd.record import STDOUT
from logd.testing.bench import Bench
from logd.testing.samples import Line


class Held(LogDriver[CommonOptions]):
    """Takes a batch when it is let."""

    name = "held"
    options_type = CommonOptions
    got: list[bytes]
    arrived: int
    may_take: asyncio.Event

    async def open(self) -> None:
        pass

    async def send(self, batch: Batch) -> None:
        Held.arrived += 1
        await Held.may_take.wait()
        Held.got += [one.line for one in batch.records()]

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _nothing_taken() -> None:
    Held.got, Held.arrived, Held.may_take = [], 0, asyncio.Event()


def lines(begin: int, end: int) -> Iterator[Line]:
    """About 100 bytes each; so 4,000 are a large batch."""
    return ((STDOUT, b"%0100d" % number) for number in range(begin, end))


async def test_what_comes_when_nothing_was_there_to_be_read_ahead_is_delivered_though_the_end_is_told(
    tmp_path: Path,
) -> None:
    async with Bench(tmp_path, Held, {}) as bench:
        box = bench.container()
        box.prints(lines(0, 4000))
        bench.deliver(box)
        await bench.until(lambda: Held.arrived)
        await asyncio.sleep(0)  # nothing more is found
        box.prints(lines(4000, 4100))
        assert box.delivery
        box.delivery.end()
        Held.may_take.set()
        await bench.finish()
        assert Held.got == [line for _, line in box.printed]
        assert box.account["difference"] == 0


async def test_what_was_read_ahead_of_a_stop_is_delivered_after_it(tmp_path: Path) -> None:
    async with Bench(tmp_path, Held, {}) as bench:
        box = bench.container()
        box.prints(lines(0, 40_000))
        bench.deliver(box)
        await bench.until(lambda: Held.arrived)
        await asyncio.sleep(0)
        await bench.stop()
        assert Held.got == []
        Held.may_take.set()
        bench.deliver(box)
        await bench.finish()
        assert Held.got == [line for _, line in box.printed]
        assert box.account["difference"] == 0


async def test_many_batches_arrive_in_their_order(tmp_path: Path) -> None:
    Held.may_take.set()
    async with Bench(tmp_path, Held, {}) as bench:
        box = bench.container()
        box.prints(lines(0, 40_000))
        bench.deliver(box)
        await bench.finish()
        assert Held.arrived > 1
        assert Held.got == [line for _, line in box.printed]
