"""What the daemon's own process uses: the process_* metrics that all Prometheus clients have, without opening a file.

prometheus-client's own opens three files at each scrape and lists the descriptors, of which a daemon with hundreds of
containers has thousands. Source: proc_pid_stat(5), proc_pid_fd(5).
"""

import os
import resource
import time
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from logd.metrics.exposition import SUFFIXES
from logd.metrics.families import Family

CPU: Final = Family("process_cpu_seconds_total", "counter", "CPU time of the daemon.")
VIRTUAL: Final = Family("process_virtual_memory_bytes", "gauge", "Address space of the daemon.")
RESIDENT: Final = Family("process_resident_memory_bytes", "gauge", "Resident memory of the daemon.")
START: Final = Family("process_start_time_seconds", "gauge", "When the daemon was started.")
OPEN_FDS: Final = Family("process_open_fds", "gauge", "Descriptors that the daemon has open.")
MAX_FDS: Final = Family("process_max_fds", "gauge", "How many it may have.")
FAMILIES: Final = (CPU, VIRTUAL, RESIDENT, START, OPEN_FDS, MAX_FDS)

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_DESCRIPTORS: Final = "/proc/self/fd"
_STAT_BYTES: Final = 4096
_UTIME, _STIME, _STARTTIME, _VSIZE, _RSS = 11, 12, 19, 20, 21
"""Where they stand after the process's name, which may hold anything."""


class Process(Collector):
    """This process, as a collector of prometheus-client."""

    def __init__(self) -> None:
        self._stat = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._boot_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def close(self) -> None:
        """Close what is kept open."""
        os.close(self._stat)

    def describe(self) -> Iterator[Metric]:
        """Return the families, so that their registration measures nothing."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Return the figures of now."""
        fields = os.pread(self._stat, _STAT_BYTES, 0).rpartition(b")")[2].split()
        cpu_s = (int(fields[_UTIME]) + int(fields[_STIME])) / TICKS
        start_s = self._boot_s + int(fields[_STARTTIME]) / TICKS
        yield metric(CPU, {(): cpu_s})
        yield metric(VIRTUAL, {(): int(fields[_VSIZE])})
        yield metric(RESIDENT, {(): int(fields[_RSS]) * PAGE_BYTES})
        yield metric(START, {(): start_s})
        yield metric(OPEN_FDS, {(): _open_descriptors()})
        yield metric(MAX_FDS, {(): resource.getrlimit(resource.RLIMIT_NOFILE)[0]})


def metric(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a family of prometheus-client with a sample for each set of its labels' values."""
    suffix = SUFFIXES.get(family.kind, "")
    made = Metric(family.name.removesuffix(suffix), family.help, family.kind)
    for labels, value in values.items():
        made.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
    return made


def _open_descriptors() -> int:
    """Return their number: since Linux 6.2 it is the size of the folder, before that they are counted."""
    return os.stat(_DESCRIPTORS).st_size or len(os.listdir(_DESCRIPTORS)) - 1  # the one that lists them
