"""Seal closed segments in idle time: their checksums are recorded, so that `logd log fsck` sees decay on the disk."""

import asyncio
import logging
import os
from typing import Final

from logd.container import Container
from logd.engine.names import Registry
from logd.errors import LogdError
from logd.logstore.seal import seal, unsealed

log = logging.getLogger(__name__)

ROUND_S: Final = 30.0
"""Between two looks at all stores."""
BUSY_LOAD: Final = 0.8
"""Load per core above which sealing waits: it reads whole segments."""
PAUSE_S: Final = 0.2
"""After each segment, so that a backlog does not keep a core busy."""


async def seal_in_idle_time(registry: Registry) -> None:
    """Seal one segment after the other, for ever."""
    while True:
        await asyncio.sleep(ROUND_S)
        for container in registry.all():
            try:
                await _seal_closed(container)
            except (OSError, LogdError) as error:  # it is being removed, or its disk fails: the next round sees
                log.debug("sealing: %s", error, extra={"container": container.id})


async def _seal_closed(container: Container) -> None:
    hold = container.hold_log()
    try:
        for number in await asyncio.to_thread(unsealed, hold.path):
            if container.removed or is_busy():
                return  # the rest in a later round
            await asyncio.to_thread(seal, hold.path, number)
            await asyncio.sleep(PAUSE_S)
    finally:
        hold.close()


def is_busy() -> bool:
    """Tell whether the machine has something better to do."""
    return os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)
