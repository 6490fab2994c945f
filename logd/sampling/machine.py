"""The machine as a whole, where its root cgroup does not tell: memory, tasks, waiting, the host's interfaces and disks.

The root cgroup of v1 forgets what removed cgroups have read and written; that of v2 has the figures of the disks.
Source: proc_meminfo(5), proc_vmstat(5), proc_diskstats(5), proc_loadavg(5), proc_pid_net(5), accounting/psi.rst.
"""

from pathlib import Path
from typing import Final

from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import Look, nothing
from logd.sampling.parse import count, diskstats, net_dev, number, pairs, pressure
from logd.sampling.stalls import RESOURCES
from logd.usage import Sample

KIB: Final = 1024
ENDS_OF_CONTAINERS: Final = ("veth", "docker", "nerdctl", "lo")
"""Prefixes of interfaces whose bytes another one of the host, or none, carries too; cAdvisor leaves out the same."""


class Machine:
    """Fills in behind the readers of the root cgroup. `host` is the folder that has proc."""

    def __init__(self, files: CgroupFiles, host: Path) -> None:
        self._memory = files.open_path(f"{host}/proc/meminfo")
        self._events = files.open_path(f"{host}/proc/vmstat")
        self._tasks = files.open_path(f"{host}/proc/loadavg")
        self._interfaces = files.open_path(f"{host}/proc/1/net/dev")
        self._disks = files.open_path(f"{host}/proc/diskstats") if files.is_v1("blkio") else nothing
        self._blocks = host / "sys/block"
        self._is_disk: dict[str, bool] = {}
        self._stalls: dict[str, Look] = {name: files.open_path(f"{host}/proc/pressure/{name}") for name in RESOURCES}

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises OSError."""
        counters = sample.counters
        _fill_memory(sample, self._memory())
        events = pairs(self._events())
        counters.page_faults = count(events, b"pgfault")
        counters.major_page_faults = count(events, b"pgmajfault")
        counters.oom_kills = count(events, b"oom_kill")
        sample.pids = number(self._tasks().partition(b"/")[2].partition(b" ")[0])
        counters.interfaces = {
            name: interface
            for name, interface in net_dev(self._interfaces()).items()
            if not name.startswith(ENDS_OF_CONTAINERS)
        }
        if disks := diskstats(self._disks()):
            counters.devices = {number: one for (number, name), one in disks.items() if self._is_whole(name)}
        for resource, look in self._stalls.items():
            if resource not in counters.stalls and (data := look()):
                counters.stalls[resource], sample.stalled[resource] = pressure(data)

    def _is_whole(self, name: str) -> bool:
        """Tell whether it is a disk and not a part of one."""
        if name not in self._is_disk:
            self._is_disk[name] = (self._blocks / name.replace("/", "!")).exists()
        return self._is_disk[name]


def _fill_memory(sample: Sample, meminfo: bytes) -> None:
    """Enter the machine's size, and the rest too where the root cgroup has no figures (v2)."""
    lines = (line.split() for line in meminfo.splitlines())
    table = {words[0]: int(words[1]) * KIB for words in lines if len(words) == 3}  # those in kB
    total = table.get(b"MemTotal:", 0)
    sample.memory_limit, sample.swap_limit = total, table.get(b"SwapTotal:", 0)
    if not sample.memory_usage:
        sample.memory_usage = total - table.get(b"MemFree:", 0)
        sample.swap = table.get(b"SwapTotal:", 0) - table.get(b"SwapFree:", 0)
    if not sample.rss:
        sample.rss = table.get(b"AnonPages:", 0)
        sample.cache = table.get(b"Cached:", 0) + table.get(b"Buffers:", 0)
        sample.mapped_file = table.get(b"Mapped:", 0)
        sample.active_file = table.get(b"Active(file):", 0)
        sample.inactive_file = table.get(b"Inactive(file):", 0)
        sample.kernel_memory = sum(table.get(name, 0) for name in (b"Slab:", b"KernelStack:", b"PageTables:"))
    sample.working_set = max(0, sample.memory_usage - sample.inactive_file)
