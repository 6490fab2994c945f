"""The container_* series of every container, and beside them those of the cgroups above.

What a container has used is what its ended runs have, kept in container.json, and what the present one has. After the
end the counters stay for KEEP_S, so that every scraper sees the last of them; memory and the like are no more. What a
container used that came and went between two scrapes is in its parent's series, which the kernel adds up.
"""

import time
from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple, Protocol

from logd.config import DaemonConfig
from logd.container import Container
from logd.metrics import figures, groups, lifecycle
from logd.metrics.devices import Devices, FileSystem, Room
from logd.metrics.families import Collector, Layout, Page
from logd.metrics.groups import Groups, Machine, Readings
from logd.metrics.subjects import Subjects
from logd.runtime.oci import cgroup_path
from logd.units import NS
from logd.usage import Counters, Sample

KEEP_S: Final = 600
"""How long the counters of a run that has ended are shown: many times the interval of any scraper."""


class Source(Protocol):
    """The engine, as far as it is looked at."""

    @property
    def samples(self) -> Readings:
        """What runs."""

    def use(self, container: Container) -> tuple[Sample | None, Counters]:
        """Return the present look at a run, or the last, and the counters of all runs at that moment."""

    def containers(self) -> list[Container]:
        """Return all containers."""

    def departed(self) -> list[Container]:
        """Return those that were removed within the last KEEP_S."""


class _Look(NamedTuple):
    """What there is to show. `counters` are None where they are not known now, or are of long ago."""

    sample: Sample | None
    total: Counters
    counters: Counters | None


class _Kept(NamedTuple):
    """A container's template, and what it hangs on."""

    key: tuple[object, ...]
    layout: Layout


class ContainerCollector(Collector):
    """`layer_bytes` gives the size of a container's writable layer, None where it has not been counted yet."""

    name: ClassVar = "containers"
    families: ClassVar = (*figures.FIGURES, *lifecycle.FAMILIES, *groups.FAMILIES)

    def __init__(
        self,
        source: Source,
        subjects: Subjects,
        config: DaemonConfig,
        machine: Machine,
        layer_bytes: Callable[[Container], int | None],
    ) -> None:
        """Raises OSError where the data root can't be looked at."""
        self._source = source
        self._subjects = subjects
        self._layer_bytes = layer_bytes
        self._devices = Devices()
        self._file_system = FileSystem(config.data_root, self._devices)
        self._groups = Groups(machine, self._file_system, self._devices, cgroup_path("", config.cgroup_parent))
        self._existing: list[Container] = []
        self._departed: list[Container] = []
        self._kept: dict[str, _Kept] = {}

    async def gather(self) -> None:
        """Note which containers there are."""
        self._existing, self._departed = self._source.containers(), self._source.departed()

    def collect(self, page: Page) -> None:
        """Write the series of containers, of groups, and of the machine."""
        now_s = time.time()
        room = self._file_system.room()
        for container in self._existing:
            self._write(page, container, now_s, room)
        for container in self._departed:
            self._write(page, container, now_s, None)
        self._groups.write(page, self._source.samples, room, now_s)
        everyone = (*self._existing, *self._departed)
        self._subjects.forget_others(everyone)
        for gone in self._kept.keys() - {container.id for container in everyone}:
            del self._kept[gone]

    def _write(self, page: Page, container: Container, now_s: float, room: Room | None) -> None:
        """Write a container's series; one that was removed has no room."""
        running = lifecycle.is_running(container)
        exists, exited = room is not None, lifecycle.has_exited(container)
        look = self._look(container, now_s, running=running)
        shape = figures.shape_of(look.counters, look.sample) if look.counters is not None else None
        layer = self._layer_bytes(container) if exists else None
        info = lifecycle.info_of(container)
        subject = self._subjects.container(container)
        key = (subject, shape, info, running, exists, exited, layer is None)
        kept = self._kept.get(container.id)
        if kept is None or kept.key != key:
            layout = self._layout(container, info, shape, layer, running=running, exists=exists, exited=exited)
            kept = self._kept[container.id] = _Kept(key, layout)
        values = lifecycle.container_values(container, look.total, running=running)
        if room is not None:
            values += (room.limit_bytes, room.inodes, room.free_inodes)
        if layer is not None:
            values += (layer,)
        if shape is not None and look.counters is not None:
            values += figures.values_of(shape, look.counters, look.sample)
        if running:
            page.add(lifecycle.LAST_SEEN, now_s, subject)
        page.put(kept.layout, values + lifecycle.log_values(container, exists=exists, exited=exited))

    def _look(self, container: Container, now_s: float, *, running: bool) -> _Look:
        """Return what a container uses; counters that could be less than they were shown before are left out."""
        sample, total = self._source.use(container)
        present = sample is not None and sample is not container.last_sample
        if running:
            return _Look(sample, total, total) if present else _Look(None, total, None)
        settled = container.usage_run >= container.run
        recent = now_s - container.state.finished_ns / NS < KEEP_S
        return _Look(None, total, total if present or (settled and recent) else None)

    def _layout(
        self,
        container: Container,
        info: tuple[str, ...],
        shape: figures.Shape | None,
        layer: int | None,
        *,
        running: bool,
        exists: bool,
        exited: bool,
    ) -> Layout:
        """Return a container's series, in the order in which `_write` has their values."""
        self._groups.follow(self._subjects.path(container))
        device = self._file_system.device
        series = lifecycle.container_series(info, running=running)
        if exists:
            series += [(family, device) for family in (groups.FS_LIMIT, groups.FS_INODES, groups.FS_FREE_INODES)]
        if layer is not None:
            series.append((groups.FS_USAGE, device))
        if shape is not None:
            series += figures.series_of(shape, self._devices)
        of_log = (self._subjects.log(container), lifecycle.log_series(exists=exists, exited=exited))
        return Layout(self._subjects.container(container), series, of_log)
