"""Go through a shim's life once, before the zygote is forked.

What CPython does the first times it runs a function (it counts, then rewrites the code for the types it saw, fills its
caches) it would do in every shim, each in private copies of pages. After a rehearsal it is done, in pages that all
shims share: 0.2 MB less for each. A shell plays the runtime and the container.
"""

import gc
import os
import socket
from typing import Final

from logd.logstore.options import StoreOptions
from logd.runtime import kinship, shim
from logd.runtime.protocol import Launch, send

FOLDER: Final = "rehearsal"
ROUNDS: Final = 16
"""CPython 3.11 rewrites a function after 8 calls."""
RUNTIME: Final = f"""
[ "$4" = create ] || exit 0
{{ for i in $(seq {ROUNDS}); do echo output; echo error >&2; sleep 0.001; done; }} &
echo $! > "$8"
"""
"""Called with --log FILE --log-format json VERB, and to create with --bundle FOLDER --pid-file FILE ID; $0 is --log."""


def rehearse(exec_root: str, kept: set[int]) -> None:
    """Be a shim in a scratch folder; of all descriptors only `kept` are open afterwards. Raises OSError."""
    folder = os.path.join(exec_root, FOLDER)
    _remove(folder)
    os.makedirs(os.path.join(folder, "log"), 0o700)
    try:
        launch = Launch("rehearsal", folder, folder, ("/bin/sh", "-c", RUNTIME), 1, store=StoreOptions(min_free=0))
        keeper, shims_keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        daemon, shims_daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with keeper, daemon:
            send(daemon, {"op": "start", "seq": 0})
            for number in range(ROUNDS):
                send(daemon, {"op": "lease", "seq": number, "positions": [0, 0]})
            kinship.own_children()
            shim.main(launch, {"keeper": shims_keeper.detach(), "daemon": shims_daemon.detach()}, 0, None)
    finally:
        gc.collect()
        kinship.close_all_but(kept)
        _remove(folder)


def _remove(folder: str) -> None:
    for below in (os.path.join(folder, "log"), folder):
        if os.path.isdir(below):
            for name in os.listdir(below):
                os.unlink(os.path.join(below, name))
            os.rmdir(below)
