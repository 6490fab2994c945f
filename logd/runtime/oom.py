"""Whether the kernel's out-of-memory killer struck in a process's memory cgroup.

Sources: kernel documentation, cgroup-v1/memory.rst (memory.oom_control, oom_kill) and cgroup-v2.rst (memory.events).
"""

import os


def counter_file(pid: int, mount: str = "/sys/fs/cgroup") -> str | None:
    """Return the path of the file that counts kills in the memory cgroup of `pid`, None if there is none."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    candidates = [
        f"{mount}/memory{path}/memory.oom_control" for _, names, path in lines if "memory" in names.split(",")
    ]
    candidates += [f"{mount}{path}/memory.events" for _, names, path in lines if not names]
    return next((path for path in candidates if os.path.exists(path)), None)


def kills(path: str | None) -> int:
    """Return the count in a counter file, 0 if it is gone."""
    if path is None:
        return 0
    try:
        with open(path, encoding="utf-8") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    except FileNotFoundError:
        return 0
