"""How long tasks waited for cpu, memory and I/O: in the unified tree, of which a container on a hybrid host has a part.

Source: kernel documentation, accounting/psi.rst. A kernel without it has no such files, or they can't be read.
"""

from typing import Final

from logd.runtime.cgroup import UNIFIED
from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import Gone, Look, nothing
from logd.sampling.parse import pressure
from logd.usage import Sample

RESOURCES: Final = ("cpu", "memory", "io")
RUNNING: Final = ("cpu", "memory")
"""Who waits for these runs soon, or does while it waits; for the end of I/O a task may wait long without running."""


class Stalls:
    """The three pressure files of a cgroup."""

    def __init__(self, files: CgroupFiles) -> None:
        self._looks: dict[str, Look] = {name: files.open(UNIFIED, f"{name}.pressure") for name in RESOURCES}

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures; of a resource that has none there is no entry."""
        for resource, look in self._looks.items():
            if resting is not None and resource in RUNNING and resting.stalled.get(resource) == 0:
                sample.counters.stalls[resource], sample.stalled[resource] = resting.counters.stalls[resource], 0.0
                continue
            try:
                data = look()
            except Gone:  # of the cgroup others tell; these also go when cgroup.pressure is switched off
                self._looks = dict.fromkeys(RESOURCES, nothing)
                return
            if data:
                sample.counters.stalls[resource], sample.stalled[resource] = pressure(data)
