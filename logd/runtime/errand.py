"""Do what is done once in a short-lived fork of the shim, so that the memory it costs goes with it.

CPython writes to every object it touches (reference counts), so each function that a shim runs leaves it with private
copies of pages that it shared before. An errand shares everything with its shim: its descriptors, the store's lock. It
dies with its shim, so that nothing it does can meet a replacement of the shim.
"""

import marshal
import os
import sys
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair  # socket's own are Python, and not small
from collections.abc import Callable
from typing import Any

from logd.runtime.kinship import die_with_parent
from logd.runtime.packets import receive


def run(work: Callable[..., None], *arguments: Any) -> int:
    """Fork an errand that does `work`; return its pid. The caller reaps it."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with_parent(parent)
        work(*arguments)
        code = 0
    except BaseException:  # whatever it is, this process ends here and says why
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)


def ask(work: Callable[..., None], *arguments: Any) -> tuple[Any, list[int]] | None:
    """Wait for an errand that sends one packet: marshal of plain values, and descriptors. None if it sent nothing.

    It sends it on a socket that is its last argument.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
    pid = run(work, *arguments, theirs)
    theirs.close()
    raw, descriptors = receive(ours)
    ours.close()
    os.waitpid(pid, 0)
    return (marshal.loads(raw), descriptors) if raw else None  # noqa: S302  # from our own fork
