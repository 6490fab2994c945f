"""CPU time and memory of processes, from /proc."""

import os
import time
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond (schedstat); 0 when it is gone."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
    except OSError:
        return total / 1e9
    return total / 1e9


def pss_mib(pid: int) -> float:
    """Proportional set size in MiB, 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024
    except OSError:
        return 0.0


def rss_mib(pid: int) -> float:
    """Resident set size in MiB, 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except OSError:
        return 0.0


def children(parent: int) -> list[int]:
    """Pids of a process's children."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        try:
            found += [int(pid) for pid in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def matching(text: str) -> list[int]:
    """Pids of the processes, this one left out, whose command line contains `text`."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if text.encode() in file.read().replace(b"\0", b" "):
                    found.append(int(name))
        except OSError:
            continue
    return found


class Meter:
    """CPU seconds that processes use from now on. `tick` often: a process that ends keeps its last value."""

    def __init__(self, pids: list[int]) -> None:
        self.begin = {pid: cpu_seconds(pid) for pid in pids}
        self.last = dict(self.begin)
        self.ticked = 0.0

    def add(self, pids: list[int]) -> None:
        """Count all that these processes have used since they began, too: they are new."""
        for pid in pids:
            self.begin.setdefault(pid, 0.0)
            self.last.setdefault(pid, cpu_seconds(pid))

    def tick(self) -> None:
        if time.monotonic() - self.ticked > 0.02:
            self.ticked = time.monotonic()
            for pid in self.last:
                self.last[pid] = max(self.last[pid], cpu_seconds(pid))

    def used(self) -> float:
        self.ticked = 0.0
        self.tick()
        return sum(self.last[pid] - self.begin[pid] for pid in self.last)
