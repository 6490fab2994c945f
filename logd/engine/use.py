"""What containers use: the present look at a run, and the counters of all runs, each of which is added exactly once.

A run's counters are in its cgroup until the runtime deletes that. So the last look is taken before, added to
container.json together with the run's number, and only then may the cgroup go: a daemon that was killed in between
finds either a cgroup that is not counted yet, or a number that says that it is.
"""

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import orjson

from logd.config import DaemonConfig
from logd.container import Container
from logd.runtime.oci import CONFIG_NAME, cgroup_path
from logd.sampling.registry import Samples
from logd.usage import Counters, Sample

KEEP_S: Final = 600.0
"""How long a removed container's last sample stays: several scrapes of every scraper."""
MAX_DEPARTED: Final = 2000


class Use:
    """The use of all containers. `begin` and `end` are called in the event loop, `of` and `departed` anywhere."""

    def __init__(self, config: DaemonConfig, samples: Samples) -> None:
        self._config = config
        self._samples = samples
        self._lock = threading.Lock()
        self._departed: deque[tuple[float, Container]] = deque(maxlen=MAX_DEPARTED)

    def begin(self, container: Container, pid: int) -> None:
        """Watch a run from before its command is started, or from when a new daemon found it; more often is no harm."""
        if container.id not in self._samples:
            self._samples.begin(container.id, self.cgroup_path(container), pid if _is_of(pid, container) else 0)

    def end(self, container: Container) -> None:
        """Take the last look at a run that has ended, while its cgroup is there, and add it up: once for each run.

        A start that failed counts too: what the runtime did in the cgroup is in its parents' figures as well.
        """
        if container.usage_run >= container.run:
            self._samples.finish(container.id)
            return
        self.begin(container, 0)  # it ended while there was no daemon
        with container.usage_lock:
            sample = self._samples.finish(container.id)
            container.usage_run = container.run
            if sample is not None:
                container.last_sample = sample
                container.usage = container.usage + sample.counters

    def of(self, container: Container) -> tuple[Sample | None, Counters]:
        """Return the present look, or the last of one that has ended, and the counters of all runs at that moment."""
        with container.usage_lock:
            sample = self._samples.read(container.id)
            if sample is None:
                return container.last_sample, container.usage
            return sample, container.usage + sample.counters

    def cgroup_path(self, container: Container) -> str:
        """Return the path of a container's cgroup, the one that it was started with where it has been (blocks)."""
        try:
            bundle: Any = orjson.loads((Path(container.exec_dir) / CONFIG_NAME).read_bytes())
            return str(bundle["linux"]["cgroupsPath"])
        except (OSError, ValueError, KeyError, TypeError):
            return cgroup_path(container.id, container.host.cgroup_parent or self._config.cgroup_parent)

    def depart(self, container: Container) -> None:
        """Keep a container that was removed for those who have not seen its last sample."""
        self._departed.append((time.monotonic(), container))
        self.departed()  # lets those go whose time is over, also where nobody scrapes

    def departed(self) -> list[Container]:
        """Return the containers that were removed within KEEP_S, the oldest first."""
        horizon = time.monotonic() - KEEP_S
        with self._lock:
            while self._departed and self._departed[0][0] < horizon:
                self._departed.popleft()
            return [container for _, container in self._departed]


def _is_of(pid: int, container: Container) -> bool:
    """Tell whether a process is the container's, and not another that was given its number after its end."""
    try:
        return container.id in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
