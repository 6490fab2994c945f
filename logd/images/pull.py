"""An image from a registry: index → manifest of the platform → config and layers, unpacked while others still come.

Messages are Docker's, so that its client draws its bars. Source: OCI distribution-spec "Pull"; dockerd 27.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

import msgspec

from logd.errors import Forbidden, InvalidParameter, LogdError, NotFound, Unauthorized, Unsupported
from logd.images import config, manifests
from logd.images.archive import PlannedImage
from logd.images.blobs import digest_of
from logd.images.config import Document
from logd.images.downloads import Downloads, name_of
from logd.images.image import Image
from logd.images.layers import Ingest
from logd.images.manifests import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Manifest
from logd.images.removal import short
from logd.images.report import Report
from logd.images.store import ImageStore
from logd.references import Reference
from logd.registry.remote import Remote, connected
from logd.registry.settings import Credentials, Settings
from logd.registry.words import printable

CONFIG_TYPES: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "",
)
"""The third by Docker before 1.12, the last where there is none. Anything else is an artifact and no image."""
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
        async with self._connected(wanted, credentials) as remote:
            image, new = await self._one(remote, wanted, platform, report)
        report.tell(_status(wanted, new=new))
        return image

    async def pull_all(self, wanted: Reference, credentials: Credentials, platform: str, report: Report) -> list[Image]:
        """Take the images of all tags of a repository, one after the other. Raises LogdError; those before it stay."""
        config.parse_platform(platform)
        images: list[Image] = []
        any_new = False
        async with self._connected(wanted, credentials) as remote:
            with _dockers_words(wanted):
                tags = (await remote.ask("tags"))["tags"]
            for tag in tags:
                image, new = await self._one(remote, wanted._replace(tag=tag), platform, report)
                images.append(image)
                any_new |= new
        report.tell(_status(wanted, new=any_new))
        return images

    async def _one(self, remote: Remote, wanted: Reference, platform: str, report: Report) -> tuple[Image, bool]:
        """Return the image, and whether the name is new to it."""
        image_id, digest, new = await _One(self._store, self._downloads, remote, report).take(wanted, platform)
        report.tell(f"Digest: {digest}")
        return self._store.resolve(image_id), new

    @contextlib.asynccontextmanager
    async def _connected(self, wanted: Reference, credentials: Credentials) -> AsyncIterator[Remote]:
        async with contextlib.AsyncExitStack() as stack:
            opening = connected(wanted.domain, wanted.path, self._settings(), credentials)
            with _dockers_words(wanted):
                remote = await stack.enter_async_context(opening)
            with no_prompt():
                yield remote


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
        self._report.about(f"Pulling from {wanted.path}", wanted.digest or wanted.tag)
        manifest = manifests.read_manifest(documents[-1], descriptor)
        _check(manifest, wanted)
        data = await self._config(manifest.config)
        document = config.parse(data)
        _check_platform(document, wanted, platform)
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
            await self._layers(ingest, manifest.layers, document.diff_ids, is_known=known is not None)
            await asyncio.to_thread(self._store.enter, [planned])
        return planned.id, top, new

    async def _manifest(self, wanted: Reference, platform: str) -> tuple[list[bytes], Descriptor]:
        """Return the documents from what the name means to the manifest, and the manifest's descriptor."""
        documents: list[bytes] = []
        name, size = wanted.digest or wanted.tag, -1
        for _ in range(MAX_DEPTH):
            with _dockers_words(wanted):
                answer = await self._remote.ask("manifest", wanted=name)
            data, media_type, digest = answer["data"].encode(), answer["media_type"], answer["digest"]
            if size not in {-1, len(data)}:
                raise InvalidParameter(
                    f"manifest verification failed for digest {name}: it has {len(data)} bytes, and {size} were"
                    " announced"
                )
            documents.append(data)
            if media_type in INDEX_TYPES:
                index = manifests.read_index(data, digest)
                chosen = _chosen(index.manifests, wanted, platform)
                name_of(chosen.digest)
                name, size = chosen.digest, chosen.size
                continue
            if media_type in MANIFEST_TYPES:
                return documents, Descriptor(digest, len(data), media_type)
            raise _unsupported(wanted, media_type, data)
        raise InvalidParameter(f"{wanted.familiar} is an index of indexes of indexes")

    async def _config(self, wanted: Descriptor) -> bytes:
        """Return a config, which may be there already."""
        known = self._store.by_id(wanted.digest)
        if known is not None:
            return known.raw
        return await self._downloads.small(self._remote, wanted)

    async def _layers(
        self, ingest: Ingest, wanted: Sequence[Descriptor], diff_ids: list[str], *, is_known: bool
    ) -> None:
        """Have all layers: they come side by side, and are unpacked from the lowest to the top one."""
        chain = config.chain_ids(diff_ids)
        there = [self._store.lease(ingest, chain_id) for chain_id in chain]
        if is_known and all(there):
            return
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
        except ExceptionGroup as errors:
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
            await self._store.unpack(ingest, chain, diff_id, kept, unpacking, digest=wanted.digest)
        else:
            async with self._downloads.blob(self._remote, wanted, tell) as path:
                await _then(before)
                await self._store.unpack(ingest, chain, diff_id, path, unpacking, digest=wanted.digest)
        unpacked.set()
        tell("Pull complete", None)


