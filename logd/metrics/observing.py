"""The daemon's side of the observer: start it at the first scrape, ask it at each, take in what it finds.

A scrape waits WAIT_S for it and no longer: what comes later is seen by the next one. An observer that dies is started
again by a scrape, after a while; it goes on where the last one has told that it was.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import logd
from logd.forward.wire import Closed, Line

log = logging.getLogger(__name__)

CODE: Final = "import sys; sys.path.insert(0, {root!r}); from logd.metrics.observer import main; main()"
WAIT_S: Final = 0.1
BACKOFF_S: Final = (0.0, 1.0, 5.0, 30.0, 120.0)
"""How long a scrape leaves an observer dead that has died so many times in a row."""
CALM_S: Final = 60.0
"""One that has lived so long begins the back-off anew."""
PATIENCE_S: Final = 60.0
"""An observer that owes an answer for so long hangs, in a disk for instance, and is killed."""


class Observing:
    """At most one process. Use it in the event loop. `hear` is given what it finds: the events of observer.py."""

    def __init__(self, hear: Callable[[dict[str, Any]], None]) -> None:
        self.generation = 0
        """Which process it is, counted: what one was told the next one does not know."""
        self.pid = 0
        self._hear = hear
        self._line: Line | None = None
        self._life: asyncio.Task[None] | None = None
        self._deaths = 0
        self._died_s = 0.0
        self._asked: asyncio.Task[dict[str, Any]] | None = None
        self._asked_s = 0.0

    async def ready(self) -> bool:
        """Start a process if there is none; false if there is none at present, or it still works on the last round."""
        if self._life is None or self._life.done():
            if time.monotonic() < self._died_s + BACKOFF_S[min(self._deaths, len(BACKOFF_S) - 1)]:
                return False
            try:
                await self._start()
            except OSError as error:
                self._deaths, self._died_s = self._deaths + 1, time.monotonic()
                log.warning("the observer can't be started: %s", error)
                return False
        if self._asked is None or self._asked.done():
            return True
        if time.monotonic() > self._asked_s + PATIENCE_S:
            log.warning("the observer hangs: killed", extra={"pid": self.pid})
            await self._end()
        return False

    async def round(self, **request: Any) -> None:
        """Ask for a round, and wait a moment for its end. Call `ready` first."""
        assert self._line is not None
        self._asked_s = time.monotonic()
        self._asked = asyncio.create_task(self._line.ask("round", **request), name="observer's round")
        self._asked.add_done_callback(_retrieve)
        await asyncio.wait({self._asked}, timeout=WAIT_S)

    async def close(self) -> None:
        """End the process."""
        await self._end()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        code = CODE.format(root=str(Path(logd.__file__).parents[1]))
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", code, str(theirs.fileno()), str(os.getpid())),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    cwd="/",
                )
        except OSError:
            ours.close()
            raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        self._line, self.pid = Line(reader, writer), process.pid
        self.generation += 1
        self._life = asyncio.create_task(self._live(self._line, process), name="observer")

    async def _live(self, line: Line, process: asyncio.subprocess.Process) -> None:
        """Listen to a process until it ends, and note how that was."""
        began_s = time.monotonic()
        try:
            await line.listen(self._hear)
            code = await process.wait()
        finally:
            line.close()
            if process.returncode is None:
                process.kill()
                await process.wait()
            self.pid = 0
        self._died_s = time.monotonic()
        if code == 0:  # nobody had asked for long
            self._deaths = 0
            return
        self._deaths = 1 if self._died_s - began_s > CALM_S else self._deaths + 1
        log.warning("the observer ended (%s)", f"signal {-code}" if code < 0 else f"status {code}")

    async def _end(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await life


def _retrieve(task: "asyncio.Task[dict[str, Any]]") -> None:
    """Look at how a round ended: that its process died meanwhile is told elsewhere."""
    if not task.cancelled() and not isinstance(task.exception(), Closed | None):
        log.error("the observer's round failed", exc_info=task.exception())
