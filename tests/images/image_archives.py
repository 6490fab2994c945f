"""Archives for the tests: tars of layers, `docker save` archives of both styles, OCI layouts."""

import functools
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import zstandard

COMPRESS = {
    "plain": lambda data: data,
    "gzip": functools.partial(gzip.compress, mtime=0),
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
}


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    """A header with root's ownership; `fields` are those of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_600_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar(*members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, style: int = tarfile.PAX_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=style) as archive:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def file(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, **fields), data


def folder(name: str, **fields: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str, **fields: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str, target: str, **fields: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.LNKTYPE, linkname=target, **fields)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Picture:
    """An image to be: its layers' tars, lowest first, and its config."""

    layers: list[bytes]
    run: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    created: str = "2024-01-02T03:04:05.123456789Z"
    extra: dict[str, Any] = field(default_factory=dict)
    parent: str = ""
    history: list[dict[str, Any]] | None = None

    @property
    def diff_ids(self) -> list[str]:
        return [f"sha256:{sha256(layer)}" for layer in self.layers]

    @property
    def config(self) -> bytes:
        history = [{"created": self.created, "created_by": f"step {n}"} for n, _ in enumerate(self.layers)]
        document = {
            "architecture": "amd64",
            "os": "linux",
            "created": self.created,
            "config": self.run,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": history if self.history is None else self.history,
        }
        return json.dumps(document | self.extra).encode()

    @property
    def id(self) -> str:
        return f"sha256:{sha256(self.config)}"


def docker_save_old(*pictures: Picture, squeeze: str = "plain") -> bytes:
    """As Docker 1.10 to 24: <id>.json, <layer>/layer.tar, an equal layer as a link to the first."""
    members: list[Any] = []
    manifest, seen = [], {}
    for picture in pictures:
        paths = []
        for number, layer in enumerate(picture.layers):
            base = sha256(f"{picture.id}{number}".encode())
            members += [folder(f"{base}/"), file(f"{base}/VERSION", b"1.0"), file(f"{base}/json", b"{}")]
            if layer in seen:
                members.append(symlink(f"{base}/layer.tar", f"../{seen[layer]}/layer.tar"))
            else:
                members.append(file(f"{base}/layer.tar", COMPRESS[squeeze](layer)))
                seen[layer] = base
            paths.append(f"{base}/layer.tar")
        name = f"{picture.id.removeprefix('sha256:')}.json"
        members.append(file(name, picture.config))
        item = {"Config": name, "RepoTags": picture.tags or None, "Layers": paths}
        manifest.append(item | ({"Parent": picture.parent} if picture.parent else {}))
    members += [file("manifest.json", json.dumps(manifest).encode()), file("repositories", b"{}")]
    return tar(*members)


def layout_members(*pictures: Picture, squeeze: str = "plain", index: dict[str, Any] | None = None) -> dict[str, bytes]:
    """The files of an OCI layout, by name; one manifest for each tag."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    descriptors = []
    media = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}[squeeze]

    def add(data: bytes, kind: str) -> dict[str, Any]:
        files[f"blobs/sha256/{sha256(data)}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{sha256(data)}", "size": len(data)}

    for picture in pictures:
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": add(picture.config, "config.v1+json"),
            "layers": [add(COMPRESS[squeeze](layer), f"layer.v1.tar{media}") for layer in picture.layers],
        }
        descriptor = add(json.dumps(manifest).encode(), "manifest.v1+json")
        descriptors += [descriptor | {"annotations": {"io.containerd.image.name": tag}} for tag in picture.tags]
        if not picture.tags:
            descriptors.append(descriptor)
    whole = {"schemaVersion": 2, "manifests": descriptors}
    files["index.json"] = json.dumps(whole if index is None else index).encode()
    return files


def pack(files: dict[str, bytes]) -> bytes:
    return tar(*(file(name, data) for name, data in files.items()))


def docker_save_new(*pictures: Picture) -> bytes:
    """As Docker 25 and newer: an OCI layout with a manifest.json."""
    files = layout_members(*pictures)
    manifest = [
        {
            "Config": f"blobs/sha256/{sha256(picture.config)}",
            "RepoTags": picture.tags,
            "Layers": [f"blobs/sha256/{sha256(layer)}" for layer in picture.layers],
        }
        for picture in pictures
    ]
    return pack(files | {"manifest.json": json.dumps(manifest).encode()})


async def stream(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Messages(list[dict[str, Any]]):
    """What a load says."""

    async def __call__(self, message: dict[str, Any]) -> None:
        self.append(message)

    @property
    def text(self) -> str:
        return "".join(message.get("stream", "") for message in self)