async def _then(before: asyncio.Event | None) -> None:
    if before is not None:
        await before.wait()


def _status(wanted: Reference, *, new: bool) -> str:
    return f"Status: {'Downloaded newer image' if new else 'Image is up to date'} for {wanted.familiar}"


def _check(manifest: Manifest, wanted: Reference) -> None:
    """Refuse what is no image, and descriptors that can't be right. Raises InvalidParameter."""
    if manifest.config.media_type not in CONFIG_TYPES:
        kind = printable(manifest.config.media_type)
        raise InvalidParameter(f"{wanted.familiar} is no image: unsupported media type {kind} of its config")
    for one in (manifest.config, *manifest.layers):
        name_of(one.digest)
        if one.size < 0:
            raise InvalidParameter(f"invalid manifest: {one.digest} has a size of {one.size} bytes")


def _check_platform(document: Document, wanted: Reference, platform: str) -> None:
    """Refuse an image of another platform than was asked for, whose index did not tell. Raises NotFound."""
    if not platform:
        return
    asked = config.parse_platform(platform)
    actual = (document.os or "linux", document.architecture or "", document.variant or "")
    if asked[:2] != actual[:2] or (asked[2] and actual[2] and asked[2] != actual[2]):
        raise NotFound(
            f"image with reference {wanted.familiar} was found but does not match the specified platform: wanted"
            f" {_written(asked)}, actual: {_written(actual)}"
        )


def _chosen(found: list[Descriptor], wanted: Reference, platform: str) -> Descriptor:
    """Return the manifest of the platform. Raises NotFound."""
    asked = _written(config.parse_platform(platform))
    try:
        chosen = manifests.for_platform(found, wanted.familiar, asked)
    except InvalidParameter as error:
        raise NotFound(f"no matching manifest for {asked} in the manifest list entries: {error}") from error
    if not chosen:
        raise NotFound(f"no matching manifest in the manifest list entries: {wanted.familiar} has no image")
    return chosen[0]


def _written(platform: Sequence[str]) -> str:
    return printable("/".join(part for part in platform if part))


def _unsupported(wanted: Reference, media_type: str, data: bytes) -> LogdError:
    if media_type.startswith(SCHEMA_1) or _schema_of(data) == 1:
        return Unsupported(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest"
            f" the author of {wanted} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2."
        )
    return InvalidParameter(f"{wanted.familiar} is of media type {media_type!r}, which is no image")


class _Schema(msgspec.Struct, rename="camel"):
    schema_version: int = 0


def _schema_of(data: bytes) -> int:
    try:
        return msgspec.json.decode(data, type=_Schema).schema_version
    except msgspec.DecodeError:
        return 0


@contextlib.contextmanager
def no_prompt() -> Iterator[None]:
    """Have a registry's 401 be a failure of ours, as in dockerd: at a 401 Docker's client asks for a password."""
    try:
        yield
    except Unauthorized as error:
        raise LogdError(str(error)) from error


@contextlib.contextmanager
def _dockers_words(wanted: Reference) -> Iterator[None]:
    """Have the registry's refusals told as Docker does."""
    try:
        yield
    except (Forbidden, NotFound) as error:
        code = str(error).partition(":")[0]
        if code == "denied":
            what = "repository does not exist or may require 'docker login'"
            raise NotFound(f"pull access denied for {wanted.familiar_name}, {what}: {error}") from error
        if code == "manifest unknown":
            raise NotFound(f"manifest for {wanted.familiar} not found: {error}") from error
        if code == "name unknown":
            raise NotFound(f"repository {wanted.familiar_name} not found: {error}") from error
        raise
