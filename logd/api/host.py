"""What the machine is and can do, for /info and /version: read from /proc, /sys and the programs, on each question.

Source: Docker Engine API 1.47, SystemInfo, for the meaning of the fields; cgroups(7), proc(5), os-release(5).
"""

import contextlib
import os
import platform
import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""Go's names, which /version uses; /info has the kernel's."""
CGROUP: Final = Path("/sys/fs/cgroup")
PROGRAM_TIMEOUT_S: Final = 5.0


def go_architecture() -> str:
    """Return the machine's architecture by Go's name."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def os_release() -> dict[str, str]:
    """Return the fields of /etc/os-release."""
    fields: dict[str, str] = {}
    for line in _read("/etc/os-release").splitlines():
        name, equals, value = line.partition("=")
        if equals:
            fields[name] = value.strip().strip("\"'")
    return fields


def memory_total() -> int:
    """Return the machine's memory in bytes."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def open_descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd")) - 1  # the one that lists them


def network_settings() -> dict[str, bool]:
    """Return what the kernel does with packets."""
    return {
        "IPv4Forwarding": _is_on("/proc/sys/net/ipv4/ip_forward"),
        "BridgeNfIptables": _is_on("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        "BridgeNfIp6tables": _is_on("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
    }


def cgroup_support(root: Path = CGROUP) -> dict[str, Any]:
    """Return the fields of /info on limits, as the cgroups mounted below `root` allow them."""
    unified = (root / "cgroup.controllers").exists()
    return {"CgroupDriver": "cgroupfs", "CgroupVersion": "2" if unified else "1"} | (
        _unified_support(root) if unified else _legacy_support(root)
    )


def _unified_support(root: Path) -> dict[str, Any]:
    controllers = _read(root / "cgroup.controllers").split()
    cpu = "cpu" in controllers
    return {
        "MemoryLimit": "memory" in controllers,
        "SwapLimit": "memory" in controllers and any(root.glob("*/memory.swap.max")),
        "OomKillDisable": False,
        "CpuCfsPeriod": cpu,
        "CpuCfsQuota": cpu,
        "CPUShares": cpu,
        "CPUSet": "cpuset" in controllers,
        "PidsLimit": "pids" in controllers,
    }


def _legacy_support(root: Path) -> dict[str, Any]:
    return {
        "MemoryLimit": (root / "memory/memory.limit_in_bytes").exists(),
        "SwapLimit": (root / "memory/memory.memsw.limit_in_bytes").exists(),
        "KernelMemoryTCP": (root / "memory/memory.kmem.tcp.limit_in_bytes").exists(),
        "OomKillDisable": (root / "memory/memory.oom_control").exists(),
        "CpuCfsPeriod": (root / "cpu/cpu.cfs_period_us").exists(),
        "CpuCfsQuota": (root / "cpu/cpu.cfs_quota_us").exists(),
        "CPUShares": (root / "cpu/cpu.shares").exists(),
        "CPUSet": (root / "cpuset/cpuset.cpus").exists(),
        "PidsLimit": (root / "pids").is_dir(),
    }


def limit_warnings(support: dict[str, Any]) -> list[str]:
    """Return dockerd's warnings for limits that this machine can't set."""
    wanted = {
        "MemoryLimit": "memory limit",
        "SwapLimit": "swap limit",
        "CpuCfsQuota": "cpu cfs quota",
        "CpuCfsPeriod": "cpu cfs period",
        "CPUShares": "cpu shares",
        "CPUSet": "cpuset",
        "PidsLimit": "pids limit",
    }
    if support["CgroupVersion"] == "1":
        wanted["OomKillDisable"] = "oom kill disable"
    return [f"WARNING: No {words} support" for field, words in wanted.items() if not support[field]]


def filesystem_type(path: Path) -> str:
    """Return the type of the file system that `path` is on."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return "unknown"


def program_version(path: str) -> dict[str, str]:
    """Return what a program says of itself: `version` and `commit`, where it does (blocks; kept)."""
    try:
        return _program_version(path, os.stat(path).st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=16)
def _program_version(path: str, _changed_ns: int) -> dict[str, str]:
    found: dict[str, str] = {}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        text = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True
        ).stdout
        for name in ("version", "commit"):
            match = re.search(rf"\b{name}:? (\S+)", text)
            if match:
                found[name] = match[1]
    return found


def _is_on(path: str) -> bool:
    return _read(path).strip() == "1"


def _read(path: str | Path) -> str:
    """Return a file's text, "" where it can't be read: then the machine does not have the thing."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
