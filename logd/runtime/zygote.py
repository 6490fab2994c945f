"""The zygote: a fork of the keeper that does nothing but fork shims.

A page that the keeper writes to after a fork is from then on the shim's alone, and the keeper writes to many. The
zygote has been through a shim's life once (rehearsal.py) and touches as little as it can between two forks, so that
what the shims share stays shared.

Keeper → zygote, a packet for each shim: marshal of (launch, names, pid, recovery) and the descriptors that go with the
names. Shims are children of the zygote, which lets the kernel reap them: what matters of their end the keeper learns
from their connection. It is no subreaper, so that their orphans go to the keeper.
"""

import gc
import marshal
import os
import sys
from socket import SocketType
from typing import Any, Final

from logd.logstore.options import StoreOptions
from logd.runtime import kinship, shim
from logd.runtime.packets import receive, send
from logd.runtime.protocol import Launch


def ask_for_shim(
    zygote: SocketType, launch: Launch, descriptors: dict[str, int], pid: int, recovery: shim.Recovery | None = None
) -> None:
    """Have a shim forked that begins with these descriptors, see `shim.main`. Raises OSError if the zygote is gone."""
    request: Any = ((*launch[:-1], tuple(launch.store)), tuple(descriptors), pid, recovery)
    raw = marshal.dumps(request)
    send(zygote, raw, list(descriptors.values()))


def serve(requests: SocketType) -> None:
    """Fork a shim for each request, until the keeper is gone."""
    kinship.set_name(b"logd-zygote")
    kinship.disown_children()
    gc.collect()
    filled = _fill_pools()
    gc.freeze()
    while filled:
        raw, descriptors = receive(requests)
        if not raw:
            return
        if _fork() == 0:
            _be_shim(requests, raw, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


POOL_BYTES: Final = 16 << 10
POOL_HEADER_BYTES: Final = 48
LARGEST_BYTES: Final = 512
"""Of pymalloc, CPython 3.11 (Objects/obmalloc.c): objects of one size class lie in pools of their own."""


def _fill_pools() -> list[object]:
    """Fill the gaps between objects, so that what is made from now on lies together, in pages of its own.

    Otherwise each new object lands in a page full of older ones, which is copied: 0.2 MB in every shim.
    """
    filling: list[object] = []
    for size in range(16, LARGEST_BYTES + 1, 16):
        last = in_order = 0
        while in_order < 4:  # the first blocks of a new pool come in order
            one = bytes(size - 33) if size > 33 else float(len(filling)) if size == 32 else object()
            filling.append(one)
            if id(one) % POOL_BYTES == POOL_HEADER_BYTES or (in_order and id(one) == last + size):
                in_order += 1
            else:
                in_order = 0
            last = id(one)
    return filling


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:  # no process to be had: the shim's connections end at once, and that is told
        print(f"zygote: {error}", file=sys.stderr, flush=True)
        return -1


def _be_shim(requests: SocketType, raw: bytes, descriptors: list[int]) -> None:
    """In the forked child: be a shim, and end."""
    code = 1
    try:
        requests.close()
        kinship.own_children()
        kinship.set_name(b"logd-shim")
        plain, names, pid, recovery = marshal.loads(raw)  # noqa: S302  # the keeper's words
        launch = Launch(*plain[:-1], StoreOptions(*plain[-1]))  # type: ignore[call-arg]  # mypy takes the star for all
        shim.main(launch, dict(zip(names, descriptors, strict=True)), pid, recovery)
        code = 0
    except BaseException:  # whatever it is, this process ends here and says why
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)
