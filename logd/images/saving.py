"""`docker save`: an archive that is both an OCI image layout and what `docker load` has read since version 1.10.

An image that came from a registry or a layout goes out as it came, its manifest and compressed layers byte for byte;
of any other, each layer is the plain tar that its diff id names, and the manifest is made anew.

Source: OCI image-spec image-layout.md; Docker's image spec v1.2, manifest.json; dockerd 27's choice of names.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from logd import references
from logd.errors import LogdError, NotFound
from logd.images import worker
from logd.images.blobs import digest_of
from logd.images.catalog import LayerRecord
from logd.images.image import Image
from logd.images.layers import Ingest
from logd.images.manifests import MANIFEST_TYPES, Descriptor
from logd.images.packer import Entry
from logd.images.store import ImageStore
from logd.references import Reference

CHUNK: Final = 256 << 10
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"


class Chosen(NamedTuple):
    """An image, and under which of its tags it is saved."""

    image: Image
    tags: list[Reference]


def choose(store: ImageStore, names: Sequence[str]) -> list[Chosen]:
    """Return the images that `names` mean: an id has no tags, a repository has all of its tags. Raises NotFound."""
    found: dict[str, Chosen] = {}
    for name in names:
        for image, tag in _meant(store, name):
            chosen = found.setdefault(image.id, Chosen(image, []))
            if tag is not None and tag not in chosen.tags:
                chosen.tags.append(tag)
    return list(found.values())


def _meant(store: ImageStore, name: str) -> list[tuple[Image, Reference | None]]:
    if references.digest_of(name) is None:
        reference = references.parse(name)
        if not reference.tag and not reference.digest:
            tagged = [(image, tag) for image in store.list() for tag in image.names if tag.name == reference.name]
            if found := [(image, tag) for image, tag in tagged if tag.tag]:
                return [*found]
        image = store.resolve(name)
        return [(image, reference if reference.tag and reference in image.names else None)]
    return [(store.resolve(name), None)]


@contextlib.asynccontextmanager
async def saved(store: ImageStore, chosen: Sequence[Chosen]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the archive of the images, chunk by chunk; their layers are held for so long. Raises LogdError."""
    async with store.ingest() as ingest:
        entries = await asyncio.to_thread(_entries, store, ingest, chosen)
        async with _packed(entries) as chunks:
            yield chunks


@contextlib.asynccontextmanager
async def _packed(entries: Sequence[Entry]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give what the packing process writes; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *worker.command("logd.images.packer"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=worker.ENVIRONMENT,
        cwd="/",
        limit=CHUNK,
    )
    try:
        await worker.feed(process, _once(msgspec.json.encode(entries)))
        yield _chunks(process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _chunks(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    while chunk := await process.stdout.read(CHUNK):
        yield chunk
    errors = (await process.stderr.read()).decode(errors="replace").strip()
    if await process.wait():
        raise LogdError(f"the archive can't be written: {errors.rpartition(chr(10))[2] or 'its process ended'}")


def _entries(store: ImageStore, ingest: Ingest, chosen: Sequence[Chosen]) -> list[Entry]:
    """Return the files of the archive, each once."""
    files: dict[str, Entry] = {}
    descriptors: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for image, tags in chosen:
        layers = store.hold_layers(ingest, image)
        config, original = _blob(image.raw), store.original_manifest(image)
        if original is not None:
            parts = [config, *(_original(store, ingest, blob) for blob in original.layers)]
            data, media_type = original.data, original.media_type
        else:
            parts = [config, *(_plain(store, ingest, record) for record in layers)]
            data, media_type = _manifest(image, config, parts[1:]), MANIFEST_TYPES[0]
        manifest = _blob(data)
        files |= {part.name: part for part in (*parts, manifest)}
        items.append(
            {
                "Config": parts[0].name,
                "RepoTags": [tag.familiar for tag in tags] or None,
                "Layers": [part.name for part in parts[1:]],
            }
        )
        about = {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
        descriptors += [about | {"annotations": _annotations(tag)} for tag in tags] or [about]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": descriptors,
    }
    documents = {"index.json": index, "manifest.json": items, "oci-layout": {"imageLayoutVersion": "1.0.0"}}
    return [*files.values(), *(Entry(name, data=orjson.dumps(found).decode()) for name, found in documents.items())]


def _annotations(tag: Reference) -> dict[str, str]:
    return {"io.containerd.image.name": str(tag), "org.opencontainers.image.ref.name": tag.tag}


def _name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _blob(data: bytes) -> Entry:
    return Entry(_name(digest_of(data)), data=data.decode(), size=len(data))


def _original(store: ImageStore, ingest: Ingest, blob: Descriptor) -> Entry:
    return Entry(_name(blob.digest), path=_held(store, ingest, blob.digest), size=blob.size)


def _plain(store: ImageStore, ingest: Ingest, record: LayerRecord) -> Entry:
    path = _held(store, ingest, record.kept.digest)
    return Entry(_name(record.diff_id), path=path, size=record.tar, unpacked=True)


def _held(store: ImageStore, ingest: Ingest, digest: str) -> str:
    path = store.hold_blob(ingest, digest)
    if path is None:
        raise NotFound(f"No such blob: {digest}")
    return str(path)


def _manifest(image: Image, config: Entry, layers: Sequence[Entry]) -> bytes:
    """Return a manifest of plain tars."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPES[0],
        "config": {"mediaType": CONFIG_TYPE, "digest": image.id, "size": config.size},
        "layers": [
            {"mediaType": LAYER_TYPE, "digest": f"sha256:{layer.name.rpartition('/')[2]}", "size": layer.size}
            for layer in layers
        ],
    }
    return orjson.dumps(manifest)
