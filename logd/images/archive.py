"""What an archive of images holds: `docker save` (any that has a manifest.json) or an OCI image layout.

Its files were put into a folder under numbers (logd.images.unpack); here names are keys of a dict, never paths. An
archive that is both, as `docker save` writes since version 25, is read by its manifest.json.

Source: Docker's image spec v1.2, "Combined Image JSON + Filesystem Changeset Format"; OCI image-spec image-layout.md,
manifest.md, image-index.md.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from logd import references
from logd.errors import InvalidParameter
from logd.images.blobs import MAX_BLOB, digest_of
from logd.images.config import Document, parse
from logd.images.manifests import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    decode,
    for_platform,
    read_index,
    read_manifest,
)
from logd.references import Reference

MAX_LINKS: Final = 8
"""Links that are followed from one file of the archive to another."""
NAME_ANNOTATIONS: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
"""The first is a whole reference; the second may be one, or only a tag."""


class _Item(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None
    parent: str | None = None


class _Layout(msgspec.Struct, frozen=True, rename="camel"):
    image_layout_version: str


@dataclass(frozen=True)
class PlannedImage:
    """An image to be: its config, and which file holds the tar, perhaps compressed, of which layer.

    `manifests` are the documents that told of it: its manifest, and the index that it was chosen from.
    """

    config: bytes
    document: Document
    layers: list[Path]
    names: list[Reference]
    digests: list[Reference] = field(default_factory=list)
    manifests: list[bytes] = field(default_factory=list)
    parent: str = ""

    @property
    def id(self) -> str:
        """The config's digest."""
        return digest_of(self.config)


def read(folder: Path, files: Mapping[str, int], links: Mapping[str, str]) -> list[PlannedImage]:
    """Return the images of an archive. Raises InvalidParameter."""
    archive = _Archive(folder, files, links)
    if archive.has("manifest.json"):
        return _read_docker(archive)
    if archive.has("index.json"):
        return _read_layout(archive)
    if archive.has("repositories"):
        raise InvalidParameter("the archive is of Docker before 1.10 (no manifest.json), which is not supported")
    raise InvalidParameter(
        "the archive is neither of `docker save` nor an OCI image layout: it has no manifest.json and no index.json"
        " (a root file system is loaded by `docker import`)"
    )


class _Archive:
    """Files by the names that the archive gave them."""

    def __init__(self, folder: Path, files: Mapping[str, int], links: Mapping[str, str]) -> None:
        self._folder = folder
        self._files = files
        self._links = links

    def has(self, name: str) -> bool:
        return name in self._files or name in self._links

    def path(self, name: str) -> Path:
        """Return the file that has the content of `name`."""
        wanted = name
        for _ in range(MAX_LINKS):
            wanted = posixpath.normpath(wanted)
            if wanted in self._files:
                return self._folder / str(self._files[wanted])
            if wanted not in self._links:
                raise InvalidParameter(f"the archive has no file {name!r}, which its manifest names")
            wanted = self._links[wanted]
        raise InvalidParameter(f"the archive's file {name!r} is a link to a link to …")

    def read(self, name: str) -> bytes:
        """Return the content of a small file; one that is named after its digest has to have it."""
        with self.path(name).open("rb") as file:
            data = file.read(MAX_BLOB + 1)
        if len(data) > MAX_BLOB:
            raise InvalidParameter(f"{name!r} is longer than {MAX_BLOB} bytes")
        stem = posixpath.basename(name).removesuffix(".json")
        if references.IDENTIFIER.fullmatch(stem) and digest_of(data) != f"sha256:{stem}":
            raise InvalidParameter(f"{name!r} is damaged: its digest is {digest_of(data)}")
        return data

    def blob(self, descriptor: Descriptor) -> Path:
        """Return the file of a blob (its digest was verified when it was read from the archive)."""
        if not descriptor.digest.startswith("sha256:") or not references.DIGEST.fullmatch(descriptor.digest):
            raise InvalidParameter(f"digest {descriptor.digest!r} is not supported (supported: sha256)")
        path = self.path(f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}")
        if path.stat().st_size != descriptor.size:
            raise InvalidParameter(
                f"blob {descriptor.digest} has {path.stat().st_size} bytes, its descriptor says {descriptor.size}"
            )
        return path

    def read_blob(self, descriptor: Descriptor) -> bytes:
        self.blob(descriptor)
        return self.read(f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}")


