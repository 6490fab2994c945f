"""The files of one cgroup by controller and name, whichever trees the host has them in."""

from logd.runtime.cgroup import UNIFIED, Hierarchy, container_folders
from logd.sampling.kept import KeptFiles, Look, nothing, read_once


class CgroupFiles:
    """Opens the files of the cgroup at `path` (`/logd/<id>`, the same in every tree) and keeps them open. Close it."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        self._hierarchy = hierarchy
        self._folders = container_folders(hierarchy, path)
        self._kept = KeptFiles()
        self._looks: dict[tuple[str, str], Look] = {}

    def exists(self) -> bool:
        """Tell whether there is such a cgroup in any tree."""
        return any(folder.is_dir() for folder in set(self._folders.values()))

    def is_v1(self, controller: str) -> bool:
        """Tell whether the controller is in a v1 tree of its own."""
        return self._hierarchy.is_v1(controller)

    def open(self, controller: str, name: str) -> Look:
        """Return the look at a file of a controller's cgroup, the same to everyone who asks."""
        look = self._looks.get((controller, name))
        if look is None:
            folder = self._folders.get(controller)
            look = self._kept.open(f"{folder}/{name}") if folder is not None else nothing
            self._looks[controller, name] = look
        return look

    def open_path(self, path: str) -> Look:
        """Return the look at a file that is not a cgroup's and is to be closed with them."""
        return self._kept.open(path)

    def read_once(self, controller: str, name: str) -> bytes:
        """Return what a file holds now, without keeping it open; b"" where there is none."""
        folder = self._folders.get(controller)
        return read_once(f"{folder}/{name}") if folder is not None else b""

    def owner(self, name: str) -> str:
        """Return the controller that a file belongs to by its name: `cpuacct.usage` is cpuacct's.

        Pressure and what begins with cgroup. is the unified tree's, and so is each file of a controller that is not
        there: cpu.stat and the pressure are in a v2 cgroup without any controller.
        """
        controller = name.partition(".")[0]
        return controller if controller in self._folders and not name.endswith(".pressure") else UNIFIED

    def close(self) -> None:
        """Close all files."""
        self._kept.close()

    def __len__(self) -> int:
        return len(self._kept)
