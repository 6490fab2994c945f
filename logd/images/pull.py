"""An image from a registry: index → manifest of the platform → config and layers, unpacked while others still come.

Messages are Docker's, so that its client draws its bars. Source: OCI distribution-spec "Pull"; dockerd 27.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from logd.errors import InvalidParameter, LogdError, NotFound, Unauthorized, Unsupported
from logd.images import config, manifests
from logd.images.archive import PlannedImage
from logd.images.blobs import MAX_BLOB, digest_of
from logd.images.downloads import Downloads
from logd.images.image import Image
from logd.images.layers import Ingest
from logd.images.manifests import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from logd.images.removal import short
from logd.images.report import Report
from logd.images.store import ImageStore
from logd.references import Reference
from logd.registry.remote import Remote, connected
from logd.registry.settings import Credentials, Settings

SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
MAX_DEPTH: Final = 3
"""An index of indexes is followed that far."""


class Pulls:
    """Takes images into `store`; `settings` tells how registries are spoken to."""

    def __init__(self, store: ImageStore, downloads: Downloads, settings: Callable[[], Settings]) -> None:
        self._store = store
        self._downloads = downloads
        self._settings = settings

    async def pull(self, wanted: Reference, credentials: Credentials, platform: str, report: Report) -> Image:
        """Take one image. Raises LogdError: nothing but the beginnings of blobs is left then."""
        config.parse_platform(platform)
        wanted = wanted.with_default_tag()
        try:
            async with connected(wanted.domain, wanted.path, self._settings(), credentials) as remote:
                image_id, digest, new = await _One(self._store, self._downloads, remote, report).take(wanted, platform)
        except (Unauthorized, NotFound) as error:
            raise _in_dockers_words(wanted, error) from error
        report.tell(f"Digest: {digest}")
        state = "Downloaded newer image for" if new else "Image is up to date for"
        report.tell(f"Status: {state} {wanted.familiar}")
        return self._store.resolve(image_id)


class _One:
    """One image on its way."""

    def __init__(self, store: ImageStore, downloads: Downloads, remote: Remote, report: Report) -> None:
        self._store = store
        self._downloads = downloads
        self._remote = remote
        self._report = report

    async def take(self, wanted: Reference, platform: str) -> tuple[str, str, bool]:
        """Return the image's id, the digest of what the name meant, and whether the name is new to the image."""
        documents, descriptor = await self._manifest(wanted, platform)
        self._report.about(f"Pulling from {_shown_path(wanted)}", wanted.digest or wanted.tag)
        manifest = manifests.read_manifest(documents[-1], descriptor)
        data = await self._small(manifest.config)
        document = config.parse(data)
        if len(manifest.layers) != len(document.diff_ids):
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {len(manifest.layers)},"
                f" got {len(document.diff_ids)}"
            )
        top = digest_of(documents[0])
        names = [wanted._replace(digest="")] if wanted.tag and not wanted.digest else []
        planned = PlannedImage(data, document, [], names, [wanted._replace(tag="", digest=top)], documents)
        known = self._store.by_id(planned.id)
        new = known is None or not {*planned.names, *planned.digests} <= {*known.names}
        async with self._store.ingest() as ingest:
            await self._layers(ingest, manifest.layers, document.diff_ids)
            await asyncio.to_thread(self._store.enter, [planned])
        return planned.id, top, new

    async def _manifest(self, wanted: Reference, platform: str) -> tuple[list[bytes], Descriptor]:
        """Return the documents from what the name means to the manifest, and the manifest's descriptor."""
        documents: list[bytes] = []
        name = wanted.digest or wanted.tag
        for _ in range(MAX_DEPTH):
            answer = await self._remote.ask("manifest", wanted=name)
            data, media_type, digest = answer["data"].encode(), answer["media_type"], answer["digest"]
            documents.append(data)
            if media_type in INDEX_TYPES:
                index = manifests.read_index(data, digest)
                chosen = manifests.for_platform(index.manifests, wanted.familiar, platform)
                if not chosen:
                    raise NotFound(f"no matching manifest in the manifest list entries of {wanted.familiar}")
                name = chosen[0].digest
                continue
            if media_type in MANIFEST_TYPES:
                return documents, Descriptor(digest, len(data), media_type)
            raise _unsupported(wanted, media_type)
        raise InvalidParameter(f"{wanted.familiar} is an index of indexes of indexes")

    async def _small(self, wanted: Descriptor) -> bytes:
        """Return a blob of the size of a config."""
        if wanted.size > MAX_BLOB:
            raise InvalidParameter(f"the config {wanted.digest} of {wanted.size} bytes is longer than {MAX_BLOB}")
        async with self._downloads.blob(self._remote, wanted, lambda *_: None) as path:
            return await asyncio.to_thread(path.read_bytes)

    async def _layers(self, ingest: Ingest, wanted: Sequence[Descriptor], diff_ids: list[str]) -> None:
        """Have all layers: they come side by side, and are unpacked from the lowest to the top one."""
        chain = config.chain_ids(diff_ids)
        there = [self._store.lease(ingest, chain_id) for chain_id in chain]
        for one, is_there in zip(wanted, there, strict=True):
            self._report.tell("Already exists" if is_there else "Pulling fs layer", short(one.digest))
        unpacked = [asyncio.Event() for _ in chain]
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, (one, is_there) in enumerate(zip(wanted, there, strict=True)):
                    if is_there:
                        unpacked[number].set()
                        continue
                    before = unpacked[number - 1] if number else None
                    layer = self._layer(ingest, one, chain[: number + 1], diff_ids[number], before, unpacked[number])
                    tasks.create_task(layer, name="pull-layer")
        except* (LogdError, OSError) as errors:
            raise errors.exceptions[0] from None

    async def _layer(
        self,
        ingest: Ingest,
        wanted: Descriptor,
        chain: list[str],
        diff_id: str,
        before: asyncio.Event | None,
        unpacked: asyncio.Event,
    ) -> None:
        """Have one layer, and set `unpacked`; `before` is set once the layer beneath is there."""
        ident = short(wanted.digest)

        def tell(status: str, current: int | None) -> None:
            self._report.tell(status, ident, current, wanted.size)

        async def unpacking(current: int) -> None:
            self._report.tell("Extracting", ident, min(current, wanted.size), wanted.size)

        kept = self._store.hold_blob(ingest, wanted.digest)
        if kept is not None:
            tell("Download complete", None)
            await _then(before)
            await self._store.unpack(ingest, chain, diff_id, kept, unpacking)
        else:
            async with self._downloads.blob(self._remote, wanted, tell) as path:
                await _then(before)
                await self._store.unpack(ingest, chain, diff_id, path, unpacking)
        unpacked.set()
        tell("Pull complete", None)


async def _then(before: asyncio.Event | None) -> None:
    if before is not None:
        await before.wait()


def _shown_path(wanted: Reference) -> str:
    """Return the name without registry where that is Docker's own: `library/busybox`, `host:5000/app`."""
    return wanted.path if wanted.domain == "docker.io" else wanted.name


def _unsupported(wanted: Reference, media_type: str) -> LogdError:
    if media_type.startswith(SCHEMA_1):
        return Unsupported(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest"
            f" the author of {wanted} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2."
        )
    return InvalidParameter(f"{wanted.familiar} is of media type {media_type!r}, which is no image")


def _in_dockers_words(wanted: Reference, error: LogdError) -> LogdError:
    if isinstance(error, NotFound) and "manifest unknown" in str(error):
        return NotFound(f"manifest for {wanted.familiar} not found: {error}")
    if isinstance(error, NotFound) and "no matching manifest" in str(error):
        return error
    what = "repository does not exist or may require 'docker login'"
    return NotFound(f"pull access denied for {wanted.familiar_name}, {what}: {error}")
