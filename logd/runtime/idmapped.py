"""Mounts that translate ids: what a user of the disk owns belongs to the container's user of that number.

Everybody who looks through such a mount sees the host's ids of the container's users, the container in its user
namespace sees its own, and on the disk are the container's own as well. What is made through it has to be made by a
user who is mapped, so the daemon's root can't: `acting_as` is for that.

Source: mount_setattr(2), open_tree(2), move_mount(2), setfsuid(2), capset(2); overlayfs takes such layers since Linux
5.19. All functions block.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

SYS_OPEN_TREE: Final = 428
SYS_MOVE_MOUNT: Final = 429
SYS_MOUNT_SETATTR: Final = 442
"""The same numbers on every architecture (linux/include/uapi/asm-generic/unistd.h)."""
AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
MOUNT_ATTR_IDMAP: Final = 0x0010_0000
CAPABILITY_VERSION: Final = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)


class Mapped(NamedTuple):
    """A user namespace (a descriptor) whose mapping mounts are to have, and the host's ids of its root."""

    namespace: int
    uid: int
    gid: int


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd"))


def clone(path: Path | str, mapped: Mapped | None = None) -> int:
    """Return a copy of the mount at `path`, of what is mounted there and not below, that is attached nowhere.

    With `mapped` it translates. Raises OSError: EINVAL for a file system that can't be translated, or is already.
    """
    tree: int = _libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | os.O_CLOEXEC)
    if tree < 0:
        raise _last_error(path)
    if mapped is not None:
        wanted = _MountAttributes(MOUNT_ATTR_IDMAP, 0, 0, mapped.namespace)
        arguments = tree, b"", AT_EMPTY_PATH, ctypes.byref(wanted), ctypes.sizeof(wanted)
        if _libc.syscall(SYS_MOUNT_SETATTR, *arguments) != 0:
            error = _last_error(path)
            os.close(tree)
            raise error
    return tree


def attach(tree: int, target: Path | str | int) -> None:
    """Mount what `clone` returned on `target`, which may be a descriptor, and close it. Raises OSError."""
    folder, path, flags = AT_FDCWD, b"", MOVE_MOUNT_F_EMPTY_PATH
    if isinstance(target, int):
        folder, flags = target, flags | MOVE_MOUNT_T_EMPTY_PATH
    else:
        path = os.fsencode(target)
    try:
        if _libc.syscall(SYS_MOVE_MOUNT, tree, b"", folder, path, flags) != 0:
            raise _last_error(str(target))
    finally:
        os.close(tree)


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Have what this thread makes belong to others; it keeps its capabilities, which a change of user takes away.

    Nothing is changed for root, who it is. Raises OSError.
    """
    if (uid, gid) == (0, 0):
        yield
        return
    try:
        act_as(uid, gid)
        yield
    finally:
        act_as(0, 0)


def act_as(uid: int, gid: int) -> None:
    """Do that for good. Raises OSError."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    header = ctypes.create_string_buffer(struct.pack("Ii", CAPABILITY_VERSION, 0))
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data) != 0:
        raise _last_error("")
    _, permitted, inheritable, _, permitted_high, inheritable_high = struct.unpack("6I", data.raw)
    words = permitted, permitted, inheritable, permitted_high, permitted_high, inheritable_high
    if _libc.capset(header, ctypes.create_string_buffer(struct.pack("6I", *words), 24)) != 0:
        raise _last_error("")


def _last_error(path: Path | str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
