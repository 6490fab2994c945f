"""Layers on disk, tree and tar: unpacked once, leased, shared by chain id, removed when nothing holds them.

<root>/l/<13 chars>/   a layer's tree; names are short because a mount lists up to 125 of them in one page
<root>/blobs/          its tar, compressed, among other content (logd.images.blobs)
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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from logd.errors import InvalidParameter, LogdError, NotFound
from logd.images import kernel, worker
from logd.images.blobs import Blobs, chain_id_on
from logd.images.catalog import Catalog, LayerBlob, LayerRecord
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

    def new_name(self) -> Path:
        """Return a path in the folder that nothing has yet."""
        return self.folder / secrets.token_hex(8)

    async def subfolder(self) -> Path:
        """Return a new, empty folder."""
        path = self.new_name()
        await asyncio.to_thread(path.mkdir, mode=0o755)
        return path


class Layers:
    """The layers of a catalog, below `root`."""

    def __init__(self, root: Path, catalog: Catalog, blobs: Blobs, limits: Limits) -> None:
        self._root = root
        self._blobs = blobs
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

    def lease(self, ingest: Ingest, chain_id: str) -> bool:
        """Hold a layer if it is there."""
        if not self._catalog.lease(chain_id):
            return False
        ingest.leases.append(chain_id)
        return True

    async def unpack(
        self, ingest: Ingest, chain: Sequence[str], diff_id: str, file: Path, tell: Tell, *, digest: str = ""
    ) -> None:
        """Have the layer `chain[-1]` on top of the others, whose tar is `file`, and hold it.

        `digest` is the one that the file was verified to have, if it was. Raises InvalidParameter if the tar is bad or
        is not the one with `diff_id`.
        """
        chain_id, unpacked = chain[-1], 0
        async with self._lock(chain_id):
            if not self._catalog.lease(chain_id):
                folder, copy = await ingest.subfolder(), ingest.new_name()
                lower = [self.path(beneath) for beneath in reversed(chain[:-1])]
                result = await worker.unpack_layer(folder, file, lower, self._limits, tell, copy=copy, digest=digest)
                if result["diff_id"] != diff_id:
                    raise InvalidParameter(f'invalid diffID for layer: expected "{diff_id}", got "{result["diff_id"]}"')
                blob = copy if result["blob"]["copied"] else file
                await asyncio.to_thread(self._place, folder, chain, result, blob)
                unpacked = result["compressed"]
            ingest.leases.append(chain_id)
        if unpacked:
            await tell(unpacked)

    async def unpack_stream(self, ingest: Ingest, chunks: AsyncIterator[bytes], beneath: Sequence[str] = ()) -> str:
        """Unpack the tar that comes in `chunks` as a layer, hold it, and return its diff id.

        `beneath` is the chain of the layers beneath, which are held already; with it the tar is of a container's files.
        """
        folder, copy = await ingest.subfolder(), ingest.new_name()
        lower = [self.path(chain_id) for chain_id in reversed(beneath)]
        result = await worker.unpack_layer(folder, chunks, lower, self._limits, copy=copy, any_links=bool(beneath))
        diff_id: str = result["diff_id"]
        chain_id = chain_id_on(beneath[-1] if beneath else "", diff_id)
        async with self._lock(chain_id):
            if not self._catalog.lease(chain_id):
                await asyncio.to_thread(self._place, folder, [*beneath, chain_id], result, copy)
            ingest.leases.append(chain_id)
        return diff_id

    async def gzipped(self, ingest: Ingest, chain_id: str) -> LayerBlob:
        """Return the gzip of a layer that is held; one that is made is kept with the layer. Raises LogdError."""
        async with self._lock(chain_id):
            record = self._catalog.layers[chain_id]
            for blob in record.blobs:
                if blob.compression == "gzip":
                    return blob
            path = ingest.new_name()
            result = await worker.gzip_layer(self._blobs.path(record.kept.digest), path)
            if result["diff_id"] != record.diff_id:
                raise LogdError(f"blob {record.kept.digest} is damaged in the image store")
            made = LayerBlob(result["digest"], result["size"], "gzip")
            with self._catalog.lock:
                self._blobs.adopt(made.digest, path)
                record.blobs = [*record.blobs, made]
            await asyncio.to_thread(self.sync)
            await asyncio.to_thread(self._catalog.save)
            return made

    def hold(self, ingest: Ingest, chain: Sequence[str]) -> None:
        """Hold layers that are there. Raises NotFound."""
        for chain_id in chain:
            if not self.lease(ingest, chain_id):
                raise NotFound(f"No such layer: {chain_id}")

    def sync(self) -> None:
        """Make every tree durable (syncfs(2): one call for all their files)."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kernel.syncfs(fd)
        finally:
            os.close(fd)

    def discard(self, records: Sequence[LayerRecord]) -> None:
        """Remove the trees and tars of layers that are in the catalog no more; that takes its time, in a thread."""
        trash = self._root / "trash"
        garbage = [trash / record.folder for record in records]
        for record in records:
            with contextlib.suppress(FileNotFoundError):
                (self._root / "l" / record.folder).rename(trash / record.folder)
        with self._catalog.lock:  # so that a layer that comes to have one of these blobs brings it afterwards
            for digest in {blob.digest for record in records for blob in record.blobs} - self._catalog.layer_blobs():
                path = trash / _new_name()
                if self._blobs.move(digest, path):
                    garbage.append(path)
        if garbage:
            threading.Thread(target=_remove_all, args=(garbage,), name="images-trash", daemon=True).start()

    def remove_garbage(self) -> None:
        """Remove what an interrupted load or removal has left: all that no image of the catalog holds."""
        self._catalog.drop_unused_layers()
        known = {record.folder for record in self._catalog.layers.values()}
        garbage = [path for name in ("ingest", "trash") for path in (self._root / name).iterdir()]
        garbage += [path for path in (self._root / "l").iterdir() if path.name not in known]
        _remove_all(garbage)
        if garbage:
            log.info("removed %d things that an interrupted load or removal had left", len(garbage))

    def _lock(self, chain_id: str) -> asyncio.Lock:
        return self._locks.setdefault(chain_id, asyncio.Lock())

    def _place(self, folder: Path, chain: Sequence[str], result: Mapping[str, Any], file: Path) -> None:
        """Move an unpacked tree and its blob to their places and enter them with a lease; they are not yet durable."""
        blob = LayerBlob(**{name: result["blob"][name] for name in LayerBlob.__struct_fields__})
        parent = chain[-2] if chain[1:] else ""
        record = LayerRecord(result["diff_id"], parent, result["size"], _new_name(), result["tar"], [blob])
        folder.rename(self._root / "l" / record.folder)
        with self._catalog.lock:
            self._blobs.adopt(blob.digest, file)
            self._catalog.add_layer(chain[-1], record)


def _remove_all(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir():
                remove_path(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s is left until the next start: %s", path, error)


def _new_name() -> str:
    return base64.b32encode(secrets.token_bytes(9)).decode().lower()[:13]
