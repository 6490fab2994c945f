"""What the network interfaces of a container's own namespace have carried.

A kept descriptor of /proc/PID/net/dev keeps the namespace, so the counters are there after the exit too.
Source: proc_pid_net(5), network_namespaces(7).
"""

import os
from itertools import islice
from typing import Final

from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import Look, nothing
from logd.sampling.parse import net_dev
from logd.usage import Sample

MAX_INTERFACES: Final = 64
"""A container that may make interfaces must not make series without end; the oldest are shown."""


class Network:
    """The interfaces of the namespace that a process is in; none where it is the daemon's, which is the host's."""

    def __init__(self, files: CgroupFiles, pid: int) -> None:
        self.look: Look = nothing if _shares_ours(pid) else files.open_path(f"/proc/{pid}/net/dev")

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures."""
        sample.counters.interfaces = dict(islice(net_dev(self.look()).items(), MAX_INTERFACES))


def _shares_ours(pid: int) -> bool:
    try:
        theirs, ours = os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/self/ns/net")
    except OSError:  # it has ended
        return True
    return theirs.st_ino == ours.st_ino
