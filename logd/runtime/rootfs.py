"""A container's root file system: the image's layers and the container's own on top, stacked by overlayfs.

Source: mount(2), umount2(2), Documentation/filesystems/overlayfs.rst. All functions block; call them in a thread.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from logd.errors import LogdError
from logd.runtime.idmapped import Mapped, acting_as, attach, clone
from logd.runtime.mount_calls import MS_PRIVATE, MS_REC, mount

MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8
CLONE_FS: Final = 0x200
CLONE_NEWNS: Final = 0x2_0000
MAX_OPTIONS: Final = os.sysconf("SC_PAGE_SIZE") - 1  # mount(2) copies one page, with its final NUL
PARAMETERS: Final = Path("/sys/module/overlay/parameters")
SWITCHED_OFF: Final = ("index", "redirect_dir", "metacopy")
"""With an index a layer that is (or was, before a crash) part of another mount is refused. With the others a
container's layer would not hold all of what it changed, as a commit needs it; a kernel may be set to have them on.
"""

_libc = ctypes.CDLL(None, use_errno=True)


def mount_overlay(
    lower: Sequence[Path],
    upper: Path,
    work: Path,
    target: Path,
    mapped: Mapped | None = None,
    *,
    maps_upper: bool = True,
) -> None:
    """Mount `lower` (top layer first) with the writable `upper` on `target`; `work` is an empty folder beside `upper`.

    The three folders of the container are made if missing. With `mapped` the layers are seen as a user namespace maps
    their ids, `upper` only if `maps_upper`. Raises LogdError with the system's reason, and for more layers than the
    options of one mount can name. An image without a layer gets an empty folder below.
    """
    upper, work, target = upper.absolute(), work.absolute(), target.absolute()
    lower = [path.absolute() for path in lower] or [work.parent / "empty"]
    if lower == [work.parent / "empty"]:
        lower[0].mkdir(exist_ok=True)
    for folder in (upper, work, target):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    work.chmod(0o700)
    if mapped is not None:
        _mount_mapped(lower, upper, work, target, mapped, maps_upper=maps_upper)
        return
    options = _options([str(path) for path in lower], upper, work)
    if len(options) <= MAX_OPTIONS:
        _mount(options, target)
        return
    parent = Path(os.path.commonpath([str(path.parent) for path in lower]))
    options = _options([str(path.relative_to(parent)) for path in lower], upper, work)
    if len(options) > MAX_OPTIONS:
        raise LogdError(
            f"overlay: {len(lower)} layers are too many for one mount: their names take {len(options)} bytes of "
            f"{MAX_OPTIONS}"
        )
    _mount_from(parent, options, target)


def unmount(target: Path) -> None:
    """Unmount what is mounted on `target`; nothing mounted there is fine. A busy mount is detached."""
    path = os.fsencode(target)
    if _libc.umount2(path, UMOUNT_NOFOLLOW) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY and _libc.umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) == 0:
        return
    if number not in {errno.EINVAL, errno.ENOENT}:
        raise LogdError(f"unmount {target}: {os.strerror(number)}")


def is_mounted(target: Path) -> bool:
    """Tell whether `target` is the root of a mount (by its device number, which an overlay always has of its own)."""
    return os.path.ismount(target)


def _options(lower: Sequence[str], upper: Path, work: Path) -> bytes:
    parts = [
        f"lowerdir={':'.join(_escape(path) for path in lower)}",
        f"upperdir={_escape(str(upper), ':')}",
        f"workdir={_escape(str(work), ':')}",
    ]
    parts += [f"{name}=off" for name in SWITCHED_OFF if (PARAMETERS / name).exists()]
    return os.fsencode(",".join(parts))


def _escape(path: str, plain: str = "") -> str:
    r"""Put a backslash before what separates options and layers (in upperdir a colon separates nothing)."""
    return "".join(f"\\{letter}" if letter in "\\,:" and letter not in plain else letter for letter in path)


def _mount(options: bytes, target: Path) -> None:
    if _libc.mount(b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(0), options) != 0:
        number = ctypes.get_errno()
        hint = "; is the data-root itself on an overlay or a network file system?" if number == errno.EINVAL else ""
        raise LogdError(f"overlay: mount on {target}: {os.strerror(number)}{hint}")


def _mount_from(folder: Path, options: bytes, target: Path) -> None:
    """Mount with layer names relative to `folder`: in a thread with a working directory of its own."""

    def run() -> None:
        if _libc.unshare(CLONE_FS) != 0:
            raise LogdError(f"overlay: unshare: {os.strerror(ctypes.get_errno())}")
        os.chdir(folder)
        _mount(options, target)

    _in_thread(run)


def _mount_mapped(
    lower: Sequence[Path], upper: Path, work: Path, target: Path, mapped: Mapped, *, maps_upper: bool
) -> None:
    """Mount translated layers. They have to be mounts for that, which nobody else sees: in a thread of its own."""
    trees: list[int] = []

    def run() -> None:
        if _libc.unshare(CLONE_NEWNS) != 0:
            raise LogdError(f"overlay: unshare: {os.strerror(ctypes.get_errno())}")
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        mount("tmpfs", target, "tmpfs", data="mode=700")
        os.chdir(target)
        os.mkdir("root")
        parents = {parent: str(number) for number, parent in enumerate(dict.fromkeys(path.parent for path in lower))}
        for parent, name in parents.items():
            os.mkdir(name)
            attach(_translated(parent, mapped), name)
        os.mkdir("own")
        attach(_translated(upper.parent, mapped if maps_upper else None), "own")
        names = [f"{parents[path.parent]}/{path.name}" for path in lower]
        options = _options(names, Path("own", upper.name), Path("own", work.name))
        if len(options) > MAX_OPTIONS:
            raise LogdError(f"overlay: {len(lower)} layers are too many for one mount")
        with acting_as(mapped.uid, mapped.gid):  # overlayfs makes what it needs, then and later, as who mounts it
            _mount(options, Path("root"))
        trees.append(clone("root"))

    try:
        _in_thread(run)
        attach(trees.pop(), target)
    except OSError as error:
        raise LogdError(f"overlay: mount on {target}: {error.strerror}") from error


def _translated(path: Path, mapped: Mapped | None) -> int:
    try:
        return clone(path, mapped)
    except OSError as error:
        hint = (
            "; does its file system translate ids (ext4, xfs, btrfs, f2fs do)?" if error.errno == errno.EINVAL else ""
        )
        raise LogdError(f"user namespace: mount of {path}: {error.strerror}{hint}") from error


def _in_thread(work: Callable[[], None]) -> None:
    """Run it in a thread whose surroundings are its own, to be changed; raises its LogdError or OSError."""
    failure: list[Exception] = []

    def run() -> None:
        try:
            work()
        except (LogdError, OSError) as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="overlay-mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
