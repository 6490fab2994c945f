"""One cgroup, read as a whole: which readers this host's trees call for, and the sample that they fill."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from logd.runtime.cgroup import Hierarchy
from logd.sampling.blocks import BlocksV1, BlocksV2
from logd.sampling.cpu import CpuV1, CpuV2
from logd.sampling.folders import CgroupFiles
from logd.sampling.huge import HugePagesV1, HugePagesV2, pool_sizes
from logd.sampling.kept import Look, nothing
from logd.sampling.machine import Machine
from logd.sampling.memory import MemoryV1, MemoryV2
from logd.sampling.network import Network
from logd.sampling.pids import Pids
from logd.sampling.stalls import Stalls
from logd.usage import Counters, Sample

NET_DEV: Final = "net/dev"
MACHINE: Final = "/"


class Reader(Protocol):
    """A part of a sample."""

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises Gone, and OSError.

        `resting` is the last sample if nothing has run in the cgroup since.
        """


def cgroup_readers(files: CgroupFiles, host: Path) -> list[Reader]:
    """Return the readers of a cgroup's own files but the CPU's.

    Limits are read now, and no more: see `Samples.renew`.
    """
    sizes = pool_sizes(host)
    readers: list[Reader] = [
        MemoryV1(files) if files.is_v1("memory") else MemoryV2(files),
        BlocksV1(files) if files.is_v1("blkio") else BlocksV2(files),
        Pids(files),
        Stalls(files),
    ]
    if sizes:
        readers.append(HugePagesV1(files, sizes) if files.is_v1("hugetlb") else HugePagesV2(files, sizes))
    return readers


def take(cpu: CpuV1 | CpuV2, readers: Sequence[Reader], last: Sample | None) -> Sample:
    """Return what the readers see now, with the last sample before. Raises Gone, and OSError.

    Most containers of a fleet rest, and most of what a cgroup has changes only while something runs in it.
    """
    sample = Sample(time_ns=time.time_ns(), counters=Counters(devices={}, stalls={}), stalled={}, huge_pages={})
    cpu.fill(sample)
    resting = last if last is not None and last.counters.cpu_ns == sample.counters.cpu_ns else None
    for reader in readers:
        reader.fill(sample, resting)
    return sample


class Reading:
    """A cgroup that is kept open: a container's for one run, a parent's, or the root, which is the machine. Close it.

    `host` is the folder that has the host's proc and sys.
    """

    def __init__(self, hierarchy: Hierarchy, path: str, host: Path, pid: int = 0) -> None:
        """Open everything; the network namespace is that of `pid`, if it has not ended. Raises OSError."""
        self._files = CgroupFiles(hierarchy, path)
        self._net_dev: Look = nothing
        try:
            self.exists = self._files.exists()
            self._cpu = CpuV1(self._files) if self._files.is_v1("cpuacct") else CpuV2(self._files)
            self._readers = cgroup_readers(self._files, host)
            self._last: Sample | None = None
            if pid:
                network = Network(self._files, pid)
                self._net_dev = network.look
                self._readers.append(network)
            if path == MACHINE:
                self._readers.append(Machine(self._files, host))
        except BaseException:
            self._files.close()
            raise
        self._raw: dict[str, Look] = {}

    def read(self) -> Sample:
        """Return a look at it. Raises Gone, and OSError."""
        self._last = take(self._cpu, self._readers, self._last)
        return self._last

    def raw(self, name: str) -> bytes:
        """Return a file by its name, b"" where there is none; kept open from now on. Raises Gone, and OSError."""
        if name == NET_DEV:
            return self._net_dev()
        look = self._raw.get(name)
        if look is None:
            look = self._raw[name] = self._files.open(self._files.owner(name), name)
        return look()

    def close(self) -> None:
        """Close all files."""
        self._files.close()
