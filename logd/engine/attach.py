"""Attachments: a client that reads a container's output as it comes and writes to its standard input.

Who attaches before the start loses nothing: the shim keeps what is not acknowledged and in the end makes the
container wait (a lease). Who attaches to a running container begins at the present end; if it falls behind what the
store keeps, it is cut off with the reason.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Coroutine
from typing import Any, Final, Self

from logd.container import Container, LogHold
from logd.engine.world import World
from logd.errors import LogdError
from logd.logstore.follow import Subscription
from logd.logstore.reader import RawReader
from logd.record import STDOUT, Gap, Run
from logd.runtime.shim_client import Shim

log = logging.getLogger(__name__)

READ_BYTES: Final = 256 * 1024
ACK_BYTES: Final = 1 << 20
"""A lease is renewed when this much was taken; the shim lets a reader lag eight times as far."""
IDLE_S: Final = 0.2
"""Or when for so long nothing more came."""
NOBODY_READS: Final = frozenset({errno.EPIPE, errno.EIO})
"""What writing to a pipe, and to the master of a terminal, ends with then."""
NOT_READ: Final = 1 << 62
"""The acknowledged position of a stream that nobody reads: it holds nothing back."""

Positions = tuple[int, int]


class Attachment:
    """One client's connection. Use it with `async with`; `read` until it returns nothing.

    Output begins with the run that runs now, or else the next one, and ends with it.
    """

    def __init__(
        self,
        world: World,
        container: Container,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        start: Positions | None,
    ) -> None:
        self._world = world
        self._container = container
        self._stdin = stdin and container.spec.open_stdin
        self._stdout = stdout
        self._stderr = stderr
        self.acknowledged: Positions | None = None
        """How far a lossless attachment has come; None for one that came late."""
        self._taken = 0
        self._begun = asyncio.Event()
        self._ended = asyncio.Event()
        self._reader: RawReader | None = None
        self._grown: Subscription | None = None
        self._hold: LogHold | None = None
        self._reading: asyncio.Future[list[Run | Gap]] | None = None
        self._final: Positions | None = None
        self._cut_off = False
        self._stdin_fd = -1
        self._stdin_lock = asyncio.Lock()
        self._stdin_closed = False
        if container.state.has_process:
            self._begin_reading(start)

    async def __aenter__(self) -> Self:
        self._container.attachments.add(self)
        self._world.tell(self._container, "attach")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._container.attachments.discard(self)
        if self._stdin and not self._stdin_closed and not self._world.closing:
            with contextlib.suppress(LogdError, OSError):
                await self.close_stdin()
        if self._stdin_fd >= 0:
            os.close(self._stdin_fd)
            self._stdin_fd = -1
        if self._reading is not None:  # a thread that was given up may still read
            await asyncio.wait({self._reading})
        if self._reader is not None and self._grown is not None and self._hold is not None:
            self._grown.close()
            self._reader.close()
            self._hold.close()
        if self.acknowledged is not None:
            self.acknowledged = None
            if not self._ended.is_set():
                await renew_lease(self._container)

    @property
    def lossless(self) -> bool:
        """Whether it was there before the start."""
        return self.acknowledged is not None

    def begin(self, positions: Positions) -> None:
        """Take part in a run that is about to start and whose output begins at `positions`."""
        self.acknowledged = (
            positions[0] if self._stdout else NOT_READ,
            positions[1] if self._stderr else NOT_READ,
        )
        self._begin_reading(positions)

    def _begin_reading(self, positions: Positions | None) -> None:
        if self._stdout or self._stderr:
            self._hold = self._container.hold_log()
            self._grown = self._world.watcher.subscribe(str(self._container.log_dir))
            self._reader = RawReader(
                self._hold.path, stdout=self._stdout, stderr=self._stderr, start=positions, execs=False
            )
        self._begun.set()

    def end(self) -> None:
        """The run has ended (or the container is gone): what there is now is all."""
        self._final = self._container.ended_positions
        self._ended.set()
        self._begun.set()
        if self._grown is not None:
            self._grown.wake()

    @property
    def began(self) -> bool:
        """Whether its run has begun, or will not come."""
        return self._begun.is_set()

    async def read(self) -> list[Run | Gap]:
        """Return the next batches of output, waiting for them; nothing at the end.

        To call it says that what it returned before has been handled. A Gap that ends a late attachment is the
        last item.
        """
        await self._begun.wait()
        if self._reader is None or self._grown is None:
            await self._ended.wait()
            return []
        waited = False
        while not self._cut_off:
            await self._acknowledge(ACK_BYTES)
            ended = self._ended.is_set()
            runs = self._up_to_end(await self._read_some(self._reader))
            if runs:
                return self._checked(runs)
            if ended:
                break
            if waited:
                await self._acknowledge(1)
            await self._grown.wait(IDLE_S if self.lossless and self._taken else None)
            waited = True
        return []

    async def _read_some(self, reader: RawReader) -> list[Run | Gap]:
        """Read in a thread what may have to come from the disk; a lossless reader is never that far behind."""
        if self.lossless:
            return reader.read(READ_BYTES)
        self._reading = asyncio.ensure_future(asyncio.to_thread(reader.read, READ_BYTES))
        runs = await asyncio.shield(self._reading)
        self._reading = None
        return runs

    def _up_to_end(self, runs: list[Run | Gap]) -> list[Run | Gap]:
        """Leave out what belongs to the container's next run."""
        if self._final is None:
            return runs
        ours: list[Run | Gap] = []
        for item in runs:
            room = self._final[0 if item.stream == STDOUT else 1] - item.position
            if room <= 0:
                continue
            ours.append(item._replace(data=item.data[:room]) if isinstance(item, Run) else item)
        return ours

    def _checked(self, runs: list[Run | Gap]) -> list[Run | Gap]:
        """Count what is handed out, and cut a late attachment off at a gap."""
        for index, item in enumerate(runs):
            if isinstance(item, Gap):
                if not self.lossless:
                    self._cut_off = True
                    return runs[: index + 1]
            else:
                self._taken += len(item.data)
        return runs

    async def _acknowledge(self, least: int) -> None:
        """Renew the lease if at least so many bytes were taken since the last time."""
        if self.acknowledged is None or self._reader is None:
            return
        self._taken += self._reader.passed_over
        self._reader.passed_over = 0
        if self._taken < least:
            return
        self._taken = 0
        stdout, stderr = self._reader.position
        self.acknowledged = (stdout if self._stdout else NOT_READ, stderr if self._stderr else NOT_READ)
        await renew_lease(self._container)

    async def write_stdin(self, data: bytes) -> None:
        """Write to the container's standard input, waiting while its pipe or terminal is full.

        Returns without effect if the container has none, has ended, or does not read any more.
        """
        await self._begun.wait()
        view = memoryview(data)
        async with self._stdin_lock:
            while view and not self._ended.is_set() and not self._stdin_closed:
                descriptor = await self._stdin_descriptor()
                if descriptor < 0:
                    return
                try:
                    view = view[os.write(descriptor, view) :]
                except BlockingIOError:
                    await _first_of(_writable(descriptor), self._ended.wait())
                except OSError as error:
                    if error.errno not in NOBODY_READS:
                        raise
                    self._stdin_closed = True

    async def _stdin_descriptor(self) -> int:
        shim: Shim | None = self._container.shim
        if self._stdin_fd < 0 and self._stdin and shim is not None:
            self._stdin_fd = await shim.stdin()
        return self._stdin_fd

    async def close_stdin(self) -> None:
        """The client's input has ended. The container sees that too, if it takes its input from one client only.

        A terminal has no end of input but the one that is typed.
        """
        await self._begun.wait()
        async with self._stdin_lock:
            if self._stdin_closed:
                return
            self._stdin_closed = True
            if self._stdin_fd >= 0:
                os.close(self._stdin_fd)
                self._stdin_fd = -1
            container = self._container
            if container.spec.tty:
                return
            others = any(other is not self and other.feeds_stdin for other in container.attachments)
            if not self._stdin or not container.spec.stdin_once or others or self._ended.is_set():
                return
            shim: Shim | None = container.shim
            if shim is not None:
                await shim.close_stdin()

    def detach(self) -> None:
        """The client leaves the container by its own wish, and tells everybody."""
        self._world.tell(self._container, "detach")

    @property
    def feeds_stdin(self) -> bool:
        """Whether its client may still write."""
        return self._stdin and not self._stdin_closed


