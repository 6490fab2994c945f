"""A container's root as this process's own: a mount namespace in which there is nothing else.

While the container runs, that is its root as it is mounted on the host; else the layers are mounted, to be read with a
scratch layer on top, so that nothing is written. Volumes, binds and the network's files are mounted in it as Docker
does for copying; what only the container's own namespace has (tmpfs, /proc, what was mounted inside) is not seen.

Nobody's code is loaded from it: whatever this process needs is imported before, and from then on nothing can be
(CVE-2019-14271). No name is resolved outside of it, since there is no outside (CVE-2018-15664).

Source: mount_namespaces(7), pivot_root(2).
"""

import contextlib
import ctypes
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from logd.files.request import MountRequest, Place
from logd.idmap import IdMap
from logd.runtime.idmapped import Mapped, act_as, attach, clone
from logd.runtime.inroot import make_directories, open_directory, open_in_root, opened
from logd.runtime.mount_calls import MNT_DETACH, MS_BIND, MS_PRIVATE, MS_REC, MS_REMOUNT, mount
from logd.runtime.rootfs import is_mounted, mount_overlay
from logd.runtime.subpaths import open_part
from logd.runtime.userns import lent

CLONE_NEWNS: Final = 0x2_0000
MS_RDONLY: Final = 1
SCRATCH_OPTIONS: Final = "size=4m,mode=700"

_libc = ctypes.CDLL(None, use_errno=True)


def enter(place: Place, idmap: IdMap | None, *, writable: bool, read_only_root: bool = False) -> int:
    """Make the container's root this process's root and return a descriptor of it. Raises OSError, LogdError.

    A root that is `read_only_root` is so whatever link leads there; what is mounted in it has its own say. With `idmap`
    all that the container has belongs to the host's users that it maps to, and what this process makes to its root.
    """
    _own_namespace()
    rootfs = Path(place.rootfs)
    live = is_mounted(rootfs)
    with contextlib.nullcontext() if idmap is None else lent(idmap) as mapped:
        if not live:
            rootfs = _mount_layers(place, mapped, writable=writable)
        if mapped is not None:
            act_as(mapped.uid, mapped.gid)
        with opened(open_directory(rootfs)) as root:
            for entry in sorted(place.mounts, key=lambda one: one.destination.count("/")):
                _mount_entry(root, entry, mapped, make_missing=not live)
    if read_only_root:
        mount("none", rootfs, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    return _become_root(rootfs)


def enter_beside(place: Place, other: Place) -> tuple[int, int]:
    """Make a root this process's, to be read, and return descriptors of it and of another, to be looked at only."""
    _own_namespace()
    looked_at = open_directory(_mount_layers(other, None, writable=False))
    return _become_root(_mount_layers(place, None, writable=False)), looked_at


def mount_image(place: Place) -> tuple[int, int]:
    """Return descriptors of the upper layer and of the image's root beneath it. Raises OSError, LogdError."""
    _own_namespace()
    upper = os.open(place.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    root = _scratch_overlay(Path(place.point), [Path(layer) for layer in place.layers])
    return upper, os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _own_namespace() -> None:
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def _mount_layers(place: Place, mapped: Mapped | None, *, writable: bool) -> Path:
    point, layers = Path(place.point), [Path(layer) for layer in place.layers]
    if writable:
        mount_overlay(layers, Path(place.upper), Path(place.work), point, mapped)
        return point
    own = [Path(place.upper)] if os.path.isdir(place.upper) else []
    return _scratch_overlay(point, [*own, *layers], mapped)


def _scratch_overlay(folder: Path, layers: Sequence[Path], mapped: Mapped | None = None) -> Path:
    """Mount the layers below `folder`, with a top layer in memory that goes with this process."""
    folder.mkdir(mode=0o755, exist_ok=True)
    mount("tmpfs", folder, "tmpfs", data=SCRATCH_OPTIONS)
    mount_overlay(layers, folder / "upper", folder / "work", folder / "root", mapped, maps_upper=False)
    return folder / "root"


def _mount_entry(root: int, entry: MountRequest, mapped: Mapped | None, *, make_missing: bool) -> None:
    source, descriptor = entry.source, -1
    try:
        if entry.subpath:
            descriptor = open_part(Path(entry.source), entry.subpath)
            source = f"/proc/self/fd/{descriptor}"
        try:
            is_folder = stat.S_ISDIR(os.stat(source).st_mode)
            target = _open_target(root, entry.destination, is_folder=is_folder, make_missing=make_missing)
        except FileNotFoundError:
            return  # not made yet, or the container has removed it: then it is not seen in the container either
        with opened(target):
            if entry.is_mapped:
                attach(clone(source, mapped), target)
            else:
                mount(source, f"/proc/self/fd/{target}", flags=MS_BIND | (MS_REC if entry.recursive else 0))
        if entry.read_only:
            with opened(open_in_root(root, entry.destination, os.O_PATH)) as mounted:
                mount("none", f"/proc/self/fd/{mounted}", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_target(root: int, destination: str, *, is_folder: bool, make_missing: bool) -> int:
    try:
        return open_in_root(root, destination, os.O_PATH)
    except FileNotFoundError:
        if not make_missing:
            raise
    if is_folder:
        make_directories(root, destination)
    else:
        folder, base = os.path.split(destination)
        make_directories(root, folder)
        with opened(open_in_root(root, folder, os.O_RDONLY | os.O_DIRECTORY)) as parent:
            os.close(os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
    return open_in_root(root, destination, os.O_PATH)


def _become_root(folder: Path) -> int:
    """Leave everything else behind."""
    sys.path.clear()
    sys.meta_path.clear()  # from here on an import is an error
    os.chdir(folder)
    if _libc.pivot_root(b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    if _libc.umount2(b".", MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "umount2")
    os.chdir("/")
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
