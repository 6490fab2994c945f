"""The images of this host: load, import, name, look up, remove.

    <root>/index.json         what there is (logd.images.catalog)
    <root>/blobs/sha256/      configs, manifests, and the tars of layers, compressed
    <root>/l, ingest, trash   the trees of layers (logd.images.layers)

A layer is unpacked once, by a process of its own, and shared by all images that have it on the same layers beneath
(its chain id). Content is on the disk before the index names it; what a crash leaves in ingest/ and trash/, and any
tree or blob that the index does not name, is removed at the next start. The daemon's lock on the data root keeps a
second process away.

Methods without `async` work on memory and one small file; they may be called from any thread.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from logd import references
from logd.errors import Conflict, InvalidParameter, NotFound
from logd.images import archive, config, image, removal, selection, worker
from logd.images.archive import PlannedImage
from logd.images.blobs import Blobs
from logd.images.catalog import Catalog, ImageRecord, LayerBlob, LayerRecord
from logd.images.changes import apply as apply_changes
from logd.images.config import Document
from logd.images.image import Image
from logd.images.layers import Ingest, Layers, Tell
from logd.images.limits import Limits
from logd.images.manifests import Original, read_original
from logd.images.removal import InUse
from logd.references import Reference

Progress = Callable[[dict[str, Any]], Awaitable[None]]


class ImageStore:
    """All images below `root`, which is created if need be. Opening it removes what a crash has left.

    Raises LogdError if its index is damaged or of a newer version, OSError if the disk fails.
    """

    def __init__(self, root: Path, limits: Limits = Limits()) -> None:  # noqa: B008  # it is frozen
        self._root = root
        self._limits = limits
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)  # the setuid programs of images are not for the host's users
        self._blobs = Blobs(root / "blobs")
        self._catalog = Catalog(root / "index.json")
        self._layers = Layers(root, self._catalog, self._blobs, limits)
        self._documents: dict[str, tuple[bytes, Document]] = {}
        self._pruning = threading.Lock()
        self._remove_garbage()

    # looking up

    def resolve(self, ref: str) -> Image:
        """Return the image that a name, name@digest, id or the beginning of an id means.

        Raises NotFound "No such image: …", InvalidParameter for text that can't be a reference. The full id of an
        image that was removed by force while a container has it still resolves.
        """
        with self._catalog.lock:
            image_id = self._catalog.find(ref) or references.digest_of(ref) or ""
            found = self.by_id(image_id)
            if found is None:
                shown = references.digest_of(ref) or references.parse(ref).with_default_tag().familiar
                raise NotFound(f"No such image: {shown}")
            return found

    def by_id(self, image_id: str) -> Image | None:
        """Return the image `sha256:…`, be it one that only a container still holds; None if there is none."""
        with self._catalog.lock:
            record = self._catalog.images.get(image_id) or self._catalog.detached.get(image_id)
            return None if record is None else self._image(image_id, record)

    def list(self) -> list[Image]:
        """Return all images, in no order."""
        with self._catalog.lock:
            return [self._image(image_id, record) for image_id, record in self._catalog.images.items()]

    def layers(self, image: Image) -> Sequence[Path]:
        """Return the folders of the layers for an overlay mount, the top one first."""
        with self._catalog.lock:
            return [self._layers.path(chain_id) for chain_id in reversed(image.chain)]

    def inspect(self, ref: str | Image) -> dict[str, Any]:
        """Return Docker's ImageInspect."""
        found = self.resolve(ref) if isinstance(ref, str) else ref
        return image.inspect(found, [str(path) for path in self.layers(found)])

    def summary(self, ref: str | Image) -> dict[str, Any]:
        """Return Docker's ImageSummary."""
        return image.summary(self.resolve(ref) if isinstance(ref, str) else ref)

    def summaries(
        self,
        filters: Mapping[str, Collection[str]],
        *,
        everything: bool = False,
        shared_size: bool = False,
        in_use: InUse | None = None,
    ) -> Sequence[dict[str, Any]]:
        """Return the items of /images/json, the newest first. Raises InvalidParameter for a filter.

        With `shared_size` and `in_use`, SharedSize (bytes) and Containers are counted; else they are -1.
        """
        with self._catalog.lock:
            images = {found.id: found for found in self.list()}
            items = selection.select(
                list(images.values()),
                filters,
                self.resolve,
                lambda image_id: bool(self._catalog.children(image_id)),
                everything=everything,
            )
        holders: dict[str, int] = {}
        for chain_id in [chain_id for found in images.values() for chain_id in found.chain]:
            holders[chain_id] = holders.get(chain_id, 0) + 1
        for item in items:
            found = images[item["Id"]]
            if shared_size:
                pairs = zip(found.chain, found.layer_sizes, strict=True)
                item["SharedSize"] = sum(size for chain_id, size in pairs if holders[chain_id] > 1)
            if in_use is not None:
                item["Containers"] = len(in_use(found.id))
        return items

    def history(self, ref: str) -> Sequence[dict[str, Any]]:
        """Return the items of `docker history`, the newest first."""
        return image.history(self.resolve(ref))

    def layers_size(self) -> int:
        """Return the bytes of all layers together (`docker system df`)."""
        with self._catalog.lock:
            return self._catalog.size(self._catalog.layers)

    # naming and removing

    def tag(self, ref: str, repo: str, tag: str) -> Image:
        """Give an image one more name; the image that had it loses it. Raises NotFound, InvalidParameter."""
        name = references.parse_repository(repo, tag)
        with self._catalog.lock:
            found = self.resolve(ref)
            if found.id not in self._catalog.images:
                raise NotFound(f"No such image: {found.id}")
            self._name(name, found.id)
        self._catalog.save()
        return self.resolve(found.id)

    def remove(self, ref: str, *, force: bool, prune: bool, in_use: InUse) -> Sequence[dict[str, str]]:
        """Take a name from an image, or remove it with its last one; return Docker's Untagged and Deleted items.

        `prune` also removes nameless parents. Raises NotFound, Conflict in Docker's words. Where it is forced while a
        stopped container has the image, the layers stay for it (see `collect`).
        """
        with self._catalog.lock:
            image_id = self._catalog.find(ref)
            if image_id is None:
                raise NotFound(
                    f"No such image: {references.digest_of(ref) or references.parse(ref).with_default_tag().familiar}"
                )
            before = self._wanted_blobs()
            done = removal.remove(self._catalog, ref, image_id, in_use, force=force, prune=prune)
            done.layers += removal.collect(self._catalog, in_use)
            self._forget_documents()
        self._give_back(before, done.layers)
        return done.items

    def prune(
        self, *, in_use: InUse, dangling: bool | None = None, filters: Mapping[str, Collection[str]] | None = None
    ) -> dict[str, Any]:
        """Remove images that no container has; return {"ImagesDeleted": items or None, "SpaceReclaimed": bytes}.

        Only nameless ones unless `dangling` (or the filter of that name) is false. Filters: dangling, label, label!,
        until. Raises InvalidParameter, Conflict if a prune is running already.
        """
        filters = filters or {}
        selection.check(filters, selection.PRUNE_FILTERS)
        asked = selection.flag(filters, "dangling")
        only_dangling = asked if asked is not None else dangling is not False
        latest = selection.until(filters)
        if not self._pruning.acquire(blocking=False):
            raise Conflict("a prune operation is already running")
        try:
            with self._catalog.lock:
                before = self._wanted_blobs()
                chosen = [
                    found.id
                    for found in self.list()
                    if (found.names or not self._catalog.children(found.id))
                    and (latest is None or found.created <= latest)
                    and selection.labels_fit(found, filters)
                ]
                done = removal.prune(self._catalog, chosen, in_use, dangling=only_dangling)
                done.layers += removal.collect(self._catalog, in_use)
                self._forget_documents()
            self._give_back(before, done.layers)
        finally:
            self._pruning.release()
        return {"ImagesDeleted": done.items or None, "SpaceReclaimed": sum(layer.size for layer in done.layers)}

    def collect(self, in_use: InUse) -> None:
        """Free what only containers held that are gone now; to be called after a container was removed."""
        with self._catalog.lock:
            if not self._catalog.detached:
                return
            before = self._wanted_blobs()
            freed = removal.collect(self._catalog, in_use)
            self._forget_documents()
        self._give_back(before, freed)

    # loading

    async def load(self, chunks: AsyncIterable[bytes], progress: Progress, *, quiet: bool = True) -> Sequence[str]:
        """Load the images of a `docker save` archive or an OCI layout, all or none; return their ids.

        `progress` gets Docker's messages; without `quiet` also how far the layers are. Raises InvalidParameter for a
        bad archive, LogdError or OSError if the system fails.
        """
        async with self._layers.ingest() as ingest:
            folder = await ingest.subfolder()
            listing = await worker.split_archive(folder, aiter(chunks), self._limits)
            planned = await asyncio.to_thread(archive.read, folder, listing["files"], listing["links"])
            for one in planned:
                await self._unpack_all(ingest, one, None if quiet else progress)
            messages = await asyncio.to_thread(self.enter, planned)
        for message in messages:
            await progress({"stream": f"{message}\n"})
        return [one.id for one in planned]

    async def import_(
        self,
        chunks: AsyncIterable[bytes],
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> Image:
        """Make an image of one layer from a tar of a root file system. Raises InvalidParameter.

        `changes` are Dockerfile instructions, `platform` is os/architecture/variant (the host's where it is empty).
        """
        name = _import_name(repository, tag)
        run_config = apply_changes(changes) if changes else {}
        system = config.parse_platform(platform)
        async with self._layers.ingest() as ingest:
            diff_id = await self._layers.unpack_stream(ingest, aiter(chunks))
            data = config.imported(diff_id, run_config, message, system)
            planned = PlannedImage(data, config.parse(data), [], [name] if name else [])
            await asyncio.to_thread(self.enter, [planned])
        return self.resolve(planned.id)

    async def commit(
        self,
        base: Image | None,
        layer: AsyncIterable[bytes] | None,
        *,
        run_config: dict[str, Any],
        created_by: str,
        author: str = "",
        message: str = "",
        repository: str = "",
        tag: str = "",
        step: str = "",
    ) -> Image:
        """Make an image of another one (None: of nothing) and a layer's tar on top, None for no change.

        A `step` is a build's: by it `built` finds the image again. Raises InvalidParameter.
        """
        name = _import_name(repository, tag)
        entry = {"created_by": created_by, "author": author, "comment": message}
        chain = base.chain if base else ()
        async with self._layers.ingest() as ingest:
            self._layers.hold(ingest, chain)
            diff_id = None if layer is None else await self._layers.unpack_stream(ingest, aiter(layer), chain)
            data = config.committed(base.config if base else config.nothing(), diff_id, run_config, entry)
            planned = PlannedImage(data, config.parse(data), [], [name] if name else [])
            await asyncio.to_thread(self.enter, [planned], base.id if base else "", step)
        return self.resolve(planned.id)

    def built(self, parent: Image | None, step: str) -> Image | None:
        """Return the newest image that a build has made of `parent` by this step, None if there is none."""
        parent_id = parent.id if parent else ""
        with self._catalog.lock:
            records = self._catalog.images.items()
            found = [image_id for image_id, one in records if one.parent == parent_id and one.step == step]
            images = [self._image(image_id, self._catalog.images[image_id]) for image_id in found]
            return max(images, key=lambda image: image.created, default=None)

    # what loads and pulls are made of

    def ingest(self) -> contextlib.AbstractAsyncContextManager[Ingest]:
        """Give a folder for one load; layers that no image came to hold go with it."""
        return self._layers.ingest()

    def lease(self, ingest: Ingest, chain_id: str) -> bool:
        """Hold a layer, by its chain id, if it is there."""
        return self._layers.lease(ingest, chain_id)

    async def unpack(
        self, ingest: Ingest, chain: Sequence[str], diff_id: str, file: Path, tell: Tell, *, digest: str
    ) -> None:
        """Have the layer `chain[-1]` on the others, whose tar is `file`, verified to have `digest`, and hold it.

        Raises InvalidParameter.
        """
        await self._layers.unpack(ingest, chain, diff_id, file, tell, digest=digest)

    def hold_layers(self, ingest: Ingest, image: Image) -> Sequence[LayerRecord]:
        """Hold the layers of an image and return them, the lowest first. Raises NotFound."""
        self._layers.hold(ingest, image.chain)
        with self._catalog.lock:
            return [self._catalog.layers[chain_id] for chain_id in image.chain]

    def original_manifest(self, image: Image) -> Original | None:
        """Return a manifest by which the image came, if every layer is kept as it has it."""
        with self._catalog.lock:
            record = self._catalog.images.get(image.id) or self._catalog.detached.get(image.id)
            there = self._catalog.layer_blobs()
        for digest in record.manifests if record else []:
            data = self._blobs.read(digest)
            found = read_original(data, image.id)
            if found is not None and {layer.digest for layer in found.layers} <= there:
                return found
        return None

    async def gzipped(self, ingest: Ingest, chain_id: str) -> LayerBlob:
        """Return the gzip of a layer that is held, made if need be. Raises LogdError."""
        return await self._layers.gzipped(ingest, chain_id)

    def note_pushed(self, image: Image, name: Reference, manifest: bytes) -> None:
        """Keep by which manifest a registry has an image now, and its name there; nothing if the image is gone."""
        with self._catalog.lock:
            record = self._catalog.images.get(image.id)
            if record is None:
                return
            digest = self._blobs.add(manifest)
            record.manifests = sorted({*record.manifests, digest})
            self._catalog.names[name] = image.id
        self._catalog.save()

    def hold_blob(self, ingest: Ingest, digest: str) -> Path | None:
        """Return a file with the tar of a layer, by the digest that a registry has for it, if it is kept."""
        with self._catalog.lock:
            if digest not in self._catalog.layer_blobs():
                return None
            path = ingest.new_name()
            os.link(self._blobs.path(digest), path)
            return path

    async def _unpack_all(self, ingest: Ingest, planned: PlannedImage, progress: Progress | None) -> None:
        """Have every layer of the image, each leased."""
        chain = config.chain_ids(planned.document.diff_ids)
        for number, (diff_id, file) in enumerate(zip(planned.document.diff_ids, planned.layers, strict=True)):
            tell = await _teller(progress, diff_id, file)
            await self._layers.unpack(ingest, chain[: number + 1], diff_id, file, tell)

    def enter(self, planned: Sequence[PlannedImage], base: str = "", step: str = "") -> Sequence[str]:
        """Make the images durable and visible, all at once; return Docker's messages. `base` becomes their parent."""
        self._layers.sync()
        messages: list[str] = []
        unnamed: list[str] = []
        with self._catalog.lock:
            for one in planned:
                self._blobs.add(one.config)
                manifests = [self._blobs.add(data) for data in one.manifests]
                record = ImageRecord(config.chain_ids(one.document.diff_ids), manifests=manifests)
                self._catalog.detached.pop(one.id, None)
                kept = self._catalog.images.setdefault(one.id, record)
                kept.manifests = sorted({*kept.manifests, *manifests})
                for name in one.names:
                    messages += self._rename_message(name, one.id)
                    messages.append(f"Loaded image: {name.familiar}")
                for name in (*one.names, *one.digests):
                    self._name(name, one.id)
                if not one.names:
                    unnamed.append(f"Loaded image ID: {one.id}")
                kept.step = step or kept.step
                if base in self._catalog.images:
                    kept.parent = base
            self._link_parents(planned)
        self._catalog.save()
        return [*messages, *unnamed]

    def _link_parents(self, planned: Sequence[PlannedImage]) -> None:
        """Keep the parent that an archive names if it is an image of the same archive and can be one."""
        documents = {one.id: one.document for one in planned}
        for one in planned:
            parent = documents.get(one.parent)
            own, theirs = one.document.history or [], (parent.history or []) if parent else []
            if parent is not None and one.parent != one.id and theirs == own[:-1]:
                self._catalog.images[one.id].parent = one.parent

    def _rename_message(self, name: Reference, image_id: str) -> Sequence[str]:
        before = self._catalog.names.get(name)
        if before is None or before == image_id:
            return []
        return [f"The image {name.familiar} already exists, renaming the old one with ID {before} to empty string"]

    def _name(self, name: Reference, image_id: str) -> None:
        self._catalog.names[name] = image_id
        self._catalog.images[image_id].tagged_ns = time.time_ns()

    def _image(self, image_id: str, record: ImageRecord) -> Image:
        if image_id not in self._documents:
            raw = self._blobs.read(image_id)
            self._documents[image_id] = (raw, config.parse(raw))
        raw, document = self._documents[image_id]
        layers = self._catalog.layers
        return Image(
            id=image_id,
            document=document,
            raw=raw,
            names=tuple(self._catalog.names_of(image_id)),
            chain=tuple(record.chain),
            layer_sizes=tuple(layers[chain_id].size for chain_id in record.chain),
            parent=record.parent,
            tagged_ns=record.tagged_ns,
        )

    def _give_back(self, blobs: set[str], layers: Sequence[LayerRecord]) -> None:
        """Make a removal durable, then delete the layers, and those of the blobs that no image needs any more."""
        self._catalog.save()
        self._layers.discard(layers)
        with self._catalog.lock:  # so that a load that wants the same blob writes it afterwards
            for digest in blobs - self._wanted_blobs():
                self._blobs.remove(digest)

    def _forget_documents(self) -> None:
        """Drop the configs of images that are gone from memory."""
        for image_id in self._documents.keys() - self._catalog.images.keys() - self._catalog.detached.keys():
            del self._documents[image_id]

    def _remove_garbage(self) -> None:
        self._layers.remove_garbage()
        for path in self._root.glob(".index.json.*"):
            path.unlink()
        self._blobs.keep_only(self._wanted_blobs() | self._catalog.layer_blobs())

    def _wanted_blobs(self) -> set[str]:
        records = {**self._catalog.images, **self._catalog.detached}
        return {*records, *(digest for record in records.values() for digest in record.manifests)}


async def _teller(progress: Progress | None, diff_id: str, file: Path) -> Tell:
    """Return what tells Docker's client how many bytes of a layer have been read."""
    total = (await asyncio.to_thread(file.stat)).st_size

    async def tell(current: int) -> None:
        if progress is not None:
            detail = {"current": min(current, total), "total": total}
            await progress({"status": "Loading layer", "progressDetail": detail, "id": removal.short(diff_id)})

    return tell


def _import_name(repository: str, tag: str) -> Reference | None:
    if not repository:
        return None
    if references.parse(repository).digest:
        raise InvalidParameter("cannot import digest reference")
    return references.parse_repository(repository, tag)
