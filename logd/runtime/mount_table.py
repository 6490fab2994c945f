"""The `mounts` of a bundle: Docker's own list and what the request's plan adds to it.

Source: OCI runtime specification, config.md "Mounts" and config-linux.md "Default Filesystems".
"""
# ruff: noqa: S108  (/dev/shm is a mount point here, not a temporary file)

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from logd.mounted import Mounted, Tmpfs, Volume
from logd.runtime.mounts import MountPlan
from logd.spec import HostConfig

INIT_DESTINATION: Final = "/sbin/docker-init"
WRITABLE_WITH_READONLY_ROOT: Final = frozenset({"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"})


def _default_mounts(host: HostConfig, shm: Path | None, *, shares_mqueue: bool) -> list[dict[str, Any]]:
    read_only = [] if host.privileged else ["ro"]
    hardened = ["nosuid", "noexec", "nodev"]

    def mount(kind: str, destination: str, options: list[str], source: str = "") -> dict[str, Any]:
        return {"destination": destination, "type": kind, "source": source or kind, "options": options}

    mounts = [
        mount("proc", "/proc", hardened),
        mount("tmpfs", "/dev", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "/dev/pts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("sysfs", "/sys", [*hardened, *read_only]),
        mount("cgroup", "/sys/fs/cgroup", [*hardened, *read_only]),
    ]
    if shares_mqueue:
        if os.path.isdir("/dev/mqueue"):
            mounts.append(mount("bind", "/dev/mqueue", ["rbind", "rprivate"], "/dev/mqueue"))
    else:
        mounts.append(mount("mqueue", "/dev/mqueue", hardened))
    if host.ipc_mode == "host":
        mounts.append(mount("bind", "/dev/shm", ["rbind", "rprivate"], "/dev/shm"))
    elif shm is not None:
        mounts.append(mount("bind", "/dev/shm", ["rbind", "rprivate"], str(shm)))
    elif host.ipc_mode != "none":
        size = f"size={host.shm_size or 64 << 20}"
        mounts.append(mount("tmpfs", "/dev/shm", [*hardened, "mode=1777", size], "shm"))
    return mounts


def oci_mounts(
    mount_plan: MountPlan,
    host: HostConfig,
    *,
    volumes: Mapping[str, Path],
    network_files: Mapping[str, Path],
    init_path: str = "",
    shm: Path | None = None,
    shares_mqueue: bool = False,
) -> list[dict[str, Any]]:
    """Return the bundle's `mounts`: Docker's own, less those that the request replaces, then the rest by depth.

    `volumes` has each planned volume's folder by destination, `network_files` the host file by destination. `shm`
    is a /dev/shm on the host that others may have too. `shares_mqueue`: the host's queues are bound, since they can't
    be mounted in another user namespace, where the host has them mounted.
    """
    taken = mount_plan.destinations
    own = [
        mount
        for mount in _default_mounts(host, shm, shares_mqueue=shares_mqueue)
        if mount["destination"] not in taken and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    extra = [_bind(str(path), place, False) for place, path in network_files.items() if place not in taken]
    if init_path:
        extra.append(_bind(init_path, INIT_DESTINATION, True, recursive=False))
    if host.readonly_rootfs:
        for mount in [*own, *extra]:
            if mount["destination"] not in WRITABLE_WITH_READONLY_ROOT and "ro" not in mount["options"]:
                mount["options"].append("ro")
    requested = [_requested(entry, volumes) for entry in mount_plan.entries]
    return own + sorted([*extra, *requested], key=lambda mount: mount["destination"].count("/"))


def _requested(entry: Mounted, volumes: Mapping[str, Path]) -> dict[str, Any]:
    if isinstance(entry, Tmpfs):
        return {
            "destination": entry.destination,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": [*entry.options, "rprivate"],
        }
    if isinstance(entry, Volume):
        return _bind(str(volumes[entry.destination]), entry.destination, entry.read_only)
    return _bind(
        entry.source,
        entry.destination,
        entry.read_only,
        recursive=entry.recursive,
        read_only_recursive=entry.recursive and entry.read_only_recursive,
        propagation=entry.propagation or "rprivate",
    )


def _bind(
    source: str,
    destination: str,
    read_only: bool,
    *,
    recursive: bool = True,
    read_only_recursive: bool = False,
    propagation: str = "rprivate",
) -> dict[str, Any]:
    options = ["rbind" if recursive else "bind", propagation]
    if read_only:
        options += ["ro", "rro"] if read_only_recursive else ["ro"]
    return {"destination": destination, "type": "bind", "source": source, "options": options}
