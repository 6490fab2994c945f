"""What the daemon needs and has: room on the disk, runtimes, a seccomp profile, plugins, destinations that answer."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from logd.doctor.check import FAIL, OK, WARN, Check
from logd.errors import InvalidParameter
from logd.logstore.options import StoreOptions, reserve_bytes
from logd.runtime.seccomp import default_profile
from logd.units import format_ram_size

INODES_SHARE: Final = 0.02
SHOWN: Final = 10
"""Destinations; those beyond are counted."""
UNCONFINED: Final = "unconfined"


def space(data_root: Path, min_free: int | None) -> Check:
    """Check the room on the file system of the stores, against what has to stay free (None: by default)."""
    stat = os.statvfs(next(one for one in (data_root, *data_root.parents) if one.exists()))
    free = stat.f_bavail * stat.f_frsize
    reserve = reserve_bytes(StoreOptions(min_free=-1 if min_free is None else min_free), stat.f_blocks * stat.f_frsize)
    found = f"{format_ram_size(free)} free at {data_root}, {format_ram_size(reserve)} of it in reserve (min-free)"
    advice = "see `logd log du`; `logd log clear CONTAINER` makes room, and so do smaller max-size and max-total"
    if free < reserve:
        return Check("free space", FAIL, f"{found}: old output is being dropped", advice)
    if stat.f_files and stat.f_favail < INODES_SHARE * stat.f_files:
        return Check("free space", WARN, f"{found}; {stat.f_favail} of {stat.f_files} inodes are free", advice)
    if free < 2 * reserve:
        return Check("free space", WARN, found, advice)
    return Check("free space", OK, found)


def runtimes(default: str, paths: Mapping[str, str], versions: Mapping[str, str]) -> Check:
    """Check the OCI runtimes: the path of each, and the version it says it has."""
    shown = []
    for name, path in sorted(paths.items()):
        is_there = shutil.which(path) is not None
        shown.append(f"{name} {versions.get(name) or '(says no version)'}" if is_there else f"{name} is not at {path}")
    found = f"{', '.join(shown)}; default: {default}"
    if default not in paths or shutil.which(paths[default]) is None:
        return Check("runtimes", FAIL, found, "install runc or crun, or set default-runtime")
    missing = any(shutil.which(path) is None for path in paths.values())
    return Check("runtimes", WARN if missing else OK, found, "correct `runtimes` in daemon.json" if missing else "")


def seccomp(setting: str) -> Check:
    """Read the profile that containers get."""
    if setting == UNCONFINED:
        return Check(
            "seccomp profile", WARN, "unconfined: containers may make any system call", "unset seccomp-profile"
        )
    try:
        default_profile("" if setting == "builtin" else setting)
    except InvalidParameter as error:
        return Check("seccomp profile", FAIL, str(error), "install the profile: no container starts without one")
    return Check("seccomp profile", OK, setting or "builtin")


def broken_plugins(broken: Sequence[tuple[str, str]]) -> Check:
    """Name the plugins that could not be loaded, each with the reason."""
    if broken:
        found = "; ".join(f"{plugin}: {reason}" for plugin, reason in broken)
        return Check("plugins", FAIL, found, "repair or uninstall them, then restart logd")
    return Check("plugins", OK, "all of them are loaded")


def destinations(ailing: Sequence[Mapping[str, Any]]) -> Check:
    """Name the log drivers that can't deliver: see Deliveries.ailing."""
    if not ailing:
        return Check("destinations", OK, "none is known to be down")
    shown = [
        f"{one['container']} {one['name']} ({one['driver']}) {one['state']}: {one['error']}" for one in ailing[:SHOWN]
    ]
    more = f"; and {len(ailing) - SHOWN} more" if len(ailing) > SHOWN else ""
    return Check("destinations", FAIL, "; ".join(shown) + more, "output waits for them up to undelivered-max-size")
