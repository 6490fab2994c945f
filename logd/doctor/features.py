"""What containers need of the kernel, and what this one has.

Sources: proc(5), namespaces(7), seccomp(2), cgroups(7), openat2(2), the kernel's accounting/psi.rst and
networking/bridge.rst.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from logd.doctor.check import FAIL, OK, WARN, Check
from logd.runtime import cgroup

ROOT: Final = Path("/")
OLDEST: Final = (5, 6)
"""Has openat2(2), by which every path in a container is opened."""
NAMESPACES: Final = ("ipc", "mnt", "net", "pid", "uts")
"""Without one of these no container starts."""
CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids")
"""By which what a container uses is limited and measured."""
DISK_CONTROLLERS: Final = ("io", "blkio")
KINDS: Final = {"v1": "version 1", "v2": "version 2", "hybrid": "version 1, with version 2 beside it"}


def version(release: str) -> Check:
    """Check the kernel's version; `release` is that of uname(2)."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        return Check("kernel", WARN, f"{release}: no version that is understood", "see whether it is 5.6 or newer")
    if (int(match[1]), int(match[2])) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        return Check("kernel", FAIL, f"{release}: too old, openat2 is missing", f"boot a kernel {needed} or newer")
    return Check("kernel", OK, release)


def features(release: str, root: Path = ROOT) -> Check:
    """Check what a container is made of: overlayfs, namespaces, seccomp; and that pressure is told."""
    missing = [f"the {name} namespace" for name in NAMESPACES if not (root / "proc/self/ns" / name).exists()]
    if not _has_overlay(release, root):
        missing.append("overlayfs")
    if "\nSeccomp:" not in _text(root / "proc/self/status"):
        missing.append("seccomp")
    if missing:
        advice = "boot a kernel that has them (CONFIG_OVERLAY_FS, CONFIG_NAMESPACES, CONFIG_SECCOMP_FILTER)"
        return Check("kernel features", FAIL, f"missing: {', '.join(missing)}", advice)
    lesser = []
    if not (root / "proc/self/ns/user").exists() or _text(root / "proc/sys/user/max_user_namespaces").strip() == "0":
        lesser.append("user namespaces (userns-remap; sysctl user.max_user_namespaces)")
    if not (root / "proc/self/ns/cgroup").exists():
        lesser.append("cgroup namespaces (containers see the host's cgroups)")
    if not (root / "proc/pressure/cpu").exists():
        lesser.append("pressure (it is not measured; boot with psi=1)")
    if lesser:
        return Check("kernel features", WARN, f"missing: {', '.join(lesser)}", "switch on what you need of these")
    return Check("kernel features", OK, "overlayfs, namespaces, seccomp, pressure")


def cgroups(warnings: Sequence[str], root: Path = cgroup.ROOT) -> Check:
    """Check the cgroups and their controllers; `warnings` are those that /info has of limits."""
    hierarchy = cgroup.detect(root)
    found = KINDS.get(hierarchy.kind, hierarchy.kind)
    missing = [name for name in CONTROLLERS if not hierarchy.has(name)]
    if not any(map(hierarchy.has, DISK_CONTROLLERS)):
        missing.append("io")
    words = [one.removeprefix("WARNING: ") for one in warnings]
    if missing:
        found = "; ".join([f"{found}; missing: {', '.join(missing)}", *words])
        advice = (
            "boot with these controllers (cgroup_enable=memory, no cgroup_disable=…), or let the host delegate them"
        )
        return Check("cgroups", WARN, found, advice)
    if words:
        return Check("cgroups", WARN, f"{found}; {'; '.join(words)}", "boot with what is missing (swapaccount=1)")
    return Check("cgroups", OK, f"{found}, with {', '.join(CONTROLLERS)} and io")


def packets(*, in_use: bool, switched_on: bool, root: Path = ROOT) -> Check:
    """Check whether packets are forwarded. `in_use`: a container is in a network; `switched_on`: logd may see to it."""
    forwards = _text(root / "proc/sys/net/ipv4/ip_forward").strip() == "1"
    bridge = _text(root / "proc/sys/net/bridge/bridge-nf-call-iptables").strip()
    within = {"1": "; bridges pass their packets to the firewall", "0": "; bridges go past the firewall"}.get(
        bridge, ""
    )
    if forwards:
        return Check("ip_forward", OK, f"on{within}")
    if in_use:
        advice = "sysctl -w net.ipv4.ip_forward=1, and see what switches it off (a file in /etc/sysctl.d?)"
        return Check("ip_forward", FAIL, f"off: containers reach nothing but their own network{within}", advice)
    if not switched_on:
        advice = "set net.ipv4.ip_forward=1 in /etc/sysctl.d, or unset ip-forward in daemon.json"
        return Check("ip_forward", WARN, f"off, and logd may not switch it on{within}", advice)
    return Check("ip_forward", OK, f"off; it is switched on when a network needs it{within}")


def _has_overlay(release: str, root: Path) -> bool:
    """Say whether overlayfs is there, or is a module that is loaded when it is needed."""
    if re.search(r"\boverlay$", _text(root / "proc/filesystems"), re.MULTILINE):
        return True
    modules = root / "lib/modules" / os.path.basename(release)
    return any("/overlay.ko" in _text(modules / name) for name in ("modules.dep", "modules.builtin"))


def _text(path: Path) -> str:
    """Return a file's text, "" where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
