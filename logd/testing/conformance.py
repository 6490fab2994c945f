"""The conformance suite of log drivers: what a driver has to stand, seen at its destination. For pytest.

    class TestMyDriver(DriverConformance):
        driver = MyDriver

        @pytest.fixture
        def target(self) -> Iterator[Target]:
            …

Deliveries are those of logd's forwarders: a store, a reader, batches, deadlines, retries, a cursor; only the pauses
between retries are shorter. What a driver cannot do, by its protocol, it declares in the attributes; what is then not
tested is skipped with that reason.
"""
# ruff: noqa: D102  (the name of a test says it)

import asyncio
import functools
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from logd.batch import Item
from logd.driver import LogDriver, parse_options
from logd.forward import destination
from logd.processor import Group, Processor
from logd.record import STDERR, STDOUT
from logd.testing import judging
from logd.testing.bench import Bench, Box
from logd.testing.faults import (
    BLACKHOLE,
    MUTE,
    PASS,
    REFUSE,
    STALL,
    Fault,
    half_answer,
    reset_at,
    restart_every,
    slow,
)
from logd.testing.life import Life
from logd.testing.proxy import Address, FaultProxy
from logd.testing.samples import JOINED, MEBIBYTE, ODD, Line, long_line, numbered
from logd.testing.target import Target

