"""The container_* series of the machine (id="/") and of the cgroups above containers, in which stays what these used.

The daemon's own cgroup for containers has series before it exists, so that the first container's use is an increase.
"""

import time
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from logd.metrics import figures
from logd.metrics.devices import Devices, FileSystem, Room
from logd.metrics.families import CONTAINER, Family, Layout, Page, Subject
from logd.metrics.lifecycle import LAST_SEEN, OOM_EVENTS, START_TIME
from logd.usage import Counters, Sample

ROOT: Final = "/"
MAX_GROUPS: Final = 64
"""How many cgroups are followed; each has files open, and a client chooses the parents of containers."""

FS_USAGE: Final = Family(
    "container_fs_usage_bytes",
    "gauge",
    "Bytes of the writable layer, as last counted; of the root: of the file system that containers are on.",
    ("device",),
    CONTAINER,
)
FS_LIMIT: Final = Family(
    "container_fs_limit_bytes", "gauge", "Size of the file system that containers are on.", ("device",), CONTAINER
)
FS_INODES: Final = Family(
    "container_fs_inodes_total", "unknown", "Inodes of that file system (a gauge).", ("device",), CONTAINER
)
FS_FREE_INODES: Final = Family("container_fs_inodes_free", "gauge", "Free inodes of it.", ("device",), CONTAINER)
CPU_CORES: Final = Family("machine_cpu_cores", "gauge", "CPUs of the machine.")
MACHINE_MEMORY: Final = Family("machine_memory_bytes", "gauge", "Memory of the machine.")
FAMILIES: Final = (FS_USAGE, FS_LIMIT, FS_INODES, FS_FREE_INODES, CPU_CORES, MACHINE_MEMORY)


class Readings(Protocol):
    """Samples of what runs: sampling.registry."""

    def read(self, key: str) -> Sample | None:
        """Return a look at a container; None where there is nothing to look at."""

    def group(self, path: str) -> Sample | None:
        """Return a look at a cgroup above containers; None where there is none."""


class Machine(NamedTuple):
    """The host's size."""

    cpus: int
    memory_bytes: int


class _Kept(NamedTuple):
    shape: figures.Shape
    layout: Layout


class Groups:
    """Used by one scrape at a time."""

    def __init__(self, machine: Machine, file_system: FileSystem, devices: Devices, parent: str) -> None:
        """`parent`: the cgroup that containers are below unless they ask for another."""
        self._machine = machine
        self._device = file_system.device
        self._devices = devices
        self._boot_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._subjects = {ROOT: Subject({"id": ROOT})}
        self._kept: dict[str, _Kept] = {}
        self.follow(f"{parent}/container")
        self._lasting = frozenset(self._subjects)

    def follow(self, path: str) -> None:
        """Have series of the cgroups above `path` from now on, for as long as they are there."""
        for group in _above(path):
            if group not in self._subjects and len(self._subjects) < MAX_GROUPS:
                self._subjects[group] = Subject({"id": group})

    def write(self, page: Page, samples: Readings, room: Room, now_s: float) -> None:
        """Write all of it; `room` is that of the file system that containers are on."""
        for path, subject in tuple(self._subjects.items()):
            sample = samples.group(path)
            if sample is None:
                self._write_absent(page, path, subject)
                continue
            self._write_figures(page, path, subject, sample.counters, sample)
            page.add(LAST_SEEN, now_s, subject)
        self._write_machine(page, room)

    def _write_figures(
        self, page: Page, path: str, subject: Subject, counters: Counters, sample: Sample | None
    ) -> None:
        shape = figures.shape_of(counters, sample)
        kept = self._kept.get(path)
        if kept is None or kept.shape != shape:
            kept = self._kept[path] = _Kept(shape, Layout(subject, figures.series_of(shape, self._devices)))
        page.put(kept.layout, figures.values_of(shape, counters, sample))
        page.add(OOM_EVENTS, counters.oom_kills, subject)

    def _write_absent(self, page: Page, path: str, subject: Subject) -> None:
        """Write nothing but zeros of a cgroup that is not there, and leave it if it need not come back."""
        if path in self._lasting:
            self._write_figures(page, path, subject, Counters(), None)
        else:  # a container that comes below it brings it back
            del self._subjects[path]
            self._kept.pop(path, None)

    def _write_machine(self, page: Page, room: Room) -> None:
        device, root = self._device, self._subjects[ROOT]
        page.add(FS_USAGE, room.used_bytes, root, device)
        page.add(FS_LIMIT, room.limit_bytes, root, device)
        page.add(FS_INODES, room.inodes, root, device)
        page.add(FS_FREE_INODES, room.free_inodes, root, device)
        page.add(START_TIME, self._boot_s, root)
        page.add(CPU_CORES, self._machine.cpus)
        page.add(MACHINE_MEMORY, self._machine.memory_bytes)


def _above(path: str) -> Iterable[str]:
    """Return the cgroups between a container's (`/a/b/<id>`) and the root: /a/b and /a."""
    parts = [part for part in path.split("/") if part][:-1]
    return ["/" + "/".join(parts[:end]) for end in range(len(parts), 0, -1)]
