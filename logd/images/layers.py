"""The trees of layers on disk: unpacked once, leased, shared by chain id, removed when nothing holds them.

<root>/l/<13 chars>/   a layer's tree; names are short because a mount lists up to 125 of them in one page
<root>/ingest/         what is being loaded
<root>/trash/          what is being removed
"""

import asyncio
import base64
import contextlib
import logging
import os
import secrets
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter, NotFound
from logd.images import kernel, worker
from logd.images.blobs import chain_id_on
from logd.images.catalog import Catalog, LayerRecord
from logd.images.limits import Limits
from logd.images.trees import remove_path

log = logging.getLogger(__name__)

FOLDERS: Final = ("l", "ingest", "trash")
Tell = Callable[[int], Awaitable[None]]


@dataclass
class Ingest:
    """One load or import under way: its folder, and the layers that it holds."""

    folder: Path
    leases: list[str] = field(default_factory=list)

    async def subfolder(self) -> Path:
        """Return a new, empty folder."""
        path = self.folder / secrets.token_hex(8)
        await asyncio.to_thread(path.mkdir, mode=0o755)
        return path


class Layers:
    """The layers of a catalog, below `root`."""

    def __init__(self, root: Path, catalog: Catalog, limits: Limits) -> None:
        self._root = root
        self._catalog = catalog
        self._limits = limits
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        for name in FOLDERS:
            (root / name).mkdir(mode=0o700, exist_ok=True)

    def path(self, chain_id: str) -> Path:
        """Return the folder with a layer's tree."""
        return self._root / "l" / self._catalog.layers[chain_id].folder

    @contextlib.asynccontextmanager
    async def ingest(self) -> AsyncIterator[Ingest]:
        """Give a folder for one load. It goes in any case, and so do layers that no image came to hold."""
        folder = self._root / "ingest" / secrets.token_hex(8)
        await asyncio.to_thread(folder.mkdir, mode=0o700)
        ingest = Ingest(folder)
        try:
            yield ingest
        finally:
            self._catalog.release(ingest.leases)
            self.discard(list(self._catalog.drop_unused_layers().values()))
            await asyncio.shield(asyncio.to_thread(remove_path, folder))

    async def unpack(self, ingest: Ingest, chain: Sequence[str], diff_id: str, file: Path, tell: Tell) -> None:
        """Have the layer `chain[-1]` on top of the others, whose tar is `file`, and hold it.

        Raises InvalidParameter if the tar is bad or is not the one with `diff_id`.
        """
        chain_id, unpacked = chain[-1], 0
        async with self._lock(chain_id):
            if not self._catalog.lease(chain_id):
                folder = await ingest.subfolder()
                lower = [self.path(beneath) for beneath in reversed(chain[:-1])]
                result = await worker.unpack_layer(folder, file, lower, self._limits, tell)
                if result["diff_id"] != diff_id:
                    raise InvalidParameter(f'invalid diffID for layer: expected "{diff_id}", got "{result["diff_id"]}"')
                await self._place(folder, chain_id, diff_id, result["size"], chain[-2] if chain[1:] else "")
                unpacked = result["compressed"]
            ingest.leases.append(chain_id)
        if unpacked:
            await tell(unpacked)

    async def unpack_stream(self, ingest: Ingest, chunks: AsyncIterator[bytes], beneath: Sequence[str] = ()) -> str:
        """Unpack the tar that comes in `chunks` as a layer, hold it, and return its diff id.

        `beneath` is the chain of the layers beneath, which are held already; with it the tar is of a container's files.
        """
        folder = await ingest.subfolder()
        lower = [self.path(chain_id) for chain_id in reversed(beneath)]
        result = await worker.unpack_layer(folder, chunks, lower, self._limits, any_links=bool(beneath))
        diff_id: str = result["diff_id"]
        parent = beneath[-1] if beneath else ""
        chain_id = chain_id_on(parent, diff_id)
        async with self._lock(chain_id):
            if not self._catalog.lease(chain_id):
                await self._place(folder, chain_id, diff_id, result["size"], parent)
            ingest.leases.append(chain_id)
        return diff_id

    def hold(self, ingest: Ingest, chain: Sequence[str]) -> None:
        """Hold layers that are there. Raises NotFound."""
        for chain_id in chain:
            if not self._catalog.lease(chain_id):
                raise NotFound(f"No such layer: {chain_id}")
            ingest.leases.append(chain_id)

    def sync(self) -> None:
        """Make every tree durable (syncfs(2): one call for all their files)."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kernel.syncfs(fd)
        finally:
            os.close(fd)

    def discard(self, records: Sequence[LayerRecord]) -> None:
        """Remove the trees of layers that are in the catalog no more; that takes its time, in a thread."""
        for record in records:
            with contextlib.suppress(FileNotFoundError):
                (self._root / "l" / record.folder).rename(self._root / "trash" / record.folder)
        if records:
            folders = [self._root / "trash" / record.folder for record in records]
            threading.Thread(target=_remove_all, args=(folders,), name="images-trash", daemon=True).start()

    def remove_garbage(self) -> None:
        """Remove what an interrupted load or removal has left: all that no image of the catalog holds."""
        self._catalog.drop_unused_layers()
        known = {record.folder for record in self._catalog.layers.values()}
        garbage = [path for name in ("ingest", "trash") for path in (self._root / name).iterdir()]
        garbage += [path for path in (self._root / "l").iterdir() if path.name not in known]
        _remove_all(garbage)
        if garbage:
            log.info("removed %d folders that an interrupted load or removal had left", len(garbage))

    def _lock(self, chain_id: str) -> asyncio.Lock:
        return self._locks.setdefault(chain_id, asyncio.Lock())

    async def _place(self, folder: Path, chain_id: str, diff_id: str, size: int, parent: str) -> None:
        """Move an unpacked tree to its place and enter it with a lease; it is not yet durable."""
        record = LayerRecord(diff_id, parent, size, _new_name())
        await asyncio.to_thread(folder.rename, self._root / "l" / record.folder)
        self._catalog.add_layer(chain_id, record)


def _remove_all(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            remove_path(folder)
        except OSError as error:
            log.warning("%s is left until the next start: %s", folder, error)


def _new_name() -> str:
    return base64.b32encode(secrets.token_bytes(9)).decode().lower()[:13]
