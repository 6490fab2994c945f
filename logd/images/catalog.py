"""What the store holds: images, layers and names, in memory and in one file that is replaced atomically.

<root>/index.json is the whole truth; a folder or blob that it does not name is garbage of a crash and is removed when
the store is opened. An image that was removed by force while a container needs it is "detached": without names,
in no list, but its layers stay.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from logd import references
from logd.errors import LogdError
from logd.images.blobs import write_atomically
from logd.references import Reference

VERSION: Final = 1
"""Of index.json."""


class ImageRecord(msgspec.Struct):
    """An image by the chain ids of its layers, the lowest first."""

    chain: list[str]
    parent: str = ""
    manifests: list[str] = []
    tagged_ns: int = 0
    step: str = ""
    """What a build made of the parent to get it, as a digest of all that goes into it."""


class LayerBlob(msgspec.Struct):
    """A layer's tar as it is kept: `compression` is gzip or zstd, `size` the bytes of the blob."""

    digest: str
    size: int
    compression: str


class LayerRecord(msgspec.Struct):
    """An unpacked layer: `folder` is its name below l/, `size` the bytes of its files, `tar` those of its tar.

    `blobs` all decompress to that tar; layers of an index from before there were blobs have none.
    """

    diff_id: str
    parent: str
    size: int
    folder: str
    tar: int = 0
    blobs: list[LayerBlob] = []

    @property
    def kept(self) -> LayerBlob:
        """One of the blobs. Raises LogdError."""
        if not self.blobs:
            raise LogdError(f"layer {self.diff_id} was stored without its tar: remove the image and get it again")
        return self.blobs[0]


class _Index(msgspec.Struct):
    """index.json."""

    version: int = VERSION
    images: dict[str, ImageRecord] = {}
    detached: dict[str, ImageRecord] = {}
    layers: dict[str, LayerRecord] = {}
    references: dict[str, str] = {}


class _Version(msgspec.Struct):
    version: int


class Catalog:
    """The index in memory. Every method may be called from any thread; hold `lock` over several that belong together.

    Changes are durable after `save`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lock = threading.RLock()
        self._saving = threading.Lock()
        index = _load(path)
        self.images = index.images
        self.detached = index.detached
        self.layers = index.layers
        self.names = {references.parse(text): image_id for text, image_id in index.references.items()}
        self._leases: Counter[str] = Counter()

    def save(self) -> None:
        """Write the index. Raises OSError; then nothing on the disk has changed.

        To be called without `lock`: lookups go on while the disk is slow.
        """
        with self._saving:
            with self.lock:
                names = {str(name): image_id for name, image_id in sorted(self.names.items())}
                index = _Index(VERSION, self.images, self.detached, self.layers, names)
                data = msgspec.json.encode(index)
            write_atomically(self._path, msgspec.json.format(data, indent=1))

    def find(self, text: str) -> str | None:
        """Return the id of the image that `text` (name, name@digest, id, the beginning of an id) means, or None.

        Raises InvalidParameter if it can't be a reference.
        """
        with self.lock:
            digest = references.digest_of(text)
            if digest is not None:
                return digest if digest in self.images else None
            reference = references.parse(text)
            found = self.names.get(reference.as_key())
            if found is not None:
                return found
            prefix = text.removeprefix("sha256:")
            fitting = [image_id for image_id in self.images if image_id.removeprefix("sha256:").startswith(prefix)]
            return fitting[0] if prefix and len(fitting) == 1 else None

    def names_of(self, image_id: str) -> list[Reference]:
        """Return all names of an image, sorted."""
        with self.lock:
            return sorted(name for name, named in self.names.items() if named == image_id)

    def children(self, image_id: str) -> list[str]:
        """Return the images that name this one as their parent."""
        with self.lock:
            return [child for child, record in self.images.items() if record.parent == image_id]

    def size(self, chain: Iterable[str]) -> int:
        """Return the bytes of these layers together."""
        with self.lock:
            return sum(self.layers[chain_id].size for chain_id in chain)

    def lease(self, chain_id: str) -> bool:
        """Keep a layer, image or no image, until `release`; False if there is no such layer."""
        with self.lock:
            if chain_id not in self.layers:
                return False
            self._leases[chain_id] += 1
            return True

    def add_layer(self, chain_id: str, record: LayerRecord) -> None:
        """Enter a layer whose folder is in its place, with a lease."""
        with self.lock:
            self.layers[chain_id] = record
            self._leases[chain_id] += 1

    def release(self, chain_ids: Iterable[str]) -> None:
        """End one lease of each."""
        with self.lock:
            self._leases.subtract(chain_ids)
            self._leases = +self._leases

    def layer_blobs(self) -> set[str]:
        """Return the digests of all blobs of layers."""
        with self.lock:
            return {blob.digest for record in self.layers.values() for blob in record.blobs}

    def drop_unused_layers(self) -> dict[str, LayerRecord]:
        """Forget the layers that no image and no lease holds, and return them, a child before its parent."""
        with self.lock:
            held = {c for records in (self.images, self.detached) for record in records.values() for c in record.chain}
            unused = [chain_id for chain_id in self.layers if chain_id not in held and not self._leases[chain_id]]
            return {chain_id: self.layers.pop(chain_id) for chain_id in reversed(unused)}


def _load(path: Path) -> _Index:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Index()
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version > VERSION:
            raise LogdError(
                f"{path} has version {version}, and this logd reads up to {VERSION}: it was written by a newer"
            )
        return msgspec.json.decode(data, type=_Index)
    except msgspec.DecodeError as error:
        raise LogdError(f"{path} is damaged: {error}") from error
