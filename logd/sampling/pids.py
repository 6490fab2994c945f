"""How many tasks a cgroup has. Source: kernel documentation, cgroup-v1/pids.rst, cgroup-v2.rst "PID"."""

from logd.sampling.folders import CgroupFiles
from logd.sampling.parse import limit, number
from logd.usage import Sample


class Pids:
    """The controller's files are the same in both versions."""

    def __init__(self, files: CgroupFiles) -> None:
        self._current = files.open("pids", "pids.current")
        self._limit = limit(files.read_once("pids", "pids.max"))

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises Gone."""
        sample.pids = number(self._current()) if resting is None else resting.pids
        sample.pids_limit = self._limit
