"""Containers whose output is delivered by the code of a forwarder, in the event loop of a test.

Stores are written as shims write them, in small segments, so that rotation takes part.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from logd.batch import Batch, ContainerInfo
from logd.driver import LogDriver, parse_options
from logd.forward.account import account
from logd.forward.delivery import Delivery
from logd.forward.destination import Destination
from logd.forward.routes import DEFAULT_LINE_BYTES, DeliveryOptions
from logd.logstore.follow import Watcher
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.progress import Progress, ProgressFile, read_progress
from logd.processor import Processor
from logd.record import STDERR, STDOUT
from logd.testing.samples import Line

T = TypeVar("T")
Sending = Callable[[Batch], Coroutine[Any, Any, None]]

NAME: Final = "driver"
"""Of the route."""
PIPE_BYTES: Final = 64 << 10
LOOK_S: Final = 0.005
ARRIVAL_LOOK_S: Final = 0.02
STORE: Final = StoreOptions(max_size=256 << 10, max_file=2, min_free=0)
CLAIM: Final = Progress(budget=1 << 30)
"""What has not been delivered stays, whatever `max_file` says."""


@dataclass
class Attempt:
    """One call of `send`."""

    container: str
    records: list[tuple[int, int, bytes]]
    """Stream, position, line."""
    taken: int = 0
    """How many of them, from the first on, the driver said the destination has."""


class Box:
    """A container: what it prints, and its store."""

    def __init__(self, folder: Path, name: str) -> None:
        identifier = secrets.token_hex(32)
        self.folder = str(folder / identifier)
        self.log_folder = os.path.join(self.folder, "log")
        self.info = ContainerInfo(
            id=identifier,
            name=name,
            image_name="img",
            folder=self.folder,
            run_folder=str(folder),
            labels={"app": "conformance"},
        )
        self.printed: list[Line] = []
        self.delivery: Delivery | None = None
        os.makedirs(self.log_folder)
        ProgressFile(self.log_folder, NAME, CLAIM).close()
        self._writer = open_store(self.log_folder, STORE)
        self._pipe = os.pipe()

    @property
    def id(self) -> str:
        """The container's id."""
        return self.info.id

    @property
    def progress(self) -> Progress:
        """How far delivery has come, as the file says."""
        return read_progress(self.log_folder)[NAME]

    @property
    def account(self) -> dict[str, Any]:
        """The account of its bytes."""
        return account(self.log_folder)[NAME]

    @property
    def is_delivered(self) -> bool:
        """Whether the cursor is at the end of what was printed."""
        return self.progress.positions == (self._writer.ends[STDOUT], self._writer.ends[STDERR])

    def prints(self, lines: Iterable[Line]) -> None:
        """Print lines."""
        printed = list(lines)
        self.printed += printed
        for stream, run in itertools.groupby(printed, key=lambda line: line[0]):
            self._write(stream, b"".join(line + b"\n" for _, line in run))

    def prints_unfinished(self, stream: int, line: bytes) -> None:
        """Print a line without a newline, the last one of a stream."""
        self.printed.append((stream, line))
        self._write(stream, line)

    def _write(self, stream: int, data: bytes) -> None:
        reading, writing = self._pipe
        for at in range(0, len(data), PIPE_BYTES):
            part = data[at : at + PIPE_BYTES]
            os.write(writing, part)
            left = self._writer.take(stream, reading, len(part))
            assert not left, "the disk is full"

    def close(self) -> None:
        """Close the store's files."""
        self._writer.close()
        for end in self._pipe:
            os.close(end)


