"""The pipes between a container and its shim.

A container's stdout and stderr are opened read-write, so that the container itself keeps them readable: when every
process of ours is gone it gets no EPIPE, it waits. Our side holds read ends only, so that the pipe ends when the
container lets go of it.
"""

import ctypes
import fcntl
import os
import stat
import termios
from typing import Final

from logd.record import STDERR, STDOUT
from logd.runtime import terminal

PIPE_BYTES: Final = 1 << 20
SMALLEST_PIPE_BYTES: Final = 64 << 10
_tee: Final = ctypes.CDLL(None, use_errno=True).tee
MEMORY_SHARE: Final = 32
"""A pipe takes at most this part of the container's memory limit: its pages are charged to it."""


def pipe_size(memory_limit: int) -> int:
    """Return the capacity for each pipe of a container with this memory limit (bytes, 0 for none)."""
    size = PIPE_BYTES
    while memory_limit and size > SMALLEST_PIPE_BYTES and size > memory_limit // MEMORY_SHARE:
        size //= 2
    return size


def capacity(pipe: int) -> int:
    """Return how many bytes a pipe holds, or the master of a terminal gives at a time."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    except OSError:
        return terminal.READ_BYTES


def widen(pipe: int, size: int) -> None:
    """Give a pipe its capacity; a host's limit (pipe-user-pages-soft) makes it a smaller one, not an error."""
    while size > SMALLEST_PIPE_BYTES:
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
        except PermissionError:
            size //= 2
        else:
            return


def output_pipe(size: int) -> tuple[int, int]:
    """Return (our read end, the container's end, which is open for reading and writing)."""
    ours, writing = os.pipe()
    widen(writing, size)
    theirs = os.open(f"/proc/self/fd/{writing}", os.O_RDWR | os.O_CLOEXEC)
    os.close(writing)
    return ours, theirs


def staging_pipe(size: int) -> tuple[int, int]:
    """Return the (read, write) ends of a pipe between a container's pipe and the file.

    A splice holds its source's lock while the disk is slow. Straight from the container's pipe, a writer in the
    container would hang unkillable with it.
    """
    reading, writing = os.pipe()
    widen(writing, size)
    return reading, writing


def stdin_pipe() -> tuple[int, int]:
    """Return (the container's read end, our write end, which does not block)."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    return reading, writing


def unread(pipe: int) -> int:
    """Return how many bytes lie in a pipe (FIONREAD)."""
    raw = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(raw, "little")


def peek(pipe: int, count: int) -> bytes:
    """Return up to `count` of the bytes that lie in a pipe, which stay there."""
    reading, writing = os.pipe()
    try:
        widen(writing, count)
        copied = _tee(pipe, writing, count, 0)
        if copied < 0:
            raise OSError(ctypes.get_errno(), "tee")
        return os.read(reading, copied) if copied else b""
    finally:
        os.close(reading)
        os.close(writing)


def inode(pipe: int) -> int:
    """Return the number by which a pipe is known in /proc."""
    return os.fstat(pipe).st_ino


def reopen(pid: int, inodes: dict[str, int]) -> dict[str, int]:
    """Open a live container's pipes anew, by way of the descriptors its first process holds.

    `inodes`: stdin, stdout, stderr to the pipe's inode. What the process no longer holds is left out.
    """
    opened: dict[str, int] = {}
    wanted = {number: name for name, number in inodes.items()}
    folder = f"/proc/{pid}/fd"
    for entry in os.listdir(folder):
        path = f"{folder}/{entry}"
        try:
            info = os.stat(path)
        except FileNotFoundError:
            continue
        name = wanted.get(info.st_ino)
        if name is None or name in opened or not stat.S_ISFIFO(info.st_mode):
            continue
        flags = os.O_WRONLY | os.O_NONBLOCK if name == "stdin" else os.O_RDONLY | os.O_NONBLOCK
        opened[name] = os.open(path, flags | os.O_CLOEXEC)
    return opened


STREAM_OF: Final = {"stdout": STDOUT, "stderr": STDERR}
