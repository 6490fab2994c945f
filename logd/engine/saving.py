"""Writing container.json behind the verbs: one writer for each container, and the latest state wins.

A frozen disk then holds up this container's file and nothing else: the threads are the writers' own, and no verb
waits for them unless it says so.
"""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from logd.container import Container, encode, write_record
from logd.engine.tasks import Tasks
from logd.errors import LogdError

log = logging.getLogger(__name__)

WRITERS: Final = 4
"""Threads, so files under way at once; a disk does not get faster by more."""
RETRY_FIRST_S: Final = 1.0
RETRY_LAST_S: Final = 60.0


class _Slot:
    """What is still to be written for one container, and who waits for it."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.waiting: list[asyncio.Future[OSError | None]] = []
        self.retry_s = RETRY_FIRST_S
        self.changed = asyncio.Event()


class StateWriter:
    """Writes containers' states; a write that failed is tried again until it succeeds or the container is removed."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._slots: dict[str, _Slot] = {}
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="state")

    def save(self, container: Container) -> None:
        """Have the present state written soon."""
        slot = self._slots.get(container.id)
        if slot is None:
            slot = self._slots[container.id] = _Slot()
            self._tasks.start(self._write(container, slot), f"state of {container.id[:12]}")
        slot.data = encode(container.record())
        slot.changed.set()

    async def saved(self, container: Container) -> None:
        """Return when the present state is on the disk; raises LogdError with the reason if it can't be written."""
        self.save(container)
        future: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        self._slots[container.id].waiting.append(future)
        if (error := await future) is not None:
            raise LogdError(f"can't save the state of container {container.id}: {error}") from error

    def close(self) -> None:
        """Use no more threads; writes under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _write(self, container: Container, slot: _Slot) -> None:
        try:
            while slot.data is not None and not container.removed:
                await self._write_once(container, slot)
        finally:
            del self._slots[container.id]
            _answer(slot.waiting, None)

    async def _write_once(self, container: Container, slot: _Slot) -> None:
        data, waiting = slot.data, slot.waiting
        slot.data, slot.waiting = None, []
        slot.changed.clear()
        assert data is not None
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, write_record, container.dir, data)
        except OSError as error:
            _answer(waiting, error)
            if container.removed:
                return
            log.warning("can't write container.json yet: %s", error, extra={"container": container.id})
            slot.data = slot.data or data
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(slot.changed.wait(), slot.retry_s)
            slot.retry_s = min(slot.retry_s * 2, RETRY_LAST_S)
        else:
            slot.retry_s = RETRY_FIRST_S
            _answer(waiting, None)


def _answer(waiting: list[asyncio.Future[OSError | None]], result: OSError | None) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(result)
