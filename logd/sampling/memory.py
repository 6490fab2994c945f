"""Memory of a cgroup and of those below it: usage, what it consists of, limits, faults, kills.

The last are the kernel's own counters, which a daemon cannot miss.
Source: kernel documentation, cgroup-v1/memory.rst, cgroup-v2.rst "Memory Interface Files".
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import nothing
from logd.sampling.parse import Columns, limit, number
from logd.usage import Sample


class _Memory(ABC):
    """What both versions have: usage, what it consists of, limits. `columns`: names of memory.stat, as in `fill`."""

    def __init__(self, files: CgroupFiles, *, usage: str, peak: str, columns: Sequence[bytes]) -> None:
        self._usage = files.open("memory", usage)
        self._stat = files.open("memory", "memory.stat")
        self._peak = files.open("memory", peak)
        self._columns = Columns(*columns)
        self._limit = self._swap_limit = self._reservation = 0

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises Gone."""
        sample.memory_usage = number(self._usage())
        if resting is not None and resting.memory_usage == sample.memory_usage:
            _repeat(sample, resting)
            return
        sample.rss, sample.cache, sample.mapped_file, sample.active_file, sample.inactive_file, *others = self._columns(
            self._stat()
        )
        sample.working_set = max(0, sample.memory_usage - sample.inactive_file)
        sample.memory_peak = number(self._peak())
        sample.memory_limit, sample.swap_limit = self._limit, self._swap_limit
        sample.memory_reservation = self._reservation
        self._fill_own(sample, others)

    @abstractmethod
    def _fill_own(self, sample: Sample, others: Sequence[int]) -> None:
        """Enter swap, kernel memory and counters; `others`: the columns behind the five that both have. Raises Gone."""


class MemoryV1(_Memory):
    """The v1 controller; of memory.stat the `total_` lines, which include the cgroups below.

    Without a limit there are no failures to count; kills there are, for want of memory of the machine.
    """

    def __init__(self, files: CgroupFiles) -> None:
        columns = (
            b"total_rss", b"total_cache", b"total_mapped_file", b"total_active_file", b"total_inactive_file",
            b"total_swap", b"total_pgfault", b"total_pgmajfault",
        )  # fmt: skip
        super().__init__(files, usage="memory.usage_in_bytes", peak="memory.max_usage_in_bytes", columns=columns)
        self._kills = files.open("memory", "memory.oom_control")
        self._kill_columns = Columns(b"oom_kill")
        self._kernel = files.open("memory", "memory.kmem.usage_in_bytes")
        self._limit = limit(files.read_once("memory", "memory.limit_in_bytes"))
        self._failures = files.open("memory", "memory.failcnt") if self._limit else nothing
        both = limit(files.read_once("memory", "memory.memsw.limit_in_bytes"))
        self._swap_limit = max(0, both - self._limit) if self._limit else both
        self._reservation = limit(files.read_once("memory", "memory.soft_limit_in_bytes"))

    def _fill_own(self, sample: Sample, others: Sequence[int]) -> None:
        counters = sample.counters
        sample.swap, counters.page_faults, counters.major_page_faults = others
        sample.kernel_memory = number(self._kernel())
        counters.memory_failures = number(self._failures())
        counters.oom_kills = self._kill_columns(self._kills())[0]


class MemoryV2(_Memory):
    """The v2 controller. A runtime writes Docker's reservation to memory.low."""

    def __init__(self, files: CgroupFiles) -> None:
        columns = (
            b"anon", b"file", b"file_mapped", b"active_file", b"inactive_file", b"pgfault", b"pgmajfault",
            b"kernel", b"kernel_stack", b"slab",
        )  # fmt: skip
        super().__init__(files, usage="memory.current", peak="memory.peak", columns=columns)
        self._events = files.open("memory", "memory.events")
        self._event_columns = Columns(b"max", b"oom_kill")
        self._swap = files.open("memory", "memory.swap.current")
        self._limit = limit(files.read_once("memory", "memory.max"))
        self._swap_limit = limit(files.read_once("memory", "memory.swap.max"))
        self._reservation = limit(files.read_once("memory", "memory.low"))

    def _fill_own(self, sample: Sample, others: Sequence[int]) -> None:
        counters = sample.counters
        counters.page_faults, counters.major_page_faults, kernel, stacks, slab = others
        counters.memory_failures, counters.oom_kills = self._event_columns(self._events())
        sample.swap = number(self._swap())
        sample.kernel_memory = kernel or stacks + slab  # the sum of all: since Linux 5.18


def _repeat(sample: Sample, last: Sample) -> None:
    """Enter the figures of the last sample: nothing has run since, and nothing was taken away."""
    sample.rss, sample.cache, sample.mapped_file, sample.swap = last.rss, last.cache, last.mapped_file, last.swap
    sample.active_file, sample.inactive_file = last.active_file, last.inactive_file
    sample.working_set, sample.kernel_memory = last.working_set, last.kernel_memory
    sample.memory_peak = last.memory_peak
    sample.memory_limit, sample.swap_limit = last.memory_limit, last.swap_limit
    sample.memory_reservation = last.memory_reservation
    counters, before = sample.counters, last.counters
    counters.page_faults, counters.major_page_faults = before.page_faults, before.major_page_faults
    counters.memory_failures, counters.oom_kills = before.memory_failures, before.oom_kills
