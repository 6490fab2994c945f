"""A container's statistics in Docker's shape, of one moment; several clients who watch a container share a reading."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from logd.api import host
from logd.sampling import docker
from logd.units import ZERO_TIME, format_time_short

if TYPE_CHECKING:
    from logd.container import Container
    from logd.sampling.registry import Samples

FRESH_S: Final = 0.5
"""For how long a reading serves other clients of the same container."""


class Readings:
    """Statistics of containers. Nothing is read while nobody asks, and hardly more often if several do."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Container, tuple[float, docker.Json]] = WeakKeyDictionary()

    def recent(self, samples: "Samples", container: "Container") -> docker.Json:
        """Return a container's statistics of now or of FRESH_S ago, without those of an earlier moment."""
        read_at, reading = self._kept.get(container, (-FRESH_S, None))
        if reading is None or time.monotonic() - read_at >= FRESH_S:
            reading = self.fresh(samples, container)
        return reading

    def fresh(self, samples: "Samples", container: "Container") -> docker.Json:
        """Return a container's statistics of now, without those of an earlier moment."""
        reading = _read(samples, container)
        self._kept[container] = (time.monotonic(), reading)
        return reading


def _read(samples: "Samples", container: "Container") -> docker.Json:
    """Return a container's statistics; of one that does not run, Docker's empty ones."""
    names = {"name": f"/{container.name}", "id": container.id, "os_type": container.os}
    sample = samples.read(container.id) if container.state.running and not container.state.restarting else None
    if sample is None:
        return {"read": ZERO_TIME, **docker.no_stats(), **names}

    def read(name: str) -> bytes:
        return samples.raw(container.id, name)

    figures = docker.stats(read, samples.version(container.id), host.memory_total())
    # Close to the container's own figure, with which clients compare it.
    system_ns, online = docker.host_cpu(Path("/proc/stat").read_bytes())
    figures["cpu_stats"] |= {"system_cpu_usage": system_ns, "online_cpus": online}
    shared = container.host.network_mode == "host"  # the host's interfaces are not the container's
    interfaces = {} if shared else docker.networks(sample.counters.interfaces)
    return {"read": format_time_short(time.time_ns()), **figures, **names, **interfaces}
