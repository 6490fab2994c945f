"""The samples of all containers that run, and of the cgroups above them, through descriptors that are kept open.

About 16 descriptors a container. Scrapes come from a thread, `begin` and `finish` from another: a lock for each
container lets no look meet a closed descriptor. The files are the kernel's own: a look takes microseconds.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from logd.runtime import cgroup
from logd.sampling.kept import Gone
from logd.sampling.reading import MACHINE, Reading
from logd.usage import Sample

log = logging.getLogger(__name__)

HOST: Final = Path("/")


class _Entry:
    """A cgroup that is read. One that could not be opened, for want of descriptors, is tried again by every look."""

    def __init__(self, path: str, open_: Callable[[], Reading]) -> None:
        self.path = path
        self._open = open_
        self._reading: Reading | None = None
        self._closed = False
        self._lock = threading.Lock()

    def exists(self) -> bool:
        """Tell whether there is such a cgroup; it may be, where that can't be told now."""
        with self._lock:
            try:
                self._opened()
            except Gone:
                return False
            except OSError as error:
                log.warning("%s is not read for the time being: %s", self.path, error)
            return True

    def read(self) -> Sample | None:
        """Return a look, None where that is not possible."""
        with self._lock:
            return self._read()

    def renew(self) -> None:
        """Open everything anew, for limits that have changed; what can't be is read as it was."""
        with self._lock:
            if self._closed or self._reading is None:
                return
            with contextlib.suppress(OSError):
                reading = self._open()
                if reading.exists:
                    self._reading, reading = reading, self._reading
                reading.close()

    def raw(self, name: str) -> bytes:
        """Return a file, b"" where that is not possible."""
        with self._lock:
            try:
                return b"" if self._closed else self._opened().raw(name)
            except (Gone, OSError):
                return b""

    def finish(self) -> Sample | None:
        """Return a last look and close the files."""
        with self._lock:
            sample = self._read()
            self._closed = True
            if self._reading is not None:
                self._reading.close()
            return sample

    def _read(self) -> Sample | None:
        try:
            return None if self._closed else self._opened().read()
        except (Gone, OSError):
            return None

    def _opened(self) -> Reading:
        if self._reading is None:
            reading = self._open()
            if not reading.exists:
                reading.close()
                raise Gone(self.path)
            self._reading = reading
        return self._reading


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

        0 for a process that has ended. Never fails: without descriptors left it is opened by a later look, and of a
        cgroup that is not there are no samples.
        """
        self.finish(key)
        entry = _Entry(cgroup_path, lambda: Reading(self._hierarchy, cgroup_path, self._host, pid))
        if entry.exists():
            self._entries[key] = entry

    def read(self, key: str) -> Sample | None:
        """Return a look at a run; None for an unknown key, and when its cgroup is gone. Opens nothing."""
        entry = self._entries.get(key)
        return entry.read() if entry is not None else None

    def renew(self, key: str) -> None:
        """Read a run's limits again, which are not looked at otherwise; nothing for an unknown key."""
        if (entry := self._entries.get(key)) is not None:
            entry.renew()

    def finish(self, key: str) -> Sample | None:
        """Return the last look at a run and close its files; None as in `read`."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        if self._hierarchy.is_v1("blkio"):  # which forgets the run when its cgroup is removed
            for parent in self._parents(entry.path):
                parent.read()
        return entry.finish()

    def _parents(self, path: str) -> list[_Entry]:
        groups = tuple(self._groups.values())
        return [group for group in groups if group.path != MACHINE and path.startswith(f"{group.path}/")]

    def raw(self, key: str, name: str) -> bytes:
        """Return a file of the run's cgroup by its name ("memory.stat", "blkio.throttle.io_serviced"), or "net/dev".

        b"" where there is none; kept open from the first use on.
        """
        entry = self._entries.get(key)
        return entry.raw(name) if entry is not None else b""

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
        if ".." in path.split("/"):
            return None
        entry = _Entry(path, lambda: Reading(self._hierarchy, path, self._host))
        if not entry.exists():
            return None
        self._groups[path] = entry
        return entry.read()

    def close(self) -> None:
        """Close everything."""
        for entry in (*self._entries.values(), *self._groups.values()):
            entry.finish()
        self._entries.clear()
        self._groups.clear()
