"""An image to a registry: its layers, its config, its manifest, each only if the registry lacks it.

An image that came from a registry goes back with the manifest and the blobs that it came with, so that its digest
stays. For any other, layers are compressed once, by gzip, and kept so for the next push.

Messages are Docker's. Source: OCI distribution-spec "Push"; Docker's image manifest v2, schema 2; dockerd 27.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from logd.errors import LogdError, NotFound, Unauthorized, Unsupported
from logd.images.blobs import digest_of
from logd.images.catalog import LayerBlob
from logd.images.image import Image
from logd.images.layers import Ingest
from logd.images.manifests import Descriptor, Original
from logd.images.removal import short
from logd.images.report import Report
from logd.images.store import ImageStore
from logd.references import Reference
from logd.registry.remote import Remote, connected
from logd.registry.settings import Credentials, Settings

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Pushes:
    """Gives images of `store` away; `slots` tells how many layers may go at once."""

    def __init__(self, store: ImageStore, settings: Callable[[], Settings], slots: Callable[[], int]) -> None:
        self._store = store
        self._settings = settings
        self._slots = slots

    def chosen(self, wanted: Reference) -> list[Reference]:
        """Return the names that a push means: the tag, or without one all tags of the repository. Raises NotFound."""
        if wanted.digest:
            raise Unsupported("cannot push a digest reference")
        names = [name for image in self._store.list() for name in image.names if name.tag and name.name == wanted.name]
        if not names:
            raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_name}")
        found = sorted(name for name in names if not wanted.tag or name.tag == wanted.tag)
        if not found:
            raise NotFound(f"tag does not exist: {wanted.familiar}")
        return found

    async def push(self, wanted: Reference, credentials: Credentials, report: Report) -> None:
        """Send what `wanted` means: see `chosen`. Raises LogdError."""
        report.tell(f"The push refers to repository [{wanted.name}]")
        names = self.chosen(wanted)
        images = {name: self._store.resolve(str(name)) for name in names}
        mounts = sorted({one for image in images.values() for one in self._elsewhere(image, wanted)})
        try:
            async with connected(
                *(wanted.domain, wanted.path, self._settings(), credentials),
                actions="pull,push",
                mirrors=False,
                mount_from=mounts,
            ) as remote:
                for name, image in images.items():
                    await self._one(remote, name, image, report)
        except Unauthorized as error:
            raise _denied(wanted, error) from error

    def _elsewhere(self, image: Image, wanted: Reference) -> list[str]:
        """Return other repositories of the same registry that have layers of the image."""
        paths = {
            name.path
            for other in self._store.list()
            if set(other.chain) & set(image.chain)
            for name in other.names
            if name.digest and name.domain == wanted.domain and name.path != wanted.path
        }
        return sorted(paths)[:8]

    async def _one(self, remote: Remote, name: Reference, image: Image, report: Report) -> None:
        async with self._store.ingest() as ingest:
            original = await self._prepared(ingest, image, report)
            await self._layers(remote, ingest, name, image, original.layers, report)
            await self._config(remote, ingest, image)
        data, media_type = original.data.decode(), original.media_type
        digest = (await remote.ask("put", name=name.tag, data=data, media_type=media_type))["digest"]
        await asyncio.to_thread(self._store.note_pushed, image, name._replace(tag="", digest=digest), original.data)
        size = len(original.data)
        report.tell(f"{name.tag}: digest: {digest} size: {size}")
        report.result({"Tag": name.tag, "Digest": digest, "Size": size})

    async def _prepared(self, ingest: Ingest, image: Image, report: Report) -> Original:
        """Return the manifest that goes, with all its layers kept."""
        records = self._store.hold_layers(ingest, image)
        for record in reversed(records):
            report.tell("Preparing", short(record.diff_id), 0)
        original = self._store.original_manifest(image)
        if original is not None:
            return original
        layers = [_descriptor(LAYER_TYPE, await self._store.gzipped(ingest, chain_id)) for chain_id in image.chain]
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "size": len(image.raw), "digest": image.id},
            "layers": [{"mediaType": one.media_type, "size": one.size, "digest": one.digest} for one in layers],
        }
        return Original(orjson.dumps(manifest, option=orjson.OPT_INDENT_2), MANIFEST_TYPE, layers)

    async def _layers(
        self,
        remote: Remote,
        ingest: Ingest,
        name: Reference,
        image: Image,
        layers: Sequence[Descriptor],
        report: Report,
    ) -> None:
        slots = asyncio.Semaphore(self._slots())
        mounts = self._elsewhere(image, name)

        async def send(diff_id: str, layer: Descriptor) -> None:
            ident = short(diff_id)
            path = self._store.hold_blob(ingest, layer.digest)
            async with slots:
                answer = await remote.ask(
                    "upload",
                    digest=layer.digest,
                    size=layer.size,
                    path=str(path),
                    mount_from=mounts[0] if mounts else "",
                    progress=lambda line: report.tell("Pushing", ident, line.get("current"), layer.size),
                )
            if answer.get("there"):
                report.tell("Layer already exists", ident)
            else:
                report.tell(f"Mounted from {answer['mounted']}" if answer.get("mounted") else "Pushed", ident)

        try:
            async with asyncio.TaskGroup() as tasks:
                for diff_id, layer in dict(zip(image.document.diff_ids, layers, strict=True)).items():
                    tasks.create_task(send(diff_id, layer), name="push-layer")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _config(self, remote: Remote, ingest: Ingest, image: Image) -> None:
        path = ingest.new_name()
        await asyncio.to_thread(path.write_bytes, image.raw)
        await remote.ask("upload", digest=digest_of(image.raw), size=len(image.raw), path=str(path), mount_from="")


def _descriptor(media_type: str, blob: LayerBlob) -> Descriptor:
    return Descriptor(blob.digest, blob.size, media_type)


def _denied(wanted: Reference, error: LogdError) -> LogdError:
    return Unauthorized(f"push access denied for {wanted.familiar_name}: {error}")
