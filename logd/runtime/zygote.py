"""The zygote: a fork of the keeper that does nothing but fork shims, of containers and of execs.

What a shim writes to is its own, the rest it shares with all others; and CPython writes to whatever it uses. So the
zygote loads what shims use into pages of its own (packing.py), goes through shims' lives until CPython has nothing
more to prepare (rehearsal.py), and then touches as little as it can. The keeper loads none of it. Until that is done,
about 0.2 s, a zygote that has prepared nothing serves in its place: a container to be recovered can't wait. Then the
prepared one forks a spare, which shares all of it, for when it is killed itself: the shim's code must not be loaded
anew then, since an upgrade may have changed it.

Keeper → zygote, a packet for each shim: see `request` and `exec_shim.request`; and descriptors. Shims are children of
the zygote, which lets the kernel reap them: what matters of their end the keeper learns from their connection. It is no
subreaper, so that their orphans go to the keeper.
"""

import gc
import marshal
import os
import sys
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair
from collections.abc import Callable
from socket import SocketType
from typing import Any, Final

from logd.runtime import kinship
from logd.runtime.packets import receive, send
from logd.runtime.packing import fill_gaps
from logd.runtime.protocol import Launch, Recovery

NAME: Final = b"logd-zygote"
Kind = tuple[Callable[[bytes, list[int], int, bytes], None], bytes]
"""The `main` of a shim and the name of its process."""


def request(launch: Launch, descriptors: dict[str, int], pid: int, recovery: Recovery | None = None) -> bytes:
    """Return what `shim.main` reads."""
    places = {name: place for place, name in enumerate(descriptors)}
    plain: Any = (launch[:-1], tuple(launch.store), places, pid, recovery)
    return marshal.dumps(plain)


def serve(requests: SocketType, scratch: str | None) -> None:
    """Fork a shim for each request, until the keeper is gone; first prepare for it, in `scratch`, and leave a spare."""
    kinship.set_name(NAME)
    from logd.runtime import exec_shim  # noqa: PLC0415  # not among what the shims of containers use

    kept = fill_gaps() if scratch else []
    from logd.runtime.shim import main  # noqa: PLC0415  # late, so that it lies together

    if scratch:
        _rehearse(scratch, {0, 1, 2, requests.fileno()})
        kinship.be_no_subreaper()
        gc.collect()
        kept += fill_gaps()
    kinship.disown_children()
    gc.freeze()
    if scratch:
        requests = _leave_spare(requests)
    inherited = requests.fileno()
    while True:
        raw, descriptors = receive(requests)
        if not raw:
            return
        kind: Kind = (exec_shim.main, b"logd-exec") if raw.startswith(exec_shim.MARK) else (main, b"logd-shim")
        try:
            pid = os.fork()
        except OSError as error:  # no process to be had: the shim's connections end at once, and that is told
            print(f"zygote: {error}", file=sys.stderr, flush=True)
            pid = -1
        if pid == 0:
            _be_shim(kind, raw, descriptors, inherited)
        for descriptor in descriptors:
            os.close(descriptor)


def _leave_spare(requests: SocketType) -> SocketType:
    """Fork a spare and give the keeper its connection; return the requests of the process that this returns in."""
    keepers, spares = socketpair(AF_UNIX, SOCK_SEQPACKET)
    if os.fork() == 0:
        keepers.close()
        requests.close()
        return spares
    spares.close()
    send(requests, b"ready", [keepers.fileno()])
    keepers.close()
    return requests


def _rehearse(scratch: str, descriptors: set[int]) -> None:
    from logd.runtime.rehearsal import rehearse  # noqa: PLC0415

    try:
        rehearse(scratch, descriptors)
    except OSError as error:  # it only saves memory
        print(f"zygote: rehearsal: {error}", file=sys.stderr, flush=True)


def _be_shim(kind: Kind, raw: bytes, descriptors: list[int], inherited: int) -> None:
    """In the forked child: be a shim, and end."""
    code = 1
    try:
        main, name = kind
        main(raw, descriptors, inherited, name)
        code = 0
    except BaseException:  # whatever it is, this process ends here and says why
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)
