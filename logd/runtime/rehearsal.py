"""Go through shims' lives, in the zygote before it forks the first.

What CPython does the first times it runs a function (it counts, then rewrites the code for the types it saw, fills its
caches) it would do in every shim, each in private copies of pages; and code that it has rewritten no longer touches
the names of what it uses. After a rehearsal all that is done, in pages that all shims share: 0.3 MB less for each. A
shell plays the runtime and the container.
"""

import gc
import os
import socket
from typing import Final

from logd.logstore.options import StoreOptions
from logd.runtime import kinship, shim, zygote
from logd.runtime.protocol import Launch, send

FOLDER: Final = "rehearsal."
"""And the process's pid: a zygote whose keeper was killed may still be at it when its successor begins."""
LIVES: Final = 9
"""CPython 3.11 rewrites a function at its eighth call (Include/internal/pycore_code.h), for what the next one sees."""
QUESTIONS: Final = 2
RUNTIME: Final = """
if [ "$4" = create ]; then
    { echo output; echo error >&2; exec sleep 60; } &
    echo $! > "$8"
else
    read -r container < "${1%/*}/init.pid"
    kill "$container"
fi
"""
"""Called with --log FILE --log-format json VERB, and to create with --bundle FOLDER --pid-file FILE ID; $0 is --log.

The container ends when it is started.
"""


def rehearse(exec_root: str, kept: set[int]) -> None:
    """Be shims in a scratch folder; of all descriptors only `kept` are open afterwards. Raises OSError."""
    folder = os.path.join(exec_root, f"{FOLDER}{os.getpid()}")
    _remove_forsaken(exec_root)
    gc.freeze()  # what is there need not be looked through after each life
    launch = Launch("rehearsal", folder, folder, ("/bin/sh", "-c", RUNTIME), 1, store=StoreOptions(min_free=0))
    try:
        for _ in range(LIVES):
            _remove(folder)
            os.makedirs(os.path.join(folder, "log"), 0o700)
            _live(launch)
            gc.collect()  # what is left of a life must not close descriptors of the next
            kinship.close_all_but(kept)
    finally:
        gc.collect()
        kinship.close_all_but(kept)
        _remove(folder)


def _remove_forsaken(exec_root: str) -> None:
    """Remove what zygotes have left that were killed."""
    for name in os.listdir(exec_root):
        if name.startswith(FOLDER) and not os.path.exists(f"/proc/{name.removeprefix(FOLDER)}"):
            _remove(os.path.join(exec_root, name))


def _live(launch: Launch) -> None:
    keeper, shims_keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon, shims_daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with keeper, daemon:
        send(daemon, {"op": "start", "seq": 0})
        for number in range(QUESTIONS):
            send(daemon, {"op": "lease", "seq": number, "positions": [0, 0]})
        descriptors = {"keeper": shims_keeper.detach(), "daemon": shims_daemon.detach()}
        shim.main(zygote.request(launch, descriptors, 0), list(descriptors.values()), os.dup(0), zygote.NAME)


def _remove(folder: str) -> None:
    for below in (os.path.join(folder, "log"), folder):
        if os.path.isdir(below):
            for name in os.listdir(below):
                os.unlink(os.path.join(below, name))
            os.rmdir(below)
