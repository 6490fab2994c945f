"""What an overlay of the layers beneath shows of a name, without mounting it.

Source: the kernel's Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

import errno
import os
import stat
from collections.abc import Sequence
from enum import Enum
from typing import Final

from logd.images.kernel import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

OPAQUE_XATTR: Final = "trusted.overlay.opaque"
PLAINLY: Final = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS


class _Kind(Enum):
    WHITEOUT = 1
    DIRECTORY = 2
    OPAQUE = 3
    OTHER = 4


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether this is overlayfs's mark of a name that is gone: a character device 0/0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Say whether the open directory hides what lower layers have in it."""
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
            raise
        return False


class LowerLayers:
    """The layers beneath the one that is being built, as open directories, the nearest first."""

    def __init__(self, layers: Sequence[int]) -> None:
        self._layers = layers

    def holder(self, path: str) -> int | None:
        """Return the layer whose `path` is the one that is seen, None if none is."""
        layers: Sequence[int] = self._layers
        prefix = ""
        for part in path.split("/"):
            prefix = f"{prefix}/{part}" if prefix else part
            layers = self._seen(layers, prefix)
            if not layers:
                return None
        return layers[0]

    def open_directory(self, path: str) -> int | None:
        """Return a descriptor of the directory that is seen as `path`, None if it is none."""
        layer = self.holder(path)
        if layer is None or _kind(layer, path) not in {_Kind.DIRECTORY, _Kind.OPAQUE}:
            return None
        return openat2(layer, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, PLAINLY)

    def _seen(self, layers: Sequence[int], path: str) -> list[int]:
        """Return those layers whose `path` is seen: one thing, or directories that are merged."""
        seen: list[int] = []
        for layer in layers:
            kind = _kind(layer, path)
            if kind is None:
                continue
            if kind in {_Kind.DIRECTORY, _Kind.OPAQUE} or (kind is _Kind.OTHER and not seen):
                seen.append(layer)
            if kind is not _Kind.DIRECTORY:
                break
        return seen


def _kind(layer: int, path: str) -> _Kind | None:
    try:
        fd = openat2(layer, path, os.O_PATH | os.O_NOFOLLOW, PLAINLY)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return None
        raise
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    if is_whiteout(status):
        return _Kind.WHITEOUT
    if not stat.S_ISDIR(status.st_mode):
        return _Kind.OTHER
    folder = openat2(layer, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, PLAINLY)
    try:
        return _Kind.OPAQUE if is_opaque(folder) else _Kind.DIRECTORY
    finally:
        os.close(folder)
