"""A lock that knows whether somebody waits for it, and what comes from a client while it is held."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final, Literal

from logd.errors import TooSlow

STALL_S: Final = 3.0
"""How long a client may keep others waiting without sending much."""
LEAST_BYTES: Final = 64 << 10
"""What it has to send in that time."""
LOOK_S: Final = 0.5


class Turn(asyncio.Lock):
    """The lock."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        """How many wait for it."""

    async def acquire(self) -> Literal[True]:
        """Wait for the lock."""
        self.waiting += 1
        try:
            return await super().acquire()
        finally:
            self.waiting -= 1


async def while_nobody_waits(turn: Turn, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what a client sends to whoever holds the lock.

    Raises TooSlow as soon as others have waited for STALL_S in which hardly anything came; the time in which what came
    is worked on does not count.
    """
    stalled_s, arrived = 0.0, 0
    while True:
        coming = asyncio.ensure_future(anext(chunks, b""))
        try:
            while not coming.done():
                before = time.monotonic()
                await asyncio.wait({coming}, timeout=LOOK_S)
                stalled_s = stalled_s + time.monotonic() - before if turn.waiting else 0.0
                if stalled_s >= STALL_S:
                    raise TooSlow(f"hardly anything of the archive came in {STALL_S:.0f} s in which others waited")
            chunk = coming.result()
        finally:
            coming.cancel()
        if not chunk:
            return
        arrived += len(chunk)
        if arrived >= LEAST_BYTES:
            stalled_s, arrived = 0.0, 0
        yield chunk