FIRST_BACKOFF_S = 0.01
LONGEST_BACKOFF_S = 0.2
INTERRUPTIONS = (*range(-1, -21, -1), 0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""When `send` is cancelled: after so many turns of the loop, or so many seconds."""
LONGEST_LIFE_S = 0.3
PRINT_EVERY_S = 0.002
LAST_BATCH_S = 0.03


class Joiner(Processor):
    """Joins the lines of JOINED that belong together."""

    def feed(self, items: list[Item]) -> list[Item]:
        """Return each group as a line of all but its last, and that."""
        out: list[Item] = []
        for item in items:
            if isinstance(item, Group) and len(item.lines) > 1:
                begin = item.end - len(item.lines[-1]) - 1
                out.append(item._replace(end=begin, lines=[b"\n".join(item.lines[:-1])]))
                item = item._replace(position=begin, lines=item.lines[-1:])  # noqa: PLW2901  # what is left of it
            out.append(item)
        return out


@pytest.mark.asyncio
class DriverConformance:
    """To be subclassed; see the module."""

    driver: ClassVar[type[LogDriver[Any]]]
    """The driver under test."""
    is_networked: ClassVar[bool] = True
    """Whether it connects to `Target.upstream`, so that a fault proxy can stand between."""
    is_lossless: ClassVar[bool] = True
    """Whether every byte of a line arrives as it was. If not, `shown` says how it arrives."""
    keeps_empty_lines: ClassVar[bool] = True
    """Whether a line without a byte arrives."""
    splits_lines: ClassVar[bool] = False
    """Whether the driver cuts lines, although they are not longer than its max_record_bytes, into several records."""
    tears_lines: ClassVar[bool] = False
    """Whether of a line that was under way when the connection broke the first part may arrive as a record."""
    keeps_order: ClassVar[bool] = True
    """Whether lines of one stream arrive in their order, after a reconnection too."""
    longest_line: ClassVar[int] = MEBIBYTE
    """The longest line that the destination is made for; longer ones are not tested."""
    send_timeout_s: ClassVar[float] = 1.0
    """The deadline in tests in which the destination hangs."""
    patience_s: ClassVar[float] = 20.0
    """How long anything may take until the test fails."""
    kills: ClassVar[int] = 4
    """How often the process that delivers is killed."""

    def shown(self, line: bytes) -> bytes:
        """Return how the destination shows a line of any bytes."""
        return line

    # -- fixtures ----------------------------------------------------------------------------------------------------

    @pytest.fixture
    def target(self) -> Target:
        """The destination. To be replaced; of any scope, also asynchronous."""
        raise NotImplementedError(
            "a conformance test needs a fixture `target` that returns a logd.testing.target.Target"
        )

    @pytest_asyncio.fixture
    async def proxy(self, target: Target) -> AsyncIterator[FaultProxy | None]:
        """What stands before the destination; None of a driver that is not networked."""
        if not self.is_networked:
            yield None
            return
        assert target.upstream is not None, "where the destination listens is not known"
        async with FaultProxy(target.upstream) as proxy:
            yield proxy

    @pytest.fixture
    def log_opts(self, target: Target, proxy: FaultProxy | None) -> dict[str, str]:
        """The driver's log-opts."""
        address: Address | None = proxy.address if proxy else target.upstream
        return target.log_opts(address)

    @pytest.fixture
    def make_bench(
        self, tmp_path: Path, log_opts: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Bench]:
        """Return a maker of benches."""
        monkeypatch.setattr(destination, "FIRST_BACKOFF_S", FIRST_BACKOFF_S)
        monkeypatch.setattr(destination, "LONGEST_BACKOFF_S", LONGEST_BACKOFF_S)

        def make(**options: Any) -> Bench:
            defaults = {"send_timeout_s": self.send_timeout_s, "patience_s": self.patience_s}
            return Bench(tmp_path, self.driver, log_opts, **{**defaults, **options})

        return make

    @pytest_asyncio.fixture
    async def bench(self, make_bench: Callable[..., Bench]) -> AsyncIterator[Bench]:
        """One, in which a hanging destination is soon given up."""
        async with make_bench() as bench:
            yield bench

    @pytest.fixture
    def faults(self, proxy: FaultProxy | None) -> FaultProxy:
        """The proxy, for tests that need one."""
        if proxy is None:
            pytest.skip("the driver reaches its destination without a network")
        return proxy

    # -- what arrives ------------------------------------------------------------------------------------------------

    async def test_lines_of_both_streams_arrive_whole_and_in_order(self, bench: Bench, target: Target) -> None:
        box = bench.container()
        bench.deliver(box)
        for first in range(0, 600, 200):
            box.prints(numbered(first, 200))
            await bench.until(lambda: box.is_delivered)
        await self.expect_exactly(bench, box, target)

    async def test_the_last_line_arrives_though_it_has_no_newline(self, bench: Bench, target: Target) -> None:
        box = bench.container()
        bench.deliver(box)
        box.prints(numbered(0, 2))
        box.prints_unfinished(STDOUT, b"the rest of stdout")
        box.prints_unfinished(STDERR, b"the rest of stderr")
        await self.expect_exactly(bench, box, target)

    @pytest.mark.parametrize("oddity", ODD)
    async def test_odd_lines_arrive_and_forge_nothing(self, bench: Bench, target: Target, oddity: str) -> None:
        if oddity == "empty" and not self.keeps_empty_lines:
            pytest.skip("the destination has no records without text (keeps_empty_lines)")
        if not self.is_lossless and type(self).shown is DriverConformance.shown:
            pytest.skip("the destination changes lines, and it is not said how (is_lossless, shown)")
        box = bench.container()
        bench.deliver(box)
        box.prints((stream, line) for line in ODD[oddity] for stream in (STDOUT, STDERR))
        box.prints([(STDOUT, b"end"), (STDERR, b"end")])
        await self.expect_exactly(bench, box, target)

    @pytest.mark.parametrize("size", [9_000, 70_000, MEBIBYTE])
    async def test_a_long_line_arrives_whole_or_in_parts(
        self, make_bench: Callable[..., Bench], target: Target, size: int
    ) -> None:
        if size > self.longest_line:
            pytest.skip(f"the destination takes lines of {self.longest_line} bytes (longest_line)")
        async with make_bench(send_timeout_s=10.0) as bench:
            box = bench.container()
            bench.deliver(box)
            line = long_line(size)
            box.prints([(STDOUT, b"before"), (STDOUT, line), (STDOUT, b"after")])
            if not self.splits_lines and not 0 < bench.max_record_bytes < size:
                await self.expect_exactly(bench, box, target)
                return
            await self.deliver_all(bench, box)
            await self.until_arrived(bench, box, target, lambda arrived: arrived[-1:] == [(STDOUT, b"after")])
            arrived = [line for _, line in await self.arrived(target, box)]
            assert arrived[0] == b"before"
            assert b"".join(arrived[1:-1]) == line
            self.check_account(box)

    async def test_a_record_joined_of_several_lines_arrives_as_one(
        self, make_bench: Callable[..., Bench], target: Target
    ) -> None:
        if not self.is_lossless and type(self).shown is DriverConformance.shown:
            pytest.skip("the destination changes lines, and it is not said how (is_lossless, shown)")
        async with make_bench(processors=lambda: [Joiner()]) as bench:
            box = bench.container()
            box.prints((STDOUT, line) for line in JOINED)
            box.printed[:] = [(STDOUT, b"\n".join(JOINED[:-1])), (STDOUT, JOINED[-1])]
            bench.deliver(box)
            await self.expect_exactly(bench, box, target)

    async def test_containers_that_share_the_destination_keep_their_lines_apart(
        self, bench: Bench, target: Target
    ) -> None:
        boxes = [bench.container(name) for name in ("one", "two", "three")]
        for number, box in enumerate(boxes):
            bench.deliver(box)
            box.prints(numbered(number * 1000, 300))
        for box in boxes:
            await self.expect_exactly(bench, box, target)

    async def test_it_can_be_closed_at_any_time_and_opened_again(
        self, bench: Bench, target: Target, log_opts: dict[str, str]
    ) -> None:
        options = parse_options(f"{self.driver.name} log driver", self.driver.options_type, log_opts)
        one = self.driver(options)
        await one.close()
        await one.open()
        await one.close()
        await one.close()
        box = bench.container()
        for first in range(0, 60, 20):
            box.prints(numbered(first, 20))
            bench.deliver(box)
            await bench.until(lambda: box.is_delivered)
            await bench.stop()
        bench.deliver(box)
        await self.expect_exactly(bench, box, target)

    # -- what fails --------------------------------------------------------------------------------------------------

    async def test_what_is_printed_while_nobody_listens_arrives_later(
        self, bench: Bench, target: Target, faults: FaultProxy
    ) -> None:
        await faults.become(REFUSE)
        box = bench.container()
        box.prints(numbered(0, 300))
        bench.deliver(box)
        await bench.until(lambda: box.progress.retries >= 2, "it is tried again")
        box.prints(numbered(300, 300))
        await faults.become(PASS)
        await self.expect_at_least(bench, box, target)

    async def test_what_is_printed_while_the_destination_is_away_arrives_when_it_is_back(
        self, bench: Bench, target: Target, faults: FaultProxy
    ) -> None:
        box = bench.container()
        bench.deliver(box)
        await self.begin(bench, box, target)
        await faults.become(REFUSE)
        box.prints(numbered(300, 300))
        await bench.until(lambda: box.progress.retries >= 2, "it is tried again")
        box.prints(numbered(600, 300))
        await self.heal(bench, box, target, faults)

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(STALL, id="accepts and never reads"),
            pytest.param(BLACKHOLE, id="reads and never answers"),
            pytest.param(MUTE, id="takes and never answers"),
        ],
    )
    async def test_a_destination_that_hangs_gets_all_once_it_goes_on(
        self, bench: Bench, target: Target, faults: FaultProxy, fault: Fault
    ) -> None:
        box = bench.container()
        bench.deliver(box)
        await self.begin(bench, box, target)
        await faults.become(fault)
        box.prints(numbered(300, 3000, width=300))
        await bench.until(lambda: self.has_noticed(box, 2), "it is tried again")
        await self.heal(bench, box, target, faults)

    @pytest.mark.parametrize("whole", [0, 1, 2])
    async def test_half_an_answer_is_none(self, bench: Bench, target: Target, faults: FaultProxy, whole: int) -> None:
        if not bench.confirms:
            pytest.skip("the destination does not answer (confirms)")
        box = bench.container()
        bench.deliver(box)
        await self.begin(bench, box, target)
        before = box.progress.delivered
        await faults.become(REFUSE)  # connections begin anew
        await faults.become(half_answer(whole))
        for first in range(300, 900, 100):
            box.prints(numbered(first, 100))
            await bench.until(functools.partial(self.has_noticed, box, box.progress.retries + 2))
        assert whole or box.progress.delivered == before, "half an answer was taken for one"
        await self.heal(bench, box, target, faults)

    @pytest.mark.parametrize("count", [1, 20_000])
    async def test_a_reset_in_the_middle_of_a_batch_loses_nothing(
        self, bench: Bench, target: Target, faults: FaultProxy, count: int
    ) -> None:
        box = bench.container()
        bench.deliver(box)
        await self.begin(bench, box, target)
        await faults.become(REFUSE)
        await faults.become(reset_at(count))
        box.prints(numbered(300, 600, width=100))
        await bench.until(lambda: self.has_noticed(box, 2), "it is tried again")
        await self.heal(bench, box, target, faults)

    async def test_a_slow_destination_gets_all_and_is_not_taken_for_dead(
        self, make_bench: Callable[..., Bench], target: Target, faults: FaultProxy
    ) -> None:
        await faults.become(slow(150_000))
        async with make_bench(send_timeout_s=10.0) as bench:
            box = bench.container()
            box.prints(numbered(0, 600, width=100))
            bench.deliver(box)
            await self.expect_exactly(bench, box, target)
            assert box.progress.retries == 0

    async def test_a_destination_that_is_restarted_again_and_again_gets_all(
        self, bench: Bench, target: Target, faults: FaultProxy
    ) -> None:
        box = bench.container()
        bench.deliver(box)
        await self.begin(bench, box, target)
        await faults.become(restart_every(0.15, away_s=0.05))
        for number in range(4):
            box.prints(numbered(300 + 300 * number, 300, width=100))
            await faults.until_restarted(number + 1)
        await self.heal(bench, box, target, faults)

    async def test_a_send_that_the_deadline_cancels_is_done_again(self, bench: Bench, target: Target) -> None:
        box = bench.container()
        bench.deliver(box)
        first = 0
        for after in INTERRUPTIONS:
            bench.interrupt([after])
            box.prints(numbered(first, 20, width=100))
            first += 20
            await bench.until(lambda: box.is_delivered, f"it goes on after a cancellation after {after}")
        await self.expect_at_least(bench, box, target)

    async def test_no_line_is_lost_when_the_process_that_delivers_is_killed_again_and_again(
        self, bench: Bench, target: Target, log_opts: dict[str, str]
    ) -> None:
        box = bench.container()
        seed = secrets.randbits(32)
        moments = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
        most: Counter[Line] = Counter()
        count = 0
        for _ in range(self.kills):
            async with Life(self.driver, log_opts, box, send_timeout_s=5.0):
                end = time.monotonic() + moments.uniform(0, LONGEST_LIFE_S)
                while time.monotonic() < end:  # so that there is always something under way
                    box.prints(numbered(count, 20, width=100))
                    count += 20
                    await asyncio.sleep(PRINT_EVERY_S)
                box.prints(numbered(count, 1000, width=100))
                count += 1000
                await asyncio.sleep(moments.uniform(0, LAST_BATCH_S))
            most += Counter(self.beyond(box, box.progress.positions))
        bench.deliver(box)
        most += Counter(self.beyond(box, box.progress.positions)) + Counter(box.printed)
        try:
            await self.expect_at_least(bench, box, target, most=most)
        except AssertionError as error:
            error.add_note(f"random moments: seed {seed}")
            raise

    # -- judging -----------------------------------------------------------------------------------------------------

    def has_noticed(self, box: Box, retries: int) -> bool:
        """Tell whether a fault has had its effect: the driver has failed that often, or has nothing left to send."""
        return box.progress.retries >= retries or box.is_delivered

    async def begin(self, bench: Bench, box: Box, target: Target) -> None:
        """Have the first 300 lines arrive."""
        box.prints(numbered(0, 300))
        await bench.until(lambda: box.is_delivered)
        await self.until_arrived(bench, box, target, lambda arrived: len(arrived) >= len(box.printed))

    async def heal(self, bench: Bench, box: Box, target: Target, faults: FaultProxy) -> None:
        """Let the destination be well again, and judge. What was given to the driver until then may be unconfirmed."""
        await faults.become(PASS)
        given = judging.sent(bench.attempts, box.id)
        await bench.until(lambda: box.is_delivered, "the backlog is delivered")
        box.prints(numbered(100_000, 100))
        await self.expect_at_least(bench, box, target, unconfirmed=given)

    async def deliver_all(self, bench: Bench, box: Box) -> None:
        """Return once delivery is done."""
        await bench.finish()
        assert box.is_delivered

    async def expect_exactly(self, bench: Bench, box: Box, target: Target) -> None:
        """Deliver everything; each line arrives once."""
        await self.deliver_all(bench, box)
        expected = self.expected(box)
        await self.until_arrived(bench, box, target, lambda arrived: len(arrived) >= len(expected))
        judging.check_equal(await self.arrived(target, box), expected)
        judging.check_nothing_taken_is_sent_again(bench.attempts)
        self.check_account(box)

    async def expect_at_least(
        self,
        bench: Bench,
        box: Box,
        target: Target,
        *,
        most: Counter[Line] | None = None,
        unconfirmed: Iterable[Line] = (),
    ) -> None:
        """Deliver everything; each line arrives, again only what was not known to have arrived.

        `most` is how often it may arrive, if not as often as it was given to the driver here. Of a driver that does
        not confirm, lines of `unconfirmed` may be lost.
        """
        await self.deliver_all(bench, box)
        expected = self.expected(box)
        missable = set() if bench.confirms else {(stream, self.shown(line)) for stream, line in unconfirmed}
        needed = [line for line in expected if line not in missable]
        await self.until_arrived(bench, box, target, lambda arrived: not Counter(needed) - Counter(arrived))
        arrived = await self.arrived(target, box)
        if self.tears_lines:
            known = set(expected)
            arrived = [one for one in arrived if one in known or not judging.is_part(one, expected)]
        judging.check_none_is_forged(arrived, expected)
        judging.check_none_is_lost(arrived, needed)
        lost = sum(len(line) + 1 for _, line in (Counter(expected) - Counter(arrived)).elements())
        assert lost <= box.progress.unconfirmed, f"{lost} bytes are lost, and fewer counted as unconfirmed"
        judging.check_doubles(arrived, most or self.as_shown(judging.sent(bench.attempts, box.id)))
        judging.check_nothing_taken_is_sent_again(bench.attempts)
        if self.keeps_order:
            judging.check_order(arrived, expected)
        self.check_account(box)

    def check_account(self, box: Box) -> None:
        """Check that every byte is accounted for, and none was given up."""
        account = box.account
        assert account["difference"] == 0, f"bytes are not accounted for: {account}"
        assert account["buffered"] == 0
        assert not account["dropped"], f"dropped: {account}"

    def expected(self, box: Box) -> list[Line]:
        """Return what should arrive."""
        return [(stream, self.shown(line)) for stream, line in box.printed]

    def as_shown(self, counts: Counter[Line]) -> Counter[Line]:
        """Return the counts of lines as they arrive."""
        out: Counter[Line] = Counter()
        for (stream, line), count in counts.items():
            out[stream, self.shown(line)] += count
        return out

    def beyond(self, box: Box, positions: tuple[int, int]) -> Iterator[Line]:
        """Return the lines that are not before a cursor."""
        at = {STDOUT: 0, STDERR: 0}
        begins = dict(zip((STDOUT, STDERR), positions, strict=True))
        for stream, line in box.printed:
            if at[stream] >= begins[stream]:
                yield stream, self.shown(line)
            at[stream] += len(line) + 1

    async def arrived(self, target: Target, box: Box) -> list[Line]:
        """Return what has arrived of a container."""
        received = await target.received(box.id)
        assert all(one.container == box.id for one in received), "records of another container"
        return [(one.stream, one.line) for one in received]

    async def until_arrived(
        self, bench: Bench, box: Box, target: Target, holds: Callable[[Sequence[Line]], bool]
    ) -> None:
        """Wait until it holds for what has arrived; without success the judge will say what is missing."""
        await bench.looking(lambda: self.arrived(target, box), holds)
