"""One cgroup, read as a whole: which readers this host's trees call for, and the sample that they fill."""

import time
from collections.abc import Sequence
from typing import Protocol

from logd.runtime.cgroup import Hierarchy
from logd.sampling.blocks import BlocksV1, BlocksV2
from logd.sampling.cpu import CpuV1, CpuV2
from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import Look
from logd.sampling.memory import MemoryV1, MemoryV2
from logd.sampling.network import Network
from logd.sampling.pids import Pids
from logd.sampling.stalls import Stalls
from logd.usage import Counters, Sample

NET_DEV = "net/dev"


class Reader(Protocol):
    """A part of a sample."""

    def fill(self, sample: Sample) -> None:
        """Enter the figures. Raises Gone, and OSError."""


def cgroup_readers(files: CgroupFiles) -> list[Reader]:
    """Return the readers of a cgroup's own files; limits are read now, and no more: a run keeps those it began with."""
    return [
        CpuV1(files) if files.is_v1("cpuacct") else CpuV2(files),
        MemoryV1(files) if files.is_v1("memory") else MemoryV2(files),
        BlocksV1(files) if files.is_v1("blkio") else BlocksV2(files),
        Pids(files),
        Stalls(files),
    ]


def take(readers: Sequence[Reader]) -> Sample:
    """Return what the readers see now. Raises Gone, and OSError."""
    sample = Sample(time_ns=time.time_ns(), counters=Counters(devices={}, stalls={}), stalled={})
    for reader in readers:
        reader.fill(sample)
    return sample


class ContainerReading:
    """A container's cgroup and network namespace, kept open for one run. Close it."""

    def __init__(self, hierarchy: Hierarchy, path: str, pid: int) -> None:
        """Open everything; `pid` is a process of the container, 0 if it has ended. Raises OSError."""
        self._files = CgroupFiles(hierarchy, path)
        try:
            self.exists = self._files.exists()
            network = Network(self._files, pid)
            self._net_dev = network.look
            self._readers = [*cgroup_readers(self._files), network]
        except BaseException:
            self._files.close()
            raise
        self._raw: dict[str, Look] = {}

    def read(self) -> Sample:
        """Return a look at it. Raises Gone, and OSError."""
        return take(self._readers)

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
