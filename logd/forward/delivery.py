"""The delivery of one container's output to one driver: read, process, send, move the cursor on; for ever again.

The cursor moves after `send` has returned, or as far as the driver acknowledged: at least once, whatever is killed.
What fails is sent again until it succeeds. A batch that keeps failing although its destination can be opened is cut
smaller, down to one record; when another record gets through and this one does not, it is set aside as poison.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from logd.batch import Batch, ContainerInfo, Dropped, Group, Item
from logd.driver import Reject
from logd.forward.deadletter import bury
from logd.forward.destination import Destination, Unreachable
from logd.forward.intake import Intake, cut, line_begin, take_out, take_records
from logd.forward.routes import DEFAULT_LINE_BYTES, DeliveryOptions
from logd.logstore.follow import Subscription
from logd.logstore.progress import ProgressFile
from logd.logstore.reader import LogReader
from logd.logstore.selection import Selection
from logd.processor import Processor
from logd.record import STDERR, STDOUT, Run

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 1 << 20
READ_BYTES: Final = 256 << 10
FLUSH_INTERVAL_S: Final = 0.05
"""After a small batch the next one waits that long: at most 20 a second for each container."""
SMALL_BATCH_BYTES: Final = 256 << 10
PATIENCE: Final = 5
"""How often a batch may fail at an open destination before it is cut smaller."""
BUG_WAIT_S: Final = 60.0
"""After a driver failed in a way that only a mistake in it explains."""
LARGEST: Final = 1 << 62
SECOND: Final = 2
"""The part by which a line is seen to be over-long; a last line without a newline is a first part, too."""
REJECTED: Final = "rejected"
POISON: Final = "poison"


@dataclass
class Health:
    """How a delivery fares, for whoever asks."""

    state: str = "idle"
    """idle, delivering, retrying, or failed (by a mistake in the driver)."""
    error: str = ""
    """The last one."""
    error_ns: int = 0
    """When it came, Unix time."""
    oldest_ns: int = 0
    """When the oldest line that is read and not yet delivered arrived; 0 if there is none."""


class Delivery:
    """One of them, from its making until `close`."""

    def __init__(
        self,
        container: ContainerInfo,
        name: str,
        folder: str,
        destination: Destination,
        options: DeliveryOptions,
        processors: Sequence[Processor],
        line_bytes: int,
        file: ProgressFile,
        subscription: Subscription,
    ) -> None:
        self.container = container
        self.name = name
        self.folder = folder
        self.destination = destination
        self.file = file
        self.health = Health()
        self._options = options
        self._processors = processors
        self._subscription = subscription
        self._most = destination.driver.max_batch_records or LARGEST
        self._limit = min(line_bytes or DEFAULT_LINE_BYTES, destination.driver.max_record_bytes or line_bytes)
        progress = file.progress
        self._intake = Intake(container.id, self._limit, progress.positions, progress.lines)
        self._reader = LogReader(
            folder, Selection(after=progress.positions), max_line_bytes=self._limit, budget=READ_BYTES
        )
        self._ended = False
        self._is_paused = False
        self._ahead: asyncio.Task[list[Item]] | None = None
        self._held_since = 0.0
        self._next_at = 0.0
        destination.driver.resume(container, bytes.fromhex(progress.memo))

    def end(self) -> None:
        """Nothing more will come: let `run` return once all is delivered."""
        self._ended = True
        self._subscription.wake()

    def pause(self) -> None:
        """Let `run` return once what is being sent has been, or has failed."""
        self._is_paused = True

    def close(self) -> None:
        """Close the store's files and the cursor's."""
        self._reader.close()
        self._subscription.close()
        self.file.close()
        self.destination.driver.forget(self.container)

    async def run(self) -> bool:
        """Deliver. True once it was told that nothing more will come and all is delivered; false when it was paused."""
        try:
            while not self._is_paused:
                items = await self._next()
                if items:
                    self._read_ahead(items)
                    await self._deliver(items)
                    await self._pace(items)
                elif self._ended:
                    await self._deliver(self._last())
                    return not self._is_paused
                else:
                    await self._idle()
        finally:
            if self._ahead is not None:
                self._ahead.cancel()
        return False

    # -- reading -----------------------------------------------------------------------------------------------------

    def _read_ahead(self, items: list[Item]) -> None:
        """Begin to read what comes after items that are many: while they are on their way, there is time for it.

        Not while the destination is in trouble: with many containers that would be a lot of memory.
        """
        if size_of(items) >= SMALL_BATCH_BYTES and not self.destination.failures:
            self._ahead = asyncio.create_task(self._read(), name=f"read ahead {self.container.id[:12]}")

    async def _next(self) -> list[Item]:
        """Return what comes next, nothing if there is nothing more at present."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            if items := await ahead:
                return items  # else something may have come since
        return await self._read()

    async def _read(self) -> list[Item]:
        """Return what comes next, about a batch of it."""
        items: list[Item] = []
        size = 0
        while size < BATCH_BYTES and (found := self._reader.read()):
            size += sum(len(one.data) for one in found if isinstance(one, Run))
            self._intake.take(found, items)
        return await self._process(items) if items and self._processors else items

    async def _process(self, items: list[Item]) -> list[Item]:
        """Take items through the processors, one by one: a costly pattern must not hold up the other deliveries."""
        done: list[Item] = []
        for item in items:
            some = [item]
            for processor in self._processors:
                some = processor.feed(some)
            done += some
            await asyncio.sleep(0)
        self._held_since = time.monotonic() if any(one.held for one in self._processors) else 0.0
        return done

    def _flush(self) -> list[Item]:
        """Return what the processors hold back; what one lets go passes through those after it."""
        items: list[Item] = []
        for processor in self._processors:
            items = [*(processor.feed(items) if items else ()), *processor.flush()]
        self._held_since = 0.0
        return items

    def _last(self) -> list[Item]:
        items: list[Item] = []
        self._intake.take(self._reader.finish(), items)
        for processor in self._processors:
            items = [*processor.feed(items), *processor.flush()]
        return items

    async def _idle(self) -> None:
        """Wait for more, or for the time at which lines have been held back long enough."""
        self.health.state = "idle"
        self.health.oldest_ns = 0
        if not self._held_since:
            await self._subscription.wait()
            return
        patience = max(one.flush_after_s for one in self._processors)
        left = self._held_since + patience - time.monotonic()
        if left > 0 and await self._subscription.wait(left):
            return
        if not self._ended and time.monotonic() >= self._held_since + patience:
            await self._deliver(self._flush())

    async def _pace(self, items: list[Item]) -> None:
        """After a small batch let a little more come together."""
        interval = self._options.flush_interval
        interval = FLUSH_INTERVAL_S if interval is None else interval
        now = time.monotonic()
        if interval and size_of(items) < SMALL_BATCH_BYTES and not self._ended and now < self._next_at:
            await asyncio.sleep(self._next_at - now)
            now = self._next_at
        self._next_at = now + interval

    # -- sending -----------------------------------------------------------------------------------------------------

    async def _deliver(self, items: list[Item]) -> None:
        """Send until nothing is left of the items."""
        most, failures = self._most, 0
        while (items := self._commit(items, 0)) and not self._is_paused:
            groups = take_records(items, most)
            batch = Batch(self.container, groups)
            self.health.oldest_ns = groups[0].time_ns
            if not failures:
                self.health.state = "delivering"
            try:
                await self.destination.send(batch, self._options.send_timeout)
            except Reject as reject:
                items, most = self._rejected(items, batch, reject)
            except OSError as error:
                items = self._commit_part(items, batch)
                failures = 1 if batch.acknowledged else failures + 1
                self._failed("retrying", error)
                if failures >= PATIENCE and not isinstance(error, Unreachable):
                    items, most = await self._isolate(items, len(batch))
            except asyncio.CancelledError:
                self._commit_part(items, batch)
                raise
            except Exception as error:
                items = self._commit_part(items, batch)
                self._failed("failed", error)
                log.exception(
                    "driver %s: a mistake in it; tried again in %.0f s",
                    self.destination.driver.name,
                    BUG_WAIT_S,
                    extra={"container": self.container.id},
                )
                await asyncio.sleep(BUG_WAIT_S)
            else:
                self._remember(batch)
                items = self._settle(items, batch, len(batch))
                most, failures = self._most, 0
                self.health.error = ""

    async def _isolate(self, items: list[Item], size: int) -> tuple[list[Item], int]:
        """Cut a batch that keeps failing smaller; of a single record find out whether it is the one to blame."""
        if size > 1:
            return items, max(1, size // 2)
        suspect, others = split(items, 1)
        if not others or not take_records(others, 1):
            return items, 1
        batch = Batch(self.container, take_records(others, 1))
        try:
            await self.destination.send(batch, self._options.send_timeout)
        except (OSError, Reject):
            return items, 1  # neither gets through: it is not the record
        again = Batch(self.container, take_records(suspect, 1))
        try:  # perhaps the destination has recovered just now
            await self.destination.send(again, self._options.send_timeout)
        except (Unreachable, Reject):
            return items, 1
        except OSError as error:
            self._remember(batch)
            return self._settle(self._bury(suspect, POISON, str(error)) + others, batch, 1), self._most
        self._remember(again)
        return self._settle(self._settle(items, again, 1), batch, 1), self._most

    def _rejected(self, items: list[Item], batch: Batch, reject: Reject) -> tuple[list[Item], int]:
        """Set a rejected record aside; where it is not known which of the batch it is, halve what is sent."""
        self.health.error, self.health.error_ns = reject.reason, time.time_ns()
        if reject.record is None and len(batch) > 1:
            return self._commit_part(items, batch), max(1, len(batch) // 2)
        record = reject.record or 0
        batch.ack(record)
        rest = self._commit_part(items, batch)
        if batch.acknowledged > record:  # a driver that says two things of one record: it has been taken
            return rest, self._most
        bad, others = split(rest, 1)
        return self._bury(bad, REJECTED, reject.reason) + others, self._most

    def _bury(self, items: list[Item], reason: str, words: str) -> list[Item]:
        """Write the one record among the items to the dead letters; return them with it as dropped."""
        out: list[Item] = []
        for item in items:
            if type(item) is Group:
                try:
                    bury(self.folder, self.name, item, words)
                except OSError as error:
                    log.warning(
                        "dead letter of %s not kept: %s", self.name, error, extra={"container": self.container.id}
                    )
                out.append(Dropped(item.stream, item.position, item.end, reason))
            else:
                out.append(item)
        return out

    def _failed(self, state: str, error: Exception) -> None:
        self.file.progress.retries += 1
        self.file.save()
        self.health.state = state
        self.health.error = str(error) or type(error).__name__
        self.health.error_ns = time.time_ns()

    # -- the cursor --------------------------------------------------------------------------------------------------

    def _remember(self, batch: Batch) -> None:
        self.file.progress.memo = batch.memo.hex()

    def _commit_part(self, items: list[Item], batch: Batch) -> list[Item]:
        """Move the cursor beyond what was acknowledged of a batch that failed; return the rest."""
        if batch.acknowledged:
            self._remember(batch)
        return self._settle(items, batch, batch.acknowledged)

    def _settle(self, items: list[Item], batch: Batch, records: int) -> list[Item]:
        """Move the cursor beyond the first `records` records of a batch; those that were left out were dropped."""
        left_out = {number: reason for number, reason in batch.left_out.items() if number < records}
        return self._commit(take_out(items, left_out) if left_out else items, records - len(left_out))

    def _commit(self, items: list[Item], records: int) -> list[Item]:
        """Move the cursor beyond the first `records` records and what is dropped before the next; return the rest."""
        done, rest = split(items, records)
        if not done:
            return rest
        progress, confirms = self.file.progress, self.destination.driver.confirms
        positions = dict(zip((STDOUT, STDERR), progress.positions, strict=True))
        begins = dict(zip((STDOUT, STDERR), progress.lines, strict=True))
        for item in done:
            size = item.end - item.position
            positions[item.stream] = max(positions[item.stream], item.end)
            if type(item) is Dropped:
                progress.dropped[item.reason] = progress.dropped.get(item.reason, 0) + size
                begins[item.stream] = -1
                continue
            assert type(item) is Group
            progress.records += len(item.lines)
            progress.long_lines += item.partial is not None and item.partial.ordinal == SECOND
            begins[item.stream] = line_begin(item, self._limit)
            if confirms:
                progress.delivered += size
            else:
                progress.unconfirmed += size
        progress.positions = positions[STDOUT], positions[STDERR]
        progress.lines = begins[STDOUT], begins[STDERR]
        self.file.save()
        return rest


def size_of(items: list[Item]) -> int:
    """Return how many bytes of the container's output the items stand for."""
    return sum(item.end - item.position for item in items)


def split(items: list[Item], records: int) -> tuple[list[Item], list[Item]]:
    """Return the items up to the `records`th record, dropped ones right after it included, and the others."""
    for at, item in enumerate(items):
        if type(item) is not Group:
            continue
        if len(item.lines) <= records:
            records -= len(item.lines)
        elif records:
            first, second = cut(item, records)
            return [*items[:at], first], [second, *items[at + 1 :]]
        else:
            return items[:at], items[at:]
    return items, []
