"""Manifests and indexes of images: the documents by which registries and archives say what an image consists of.

Source: OCI image-spec descriptor.md, manifest.md, image-index.md; Docker's image manifest v2, schema 2.
"""

from typing import Any, Final, TypeVar

import msgspec

from logd.errors import InvalidParameter
from logd.images.config import parse_platform
from logd.registry.words import printable

INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

S = TypeVar("S", bound=msgspec.Struct)


class Platform(msgspec.Struct, frozen=True):
    """What an image runs on, in Go's names."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Some content: its digest, its size in bytes, and what it is."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def is_image(self) -> bool:
        """False for attestations and the like, which BuildKit files under the platform unknown/unknown."""
        return self.platform is None or self.platform.os != "unknown"


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """One image for several platforms, or the images of an archive."""

    manifests: list[Descriptor]
    schema_version: int = 0
    media_type: str = ""


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image for one platform: its config and its layers, the lowest first."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 0
    media_type: str = ""


class Original(msgspec.Struct, frozen=True):
    """A manifest as it came: its bytes, its media type, and the layers that it names."""

    data: bytes
    media_type: str
    layers: list[Descriptor]


def decode(data: bytes, kind: type[S], what: str) -> S:
    """Return the document in `data`. Raises InvalidParameter, which says `what` is wrong."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"invalid {what}: {error}") from error


def for_platform(descriptors: list[Descriptor], what: str, platform: str = "") -> list[Descriptor]:
    """Return what to take of descriptors that are one image for several platforms, or several without a platform.

    `platform` is os/architecture/variant, the host's where it is empty; a variant that no image has is no hindrance
    unless it was asked for. Raises InvalidParameter if `what` has none that fits.
    """
    images = [descriptor for descriptor in descriptors if descriptor.is_image]
    if any(image.platform is None for image in images) or (len(images) < 2 and not platform):
        return images
    system, architecture, variant = parse_platform(platform)
    fitting = [
        image
        for image in images
        if image.platform and (image.platform.os, image.platform.architecture) == (system, architecture)
    ]
    if variant:
        fitting = [image for image in fitting if image.platform and image.platform.variant == variant]
    if not fitting:
        has = ", ".join(_written(image.platform) for image in images if image.platform)
        wanted = _written(Platform(architecture, system, variant))
        raise InvalidParameter(f"{what} has no image for {wanted} (it has: {has})")
    return fitting


def _written(platform: Platform) -> str:
    return printable("/".join(part for part in (platform.os, platform.architecture, platform.variant) if part))


def read_index(data: bytes, what: str) -> Index:
    """Return the index in `data`. Raises InvalidParameter."""
    index = decode(data, Index, what)
    _check_shape(data, index.schema_version, index.media_type, INDEX_TYPES, what, {"layers", "config", "fsLayers"})
    return index


def read_manifest(data: bytes, descriptor: Descriptor) -> Manifest:
    """Return the manifest in `data`, which `descriptor` told of. Raises InvalidParameter."""
    manifest = decode(data, Manifest, f"manifest {descriptor.digest}")
    what = f"manifest {descriptor.digest}"
    types = (descriptor.media_type,)
    _check_shape(data, manifest.schema_version, manifest.media_type, types, what, {"manifests", "fsLayers"})
    return manifest


def read_original(data: bytes, config_digest: str) -> Original | None:
    """Return the manifest in `data` if it is that of the config, None if it is another one's or an index."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError:
        return None
    media_type = manifest.media_type or MANIFEST_TYPES[0]
    return Original(data, media_type, manifest.layers) if manifest.config.digest == config_digest else None


def _check_shape(
    data: bytes, version: int, media_type: str, accepted: tuple[str, ...], what: str, foreign: set[str]
) -> None:
    """Refuse what could be read as two kinds of document: its readers would disagree on the content."""
    document: dict[str, Any] = msgspec.json.decode(data)
    if version != 2:
        raise InvalidParameter(f"invalid {what}: schemaVersion {version} (accepted: 2)")
    if media_type and media_type not in accepted:
        raise InvalidParameter(f"invalid {what}: it says that it is {media_type!r}")
    if ambiguous := foreign & document.keys():
        raise InvalidParameter(f"invalid {what}: it has {', '.join(sorted(ambiguous))}, which is of another kind")