class Bench:
    """A driver and the containers that send through it. To be entered by `async with`."""

    def __init__(
        self,
        folder: Path,
        driver: type[LogDriver[Any]],
        log_opts: Mapping[str, str],
        *,
        send_timeout_s: float = 5.0,
        patience_s: float = 20.0,
        processors: Callable[[], Sequence[Processor]] = tuple,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.boxes: list[Box] = []
        self._folder = folder
        self._patience_s = patience_s
        self._driver = driver
        self._log_opts = log_opts
        self._options = DeliveryOptions(send_timeout=send_timeout_s, flush_interval=0.0)
        self._processors = processors
        self._watcher = Watcher()
        self._destinations: list[Destination] = []
        self._tasks: dict[asyncio.Task[bool], Box] = {}
        self._interruptions: Iterator[float] = iter(())
        sample = self._make()
        self.confirms = sample.confirms
        """Whether the driver, with these log-opts, confirms."""
        self.max_record_bytes = sample.max_record_bytes

    async def __aenter__(self) -> "Bench":
        """Get ready."""
        await self._watcher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self.stop()
        self._watcher.close()
        for box in self.boxes:
            box.close()

    def container(self, name: str = "web") -> Box:
        """Return a new container that has printed nothing."""
        box = Box(self._folder, name)
        self.boxes.append(box)
        return box

    def deliver(self, box: Box) -> None:
        """Begin to deliver, at the cursor."""
        if self._driver.per_container or not self._destinations:
            driver = self._make()
            setattr(driver, "send", self._watched(driver.send))  # noqa: B010  # mypy knows no other way for a method
            self._destinations.append(Destination(driver))
        destination = self._destinations[-1]
        box.delivery = make_delivery(
            box.info, box.log_folder, destination, self._options, self._processors(), self._watcher
        )
        self._tasks[asyncio.create_task(box.delivery.run(), name=f"delivery {box.id[:12]}")] = box

    def _make(self) -> LogDriver[Any]:
        options = parse_options(f"{self._driver.name} log driver", self._driver.options_type, self._log_opts)
        return self._driver(options)

    def interrupt(self, seconds: Iterable[float]) -> None:
        """Cancel the next calls of `send` as the deadline does: after seconds, or turns of the loop if below 0."""
        self._interruptions = iter(seconds)

    async def until(self, holds: Callable[[], object], words: str = "") -> None:
        """Wait until something is true, while deliveries go on."""
        deadline = time.monotonic() + self._patience_s
        while not holds():
            self._look()
            assert time.monotonic() < deadline, f"not in {self._patience_s:.0f} s: {words} ({self.state})"
            await asyncio.sleep(LOOK_S)

    async def looking(self, look: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> None:
        """Wait until it holds for what `look` finds, not for ever: who asked finds out what is missing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                while not holds(await look()):  # noqa: ASYNC110  # destinations are asked, they tell nobody
                    await asyncio.sleep(ARRIVAL_LOOK_S)

    @property
    def state(self) -> str:
        """How the deliveries fare, for a person."""
        found = [(box.delivery.health, box.progress) for box in self.boxes if box.delivery]
        return "; ".join(f"{health}, {progress}" for health, progress in found)

    async def finish(self) -> None:
        """Nothing more is printed: return once everything is delivered."""
        for box in self._tasks.values():
            assert box.delivery
            box.delivery.end()
        await self.until(lambda: all(task.done() for task in self._tasks), "everything is delivered")
        assert all(task.result() for task in self._tasks)

    async def stop(self) -> None:
        """Stop delivering, wherever it is."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for box in self._tasks.values():
            assert box.delivery
            box.delivery.close()
        for destination in self._destinations:
            await destination.close()
        self._tasks.clear()
        self._destinations.clear()

    def _look(self) -> None:
        """Raise what a delivery has failed with, or a mistake in the driver."""
        for task, box in self._tasks.items():
            if task.done():
                task.result()
            assert box.delivery
            assert box.delivery.health.state != "failed", f"a mistake in the driver: {box.delivery.health.error}"

    def _watched(self, send: Sending) -> Sending:
        async def watched(batch: Batch) -> None:
            records = [(one.stream, one.position, one.line) for one in batch.records()]
            attempt = Attempt(batch.container.id, records)
            self.attempts.append(attempt)
            interruption = next(self._interruptions, None)
            try:
                if interruption is None:
                    await send(batch)
                else:
                    await _interrupted(send(batch), interruption)
                attempt.taken = len(batch)
            finally:
                attempt.taken = max(attempt.taken, batch.acknowledged)

        return watched


async def _interrupted(sending: Any, after: float) -> None:
    """Await, but cancel after `after` seconds, or as many turns of the loop as it is below 0. Raises TimeoutError."""
    task = asyncio.ensure_future(sending)
    if after >= 0:
        await asyncio.wait({task}, timeout=after)
    for _ in range(int(-after)):
        await asyncio.sleep(0)
    is_cancelled = task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        assert is_cancelled
        raise TimeoutError("cancelled, as the deadline does") from None


def make_delivery(
    container: ContainerInfo,
    folder: str,
    destination: Destination,
    options: DeliveryOptions,
    processors: Sequence[Processor],
    watcher: Watcher,
) -> Delivery:
    """Return the delivery of a container, as a forwarder makes it."""
    file = ProgressFile(folder, NAME, Progress())
    subscription = watcher.subscribe(folder)
    return Delivery(
        container, NAME, folder, destination, options, processors, DEFAULT_LINE_BYTES, file, subscription
    )  # fmt: skip
