"""A destination: one instance of a driver, shared by all containers with equal options, and its patience.

`open` and `close` around what fails, one back-off for all who send here, a deadline for each batch.
"""

import asyncio
import contextlib
import logging
import random
import time
from typing import Any, Final

from logd.driver import Batch, LogDriver, Reject

log = logging.getLogger(__name__)

FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 5.0
"""One connection attempt in five seconds, for however many containers, is no burden on a destination that is down."""
CLOSE_TIMEOUT_S: Final = 5.0


class Unreachable(OSError):
    """The driver could not be opened: whatever was to be sent is not to blame."""


class Destination:
    """Where batches go. `send` raises what the driver raises, after it was closed."""

    def __init__(self, driver: LogDriver[Any]) -> None:
        self.driver = driver
        self.users = 0
        """How many routes send here."""
        self.failures = 0
        """In a row, whoever sent."""
        self.opened_ns = 0
        """When it was opened last, Unix time; 0 while it is not open."""
        self._slots = asyncio.Semaphore(driver.max_in_flight)
        self._opening = asyncio.Lock()
        self._opens = 0
        self._is_open = False
        self._next_at = 0.0

    async def send(self, batch: Batch, timeout_s: float) -> None:
        """Have the driver send a batch. Raises OSError (TimeoutError too), Reject, or what a bug raises."""
        async with self._slots:
            opened = await self._open(timeout_s)
            try:
                async with asyncio.timeout(timeout_s or None):
                    await self.driver.send(batch)
            except Reject:
                raise  # said in good order
            except BaseException as error:
                await self._broken(opened)
                if isinstance(error, EOFError):  # asyncio's word for a peer that is gone
                    raise ConnectionResetError(str(error)) from error
                raise
            self.failures = 0

    async def _open(self, timeout_s: float) -> int:
        """Open the driver if need be, not too soon after a failure. Return the how-manieth opening it is."""
        async with self._opening:
            if self._is_open:
                return self._opens
            await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
            self._opens += 1
            self._is_open = True
            try:
                async with asyncio.timeout(timeout_s or None):
                    await self.driver.open()
            except BaseException as error:
                await self._close_broken()
                if isinstance(error, OSError):
                    raise Unreachable(str(error) or type(error).__name__) from error
                raise
            self.opened_ns = time.time_ns()
            return self._opens

    async def _broken(self, opened: int) -> None:
        """Close after a failure; of several sends that fail together only the first one does."""
        if opened == self._opens and self._is_open:
            await self._close_broken()

    async def _close_broken(self) -> None:
        self._is_open = False
        self.opened_ns = 0
        self.failures += 1
        backoff = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self.failures - 1, 16))
        self._next_at = time.monotonic() + backoff * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, no secret
        await self._close()

    async def _close(self) -> None:
        closing = asyncio.ensure_future(self.driver.close())
        try:
            await asyncio.wait_for(asyncio.shield(closing), CLOSE_TIMEOUT_S)
        except asyncio.CancelledError:
            with contextlib.suppress(BaseException):
                await asyncio.wait_for(closing, CLOSE_TIMEOUT_S)
            raise
        except Exception as error:  # what is broken may well say so
            log.debug("closing %s: %s", self.driver.name, error)
            closing.cancel()

    async def close(self) -> None:
        """Close for good."""
        if self._is_open:
            self._is_open = False
            await self._close()
