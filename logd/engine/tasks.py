"""Background tasks: each has a name, is held as long as it runs, and does not fail in silence."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """The background tasks of an engine."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str, *, watches: bool = False) -> asyncio.Task[None]:
        """Run `work` beside everything else; an exception of it is logged with a traceback.

        `watches`: it waits for what may never come, so that nobody waits for it at the end.
        """
        task = asyncio.create_task(work, name=name)
        (self._watching if watches else self._running).add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._watching.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def finish(self, timeout_s: float) -> None:
        """End the watches, wait at most that long for all other tasks, and cancel what is left.

        That includes what these begin themselves: a start that is under way ends as one that is watched.
        """
        until_s = time.monotonic() + timeout_s
        await _cancel(self._watching)
        while self._running and (left_s := until_s - time.monotonic()) > 0:
            await asyncio.wait(self._running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            await _cancel(self._watching)
        for task in self._running:
            log.warning("%s did not end in time", task.get_name())
        await _cancel(self._running)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end."""
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
