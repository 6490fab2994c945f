"""Memory of a cgroup and of those below it: usage, what it consists of, limits, faults, kills.

The last are the kernel's own counters, which a daemon cannot miss.
Source: kernel documentation, cgroup-v1/memory.rst, cgroup-v2.rst "Memory Interface Files".
"""

from logd.sampling.folders import CgroupFiles
from logd.sampling.parse import count, limit, number, pairs
from logd.usage import Sample


class MemoryV1:
    """The v1 controller; of memory.stat the `total_` lines, which include the cgroups below."""

    def __init__(self, files: CgroupFiles) -> None:
        self._usage = files.open("memory", "memory.usage_in_bytes")
        self._stat = files.open("memory", "memory.stat")
        self._failures = files.open("memory", "memory.failcnt")
        self._kills = files.open("memory", "memory.oom_control")
        self._peak = files.open("memory", "memory.max_usage_in_bytes")
        self._kernel = files.open("memory", "memory.kmem.usage_in_bytes")
        self._limit = limit(files.read_once("memory", "memory.limit_in_bytes"))
        both = limit(files.read_once("memory", "memory.memsw.limit_in_bytes"))
        self._swap_limit = max(0, both - self._limit) if self._limit else both
        self._reservation = limit(files.read_once("memory", "memory.soft_limit_in_bytes"))

    def fill(self, sample: Sample) -> None:
        """Enter the figures. Raises Gone."""
        counters, table = sample.counters, pairs(self._stat())
        sample.memory_usage = number(self._usage())
        sample.rss = count(table, b"total_rss")
        sample.cache = count(table, b"total_cache")
        sample.mapped_file = count(table, b"total_mapped_file")
        sample.active_file = count(table, b"total_active_file")
        sample.inactive_file = count(table, b"total_inactive_file")
        sample.swap = count(table, b"total_swap")
        sample.working_set = max(0, sample.memory_usage - sample.inactive_file)
        sample.kernel_memory = number(self._kernel())
        sample.memory_peak = number(self._peak())
        sample.memory_limit, sample.swap_limit = self._limit, self._swap_limit
        sample.memory_reservation = self._reservation
        counters.page_faults = count(table, b"total_pgfault")
        counters.major_page_faults = count(table, b"total_pgmajfault")
        counters.memory_failures = number(self._failures())
        counters.oom_kills = count(pairs(self._kills()), b"oom_kill")


class MemoryV2:
    """The v2 controller. A runtime writes Docker's reservation to memory.low."""

    def __init__(self, files: CgroupFiles) -> None:
        self._usage = files.open("memory", "memory.current")
        self._stat = files.open("memory", "memory.stat")
        self._events = files.open("memory", "memory.events")
        self._peak = files.open("memory", "memory.peak")
        self._swap = files.open("memory", "memory.swap.current")
        self._limit = limit(files.read_once("memory", "memory.max"))
        self._swap_limit = limit(files.read_once("memory", "memory.swap.max"))
        self._reservation = limit(files.read_once("memory", "memory.low"))

    def fill(self, sample: Sample) -> None:
        """Enter the figures. Raises Gone."""
        counters, table, events = sample.counters, pairs(self._stat()), pairs(self._events())
        sample.memory_usage = number(self._usage())
        sample.rss = count(table, b"anon")
        sample.cache = count(table, b"file")
        sample.mapped_file = count(table, b"file_mapped")
        sample.active_file = count(table, b"active_file")
        sample.inactive_file = count(table, b"inactive_file")
        sample.swap = number(self._swap())
        sample.working_set = max(0, sample.memory_usage - sample.inactive_file)
        sample.kernel_memory = count(table, b"kernel") or count(table, b"kernel_stack") + count(table, b"slab")
        sample.memory_peak = number(self._peak())
        sample.memory_limit, sample.swap_limit = self._limit, self._swap_limit
        sample.memory_reservation = self._reservation
        counters.page_faults = count(table, b"pgfault")
        counters.major_page_faults = count(table, b"pgmajfault")
        counters.memory_failures = count(events, b"max")
        counters.oom_kills = count(events, b"oom_kill")
