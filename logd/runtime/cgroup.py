"""Where a container's cgroups are: v1, v2 and hybrid trees. The root folder is always a parameter.

Source: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. Files are read, never written: making and
removing cgroups is the runtime's job.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path("/sys/fs/cgroup")
UNIFIED: Final = ""
"""The unified hierarchy's key beside the controllers' names: /proc/PID/cgroup leaves the name empty too."""


@dataclass(frozen=True)
class Hierarchy:
    """A host's cgroup trees. `mounts` maps a controller's name (UNIFIED for the v2 tree) to the folder of its tree.

    In a v2 tree each controller that the root offers has the same folder; in `hybrid` the v2 tree stands beside v1
    ones and may own controllers too.
    """

    kind: Literal["v1", "v2", "hybrid", "none"]
    mounts: Mapping[str, Path] = field(default_factory=dict)

    def has(self, controller: str) -> bool:
        """Tell whether there is such a controller."""
        return controller in self.mounts

    def is_v1(self, controller: str) -> bool:
        """Tell whether the controller is in a v1 tree of its own."""
        return controller in self.mounts and self.mounts[controller] != self.mounts.get(UNIFIED)


def detect(root: Path = ROOT) -> Hierarchy:
    """Look at a mounted cgroup folder."""
    if (root / "cgroup.controllers").exists():
        return Hierarchy("v2", _unified(root))
    mounts: dict[str, Path] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if not folder.is_symlink() and (folder / "cgroup.procs").exists() and folder.name != "unified":
            # A tree of several controllers is named after all of them: cpu,cpuacct.
            mounts.update(dict.fromkeys(folder.name.split(","), folder))
    if (root / "unified" / "cgroup.controllers").exists():
        return Hierarchy("hybrid", {**_unified(root / "unified"), **mounts})
    return Hierarchy("v1" if mounts else "none", mounts)


def _unified(folder: Path) -> dict[str, Path]:
    controllers = (folder / "cgroup.controllers").read_text(encoding="ascii").split()
    return dict.fromkeys([UNIFIED, *controllers], folder)


def parse_membership(text: str) -> dict[str, str]:
    """Read /proc/PID/cgroup: controller → path in its tree. The v2 tree is UNIFIED, named v1 trees lose `name=`."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller.removeprefix("name=")] = path.removesuffix(" (deleted)")
    return paths


def folders(hierarchy: Hierarchy, membership: Mapping[str, str]) -> dict[str, Path]:
    """Return the folder of a process's cgroup for every controller of the host; those that are gone are left out."""
    result = {}
    for controller, mount in hierarchy.mounts.items():
        path = membership.get(controller if hierarchy.is_v1(controller) else UNIFIED)
        if path is not None and (folder := mount / path.lstrip("/")).is_dir():
            result[controller] = folder
    return result


def container_folders(hierarchy: Hierarchy, cgroup_path: str) -> dict[str, Path]:
    """Return the folders of a container by its OCI `cgroupsPath` (`/logd/<id>`), whether they exist or not."""
    return {controller: mount / cgroup_path.lstrip("/") for controller, mount in hierarchy.mounts.items()}


def oom_kills(folders_: Mapping[str, Path]) -> int | None:
    """Return how many of the cgroup's processes the kernel killed for want of memory; None where it isn't counted."""
    folder = folders_.get("memory")
    if folder is None:
        return None
    for name in ("memory.events", "memory.oom_control"):
        count = read_flat_keyed(folder / name).get("oom_kill")
        if count is not None:
            return count
    return None


def is_frozen(folders_: Mapping[str, Path]) -> bool:
    """Tell whether the freezer holds a cgroup's processes, or is about to: that of v1, else the unified tree's."""
    with contextlib.suppress(OSError):
        if "freezer" in folders_:
            return (folders_["freezer"] / "freezer.state").read_text(encoding="ascii").strip() != "THAWED"
        return (folders_[UNIFIED] / "cgroup.freeze").read_text(encoding="ascii").strip() == "1"
    return False


def processes(folder: Path) -> list[int]:
    """Return the ids of all processes in a cgroup and below it, sorted; those out of our pid namespace's sight not."""
    found: set[int] = set()
    for here, _, _ in os.walk(folder):
        try:
            with open(f"{here}/cgroup.procs", encoding="ascii") as file:
                found.update(int(line) for line in file)
        except OSError:
            continue  # removed meanwhile, or a threaded cgroup, whose processes its parent lists
    return sorted(found - {0})


def read_flat_keyed(path: Path) -> dict[str, int]:
    """Read a file of `name number` lines; one that does not exist is empty."""
    try:
        lines: Iterable[str] = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdecimal()}


def read_number(path: Path) -> int | None:
    """Read a file of one number; None if it does not exist or says `max`."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.lstrip("-").isdecimal() else None
