"""Network namespaces that outlive their processes: each is bound to a file, until that is unmounted.

A thread that has entered another namespace never comes back: work in one is done in a thread that ends with it.
Source: network_namespaces(7), setns(2), ip-netns(8) for the bound file.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 4096
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def make(path: Path) -> None:
    """Bind a new network namespace to `path`, where nothing is bound (blocks). Raises OSError."""
    path.touch(mode=0o600)
    try:
        _in_thread(lambda: _unshare_to(path))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """Unbind a namespace and remove its file; it ends with its last process (blocks). Raises OSError."""
    if _libc.umount2(os.fsencode(path), UMOUNT_NOFOLLOW | MNT_DETACH) != 0:
        number = ctypes.get_errno()
        if number not in {errno.EINVAL, errno.ENOENT}:
            raise OSError(number, os.strerror(number), str(path))
    path.unlink(missing_ok=True)


def is_bound(path: Path) -> bool:
    """Tell whether a namespace is bound to `path`."""
    return os.path.ismount(path)


def inside(path: Path, work: Callable[[], T]) -> T:
    """Return what `work` returns in a thread that has entered a namespace (blocks); raises OSError, and its errors."""

    def run() -> T:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(descriptor, CLONE_NEWNET), path)
        finally:
            os.close(descriptor)
        return work()

    return _in_thread(run)


def _unshare_to(path: Path) -> None:
    _check(_libc.unshare(CLONE_NEWNET), path)
    own = b"/proc/thread-self/ns/net"
    _check(_libc.mount(own, os.fsencode(path), None, ctypes.c_ulong(MS_BIND), None), path)


def _check(result: int, path: Path) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def _in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again by who waits
            failures.append(error)

    thread = threading.Thread(target=run, name="network-namespace")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
