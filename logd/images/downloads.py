"""Blobs on their way from registries: each comes once, however many ask for it, and goes on where it broke off.

<root>/downloads/<hex>   the beginning of a blob, or all of it until a layer has it; outlives the daemon
"""

import asyncio
import contextlib
import logging
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter
from logd.images.blobs import MAX_BLOB
from logd.images.manifests import Descriptor
from logd.references import IDENTIFIER
from logd.registry.remote import Remote

log = logging.getLogger(__name__)

KEEP_S: Final = 7 * 24 * 3600
"""How long the beginning of a blob waits for somebody who wants the rest."""

Tell = Callable[[str, int | None], None]
"""Gets Docker's word for the state, and the bytes that there are."""


class Downloads:
    """The blobs in `folder`, which is created; `slots` tells how many may come at once."""

    def __init__(self, folder: Path, slots: Callable[[], int]) -> None:
        self._folder = folder
        self._slots = slots
        self._running = 0
        self._free = asyncio.Condition()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._watchers: dict[str, list[Tell]] = {}
        self._users: Counter[str] = Counter()
        folder.mkdir(mode=0o700, exist_ok=True)
        self._forget_old()

    @contextlib.asynccontextmanager
    async def blob(self, remote: Remote, wanted: Descriptor, tell: Tell) -> AsyncIterator[Path]:
        """Give a file with the blob, verified, for the length of the block. Raises LogdError.

        What has come of it stays if the block does not begin, for the next one who wants it.
        """
        path = self._folder / name_of(wanted.digest)
        self._users[wanted.digest] += 1
        watchers = self._watchers.setdefault(wanted.digest, [])
        watchers.append(tell)
        whole = False
        try:
            lock = self._locks.setdefault(wanted.digest, asyncio.Lock())
            async with lock:
                await self._fetch(remote, wanted, path)
            whole = True
            yield path
        finally:
            watchers.remove(tell)
            self._users[wanted.digest] -= 1
            if not self._users[wanted.digest]:
                del self._users[wanted.digest], self._watchers[wanted.digest]
                if whole:
                    _remove(path)  # at once: the next one who wants it may be about to begin

    async def small(self, remote: Remote, wanted: Descriptor) -> bytes:
        """Return a blob of the size of a config. Raises LogdError."""
        if wanted.size > MAX_BLOB:
            raise InvalidParameter(f"the config {wanted.digest} of {wanted.size} bytes is longer than {MAX_BLOB}")
        async with self.blob(remote, wanted, lambda *_: None) as path:
            return await asyncio.to_thread(path.read_bytes)

    async def _fetch(self, remote: Remote, wanted: Descriptor, path: Path) -> None:
        def tell(status: str, current: int | None = None) -> None:
            for watcher in list(self._watchers[wanted.digest]):
                watcher(status, current)

        def progress(line: dict[str, int]) -> None:
            if "waits" in line:
                tell(f"Retrying in {line['waits']} second{'s' if line['waits'] > 1 else ''}")
            else:
                tell("Downloading", line["current"])

        async with self._slot(lambda: tell("Waiting")):
            await remote.ask("blob", digest=wanted.digest, size=wanted.size, path=str(path), progress=progress)
        tell("Verifying Checksum")
        tell("Download complete")

    @contextlib.asynccontextmanager
    async def _slot(self, waits: Callable[[], None]) -> AsyncIterator[None]:
        async with self._free:
            if self._running >= self._slots():
                waits()
                await self._free.wait_for(lambda: self._running < self._slots())
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            async with self._free:
                self._free.notify_all()

    def _forget_old(self) -> None:
        for path in self._folder.iterdir():
            if time.time() - path.stat().st_mtime > KEEP_S:
                path.unlink(missing_ok=True)
                log.info("gave up the beginning of blob %s, which nobody has asked for in a week", path.name)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def name_of(digest: str) -> str:
    """Return the name of a blob's file. Raises InvalidParameter for what is no sha256 digest."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not IDENTIFIER.fullmatch(value):
        raise InvalidParameter(f"digest {digest!r} is not supported (supported: sha256)")
    return value