def _read_docker(archive: _Archive) -> list[PlannedImage]:
    try:
        items = msgspec.json.decode(archive.read("manifest.json"), type=list[_Item])
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"invalid manifest.json: {error}") from error
    images = []
    for item in items:
        data = archive.read(item.config)
        document = parse(data)
        layers = item.layers or []
        if len(layers) != len(document.diff_ids):
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {len(layers)}, got {len(document.diff_ids)}"
            )
        names = [_tagged(text) for text in item.repo_tags or []]
        paths = [archive.path(name) for name in layers]
        images.append(PlannedImage(data, document, paths, names, parent=item.parent or ""))
    return images


def _tagged(text: str) -> Reference:
    reference = references.parse(text)
    if not reference.tag or reference.digest:
        raise InvalidParameter(f'invalid tag "{text}"')
    return reference


def _read_layout(archive: _Archive) -> list[PlannedImage]:
    layout = decode(archive.read("oci-layout"), _Layout, "oci-layout") if archive.has("oci-layout") else None
    if layout is None or layout.image_layout_version != "1.0.0":
        raise InvalidParameter("invalid OCI image layout: oci-layout has to say imageLayoutVersion 1.0.0")
    groups: dict[str, list[Descriptor]] = {}
    for descriptor in read_index(archive.read("index.json"), "index.json").manifests:
        groups.setdefault(_name_of(descriptor), []).append(descriptor)
    images: dict[str, PlannedImage] = {}
    for name, descriptors in groups.items():
        for descriptor in for_platform(descriptors, "index.json"):
            image = _image(archive, descriptor, name)
            earlier = images.get(image.id)
            if earlier is not None:
                earlier.names.extend(image.names)
                earlier.digests.extend(image.digests)
            else:
                images[image.id] = image
    return list(images.values())


def _name_of(descriptor: Descriptor) -> str:
    """Return the reference that a descriptor carries, "" for none: a bare word is a tag without a name."""
    annotations = descriptor.annotations or {}
    whole, short = (annotations.get(key, "") for key in NAME_ANNOTATIONS)
    return whole or (short if ":" in short or "/" in short else "")


def _image(archive: _Archive, descriptor: Descriptor, name: str) -> PlannedImage:
    data = archive.read_blob(descriptor)
    if descriptor.media_type in INDEX_TYPES:
        chosen = for_platform(read_index(data, descriptor.digest).manifests, descriptor.digest)
        if len(chosen) != 1:
            raise InvalidParameter(f"index {descriptor.digest} has {len(chosen)} images for this host")
        return _image(archive, chosen[0], name)
    if descriptor.media_type not in MANIFEST_TYPES:
        raise InvalidParameter(
            f"media type {descriptor.media_type!r} of {descriptor.digest} is not supported"
            f" (supported: {', '.join((*MANIFEST_TYPES, *INDEX_TYPES))})"
        )
    manifest = read_manifest(data, descriptor)
    content = archive.read_blob(manifest.config)
    document = parse(content)
    if len(manifest.layers) != len(document.diff_ids):
        raise InvalidParameter(
            f"invalid manifest, layers length mismatch: expected {len(manifest.layers)}, got {len(document.diff_ids)}"
        )
    layers = [archive.blob(layer) for layer in manifest.layers]
    names, digests = [], []
    if name:
        reference = references.parse(name)
        names = [reference.with_default_tag()._replace(digest="")] if reference.tag or not reference.digest else []
        digests = [reference._replace(tag="", digest=descriptor.digest)]
    return PlannedImage(content, document, layers, names, digests, manifests=[data])
