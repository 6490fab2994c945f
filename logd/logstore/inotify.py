"""inotify(7) through the C library: the standard library has no binding."""

import ctypes
import os
import struct
from typing import Final, NamedTuple

IN_MODIFY: Final = 0x002
IN_MOVED_TO: Final = 0x080
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x0100_0000
IN_DONT_FOLLOW: Final = 0x0200_0000
IN_ONESHOT: Final = 0x8000_0000

_EVENT = struct.Struct("iIII")  # struct inotify_event without the name: wd, mask, cookie, len
_READ_BYTES: Final = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)


class Event(NamedTuple):
    """Something happened to what is watched; `name` is the file's in a watched folder, else empty."""

    watch: int
    mask: int
    name: bytes


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


class Inotify:
    """One inotify instance. Non-blocking; `fileno` is readable when there are events. Raises OSError."""

    def __init__(self) -> None:
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def add(self, path: str, mask: int) -> int:
        """Watch a path, or change the mask of the watch that its inode has; return the watch."""
        return _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask), path)

    def remove(self, watch: int) -> None:
        """End a watch; one that has ended by itself is fine."""
        _libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> list[Event]:
        """Return the events that have come."""
        try:
            raw = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        events = []
        at = 0
        while at < len(raw):
            watch, mask, _, length = _EVENT.unpack_from(raw, at)
            at += _EVENT.size
            events.append(Event(watch, mask, raw[at : at + length].rstrip(b"\0") if length else b""))
            at += length
        return events

    def close(self) -> None:
        """End all watches."""
        os.close(self._descriptor)
