"""The samples of all containers that run, and of the cgroups above them, through descriptors that are kept open.

About 16 descriptors a container. Scrapes come from a thread, `begin` and `finish` from another: a lock for each
container lets no look meet a closed descriptor. The files are the kernel's own: a look takes microseconds.
"""

import logging
import threading
from pathlib import Path
from typing import Final

from logd.runtime import cgroup
from logd.sampling.kept import Gone
from logd.sampling.reading import Reading
from logd.usage import Sample

log = logging.getLogger(__name__)

HOST: Final = Path("/")


class _Entry:
    """A run. `reading` is None once it is finished."""

    def __init__(self, reading: Reading) -> None:
        self.reading: Reading | None = reading
        self.lock = threading.Lock()

    def read(self) -> Sample | None:
        with self.lock:
            if self.reading is None:
                return None
            try:
                return self.reading.read()
            except (Gone, OSError):
                return None

    def finish(self) -> Sample | None:
        sample = self.read()
        with self.lock:
            if self.reading is not None:
                self.reading.close()
                self.reading = None
        return sample


class Samples:
    """A key is a container's id. One per engine; safe in threads."""

    def __init__(self, root: Path = cgroup.ROOT, host: Path = HOST) -> None:
        """`root` has the cgroup trees, `host` the host's proc and sys."""
        self._hierarchy = cgroup.detect(root)
        self._host = host
        self._entries: dict[str, _Entry] = {}
        self._groups: dict[str, _Entry] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def begin(self, key: str, cgroup_path: str, pid: int) -> None:
        """Open what a run is read from: the cgroup (`/logd/<id>`), and the network namespace of its process `pid`.

        0 for a process that has ended. Never fails: of a cgroup that can't be read there are no samples.
        """
        self.finish(key)
        try:
            reading = Reading(self._hierarchy, cgroup_path, self._host, pid)
        except OSError as error:
            log.warning("no samples of its resources: %s", error, extra={"container": key})
            return
        if reading.exists:
            self._entries[key] = _Entry(reading)
        else:
            reading.close()

    def read(self, key: str) -> Sample | None:
        """Return a look at a run; None for an unknown key, and when its cgroup is gone. Opens nothing."""
        entry = self._entries.get(key)
        return entry.read() if entry is not None else None

    def finish(self, key: str) -> Sample | None:
        """Return the last look at a run and close its files; None as in `read`."""
        entry = self._entries.pop(key, None)
        return entry.finish() if entry is not None else None

    def raw(self, key: str, name: str) -> bytes:
        """Return a file of the run's cgroup by its name ("memory.stat", "blkio.throttle.io_serviced"), or "net/dev".

        b"" where there is none; kept open from the first use on.
        """
        entry = self._entries.get(key)
        if entry is None:
            return b""
        with entry.lock:
            try:
                return entry.reading.raw(name) if entry.reading is not None else b""
            except (Gone, OSError):
                return b""

    def version(self, key: str) -> int:
        """Return 1 or 2: by which cgroup version Docker's figures of memory and CPU are to be read; hybrid is 1."""
        return 2 if self._hierarchy.kind == "v2" else 1

    def group(self, path: str) -> Sample | None:
        """Return a look at a cgroup that is no container's: "/" for the machine, or a parent ("/logd"); else None.

        Opened at the first use and kept.
        """
        entry = self._groups.get(path)
        if entry is not None and (sample := entry.read()) is not None:
            return sample
        if entry is not None:
            self._groups.pop(path, None)
            entry.finish()
        try:
            reading = Reading(self._hierarchy, path, self._host)
        except OSError as error:
            log.warning("no samples of cgroup %s: %s", path, error)
            return None
        if not reading.exists:
            reading.close()
            return None
        entry = self._groups[path] = _Entry(reading)
        return entry.read()

    def close(self) -> None:
        """Close everything."""
        for entry in (*self._entries.values(), *self._groups.values()):
            entry.finish()
        self._entries.clear()
        self._groups.clear()
