"""How much containers have printed, for whoever asks again and again: their stores stay open in between."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Final

from logd.logstore.gauge import Gauge

if TYPE_CHECKING:
    from logd.container import Container

IDLE_S: Final = 10.0
"""How long stores stay open after the last question."""
WAIT_S: Final = 0.5
"""How long a disk is waited for: one that does not answer holds up nothing else."""


class Printed:
    """Bytes by container's id, dropped ones too. Used in the event loop; disks are waited for in threads."""

    def __init__(self) -> None:
        self._gauges: dict[Container, Gauge] = {}
        self._known: dict[str, int] = {}
        self._lock = threading.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def of(self, containers: Sequence["Container"], readers: Executor) -> Mapping[str, int]:
        """Return what these containers have printed; without those of which nothing is known at present."""
        loop = asyncio.get_running_loop()
        measuring = loop.run_in_executor(readers, self._measure, tuple(containers))
        if self._idle is not None:
            self._idle.cancel()
        self._idle = loop.call_later(IDLE_S, self._close)
        done, _ = await asyncio.wait({measuring}, timeout=WAIT_S)
        for one in done:
            one.result()
        return dict(self._known)

    def _measure(self, containers: Sequence["Container"]) -> None:
        """Look at each store, unless another thread does."""
        if not self._lock.acquire(timeout=WAIT_S):
            return
        try:
            for gone in self._gauges.keys() - set(containers):
                self._gauges.pop(gone).close()
                self._known.pop(gone.id, None)
            for container in containers:
                try:
                    if container not in self._gauges:
                        self._gauges[container] = Gauge(str(container.log_dir))
                    self._known[container.id] = sum(self._gauges[container].read().captured)
                except OSError:
                    self._known.pop(container.id, None)  # removed just now
        finally:
            self._lock.release()

    def _close(self) -> None:
        """Close what nobody has asked for lately."""
        if not self._lock.acquire(blocking=False):  # a disk does not answer
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._close)
            return
        try:
            for gauge in self._gauges.values():
                gauge.close()
            self._gauges.clear()
            self._known.clear()
        finally:
            self._lock.release()
