"""What keeps an idle daemon small. Imported before anything that imports aiohttp.

aiohttp makes a TLS context with all authorities that the host trusts when it is imported, which takes 2 to 3 MB. The
daemon asks nobody by that: registries are asked by processes of their own, destinations by forwarders, and log plugins
have contexts of their own.

Source: openssl's SSL_CTX_set_default_verify_paths(3) for the variables; malloc_trim(3).
"""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final

TRIM_S: Final = 30.0
"""Between two looks for pages that malloc holds without need; a look takes a few milliseconds of a thread."""


@contextlib.contextmanager
def _without_authorities() -> Iterator[None]:
    kept = os.environ.copy()
    os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    try:
        yield
    finally:
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            del os.environ[name]
            if name in kept:
                os.environ[name] = kept[name]


with _without_authorities():
    import aiohttp  # noqa: F401 - for its effect: whoever imports it later finds it made


async def give_back_memory() -> None:
    """Return free pages to the kernel now and then, for ever; a libc that can't is left alone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(TRIM_S)
        await asyncio.to_thread(trim, 0)