async def begin_attachments(container: Container, shim: Shim) -> None:
    """Let the attachments that wait for the start take part in it, under a lease. Call it before `shim.start`."""
    waiting = [one for one in container.attachments if not one.began]
    for attachment in waiting:
        attachment.begin(container.ended_positions)
    if waiting:
        await shim.lease(_least_acknowledged(container))


def end_attachments(container: Container, *, waiting: bool = False) -> None:
    """Tell all attachments that have begun that their run has ended; `waiting`: those too whose run will not come."""
    for attachment in tuple(container.attachments):
        if attachment.began or waiting:
            attachment.end()


async def renew_lease(container: Container) -> None:
    """Tell the shim how far the slowest lossless attachment has come, or that there is none."""
    shim: Shim | None = container.shim
    if shim is None:
        return
    try:
        await shim.lease(_least_acknowledged(container))
    except (LogdError, OSError) as error:
        log.warning("the lease of an attachment was not renewed: %s", error, extra={"container": container.id})


def _least_acknowledged(container: Container) -> Positions | None:
    taken = [one.acknowledged for one in container.attachments if one.acknowledged is not None]
    if not taken:
        return None
    return min(one[0] for one in taken), min(one[1] for one in taken)


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _writable(descriptor: int) -> None:
    """Return when a pipe has room, or nobody reads it any more."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
