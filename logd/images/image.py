"""An image as callers see it, and Docker's JSON for it.

Source: Docker Engine API 1.47, ImageInspect, ImageSummary, the response of /images/{name}/history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from logd import units
from logd.images.config import Document
from logd.references import Reference
from logd.spec import ContainerSpec, to_docker

NO_NAME = "<none>:<none>"
"""What Docker before API 1.43 shows as the name of an image that has none."""
NULLABLE = ("Env", "Cmd", "Entrypoint", "Volumes", "OnBuild", "Labels")
"""What dockerd shows as it was configured where it is empty: null, or [] or {}."""


@dataclass(frozen=True)
class ContainerUse:
    """A container of an image."""

    id: str
    running: bool


@dataclass(frozen=True)
class Image:
    """One image at one moment; sizes are bytes, times Unix nanoseconds (0: unknown)."""

    id: str
    document: Document
    raw: bytes
    names: tuple[Reference, ...]
    chain: tuple[str, ...]
    """The chain ids of its layers, the lowest first."""
    layer_sizes: tuple[int, ...]
    parent: str
    tagged_ns: int

    @property
    def config(self) -> dict[str, Any]:
        """The whole config document, as it was loaded."""
        document: dict[str, Any] = msgspec.json.decode(self.raw)
        return document

    @property
    def runtime_config(self) -> dict[str, Any]:
        """What a container takes from it (Docker's `Config`), as it was loaded."""
        return self.document.config or {}

    @property
    def tags(self) -> list[str]:
        """`busybox:latest`, in the familiar form."""
        return [name.familiar for name in self.names if name.tag]

    @property
    def digests(self) -> list[str]:
        """`busybox@sha256:…`, in the familiar form; the digests are of manifests."""
        return [name.familiar for name in self.names if name.digest]

    @property
    def created(self) -> int:
        """When it was made, Unix time in nanoseconds."""
        return self.document.created_ns

    @property
    def size(self) -> int:
        """Bytes of the files of all layers."""
        return sum(self.layer_sizes)

    @property
    def labels(self) -> dict[str, str] | None:
        """The labels, None where the config has none."""
        labels: dict[str, str] | None = self.runtime_config.get("Labels")
        return labels


def config_for_run(image: Image) -> ContainerSpec:
    """Return Env, Cmd, Entrypoint, User, WorkingDir, Labels, StopSignal, Volumes, ExposedPorts, Healthcheck, typed."""
    return image.document.run_config()


def inspect(image: Image, layer_folders: Sequence[str]) -> dict[str, Any]:
    """Return `docker image inspect`'s object; `layer_folders` are the unpacked layers, the top one first."""
    document = image.document
    config = to_docker(document.run_config())
    config |= {name: image.runtime_config.get(name) for name in NULLABLE if not config[name]}
    comment = document.comment or (document.history[-1].comment if document.history else "") or ""
    result: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.digests,
        "Parent": image.parent,
        "Comment": comment,
        "Created": document.created or units.ZERO_TIME,
        "DockerVersion": document.docker_version or "",
        "Author": document.author or "",
        "Config": config,
        "Architecture": document.architecture or "",
    }
    if document.variant:
        result["Variant"] = document.variant
    result["Os"] = document.os or "linux"
    if document.os_version:
        result["OsVersion"] = document.os_version
    return result | {
        "Size": image.size,
        "GraphDriver": {"Data": _graph_data(layer_folders), "Name": "overlay2"},
        "RootFS": {"Type": "layers"} | ({"Layers": document.diff_ids} if document.diff_ids else {}),
        "Metadata": {"LastTagTime": units.format_time_short(image.tagged_ns or None)},
    }


def _graph_data(layer_folders: Sequence[str]) -> dict[str, str] | None:
    """Return where the layers lie; unlike Docker's overlay2, there is no work directory until a container runs."""
    if not layer_folders:
        return None
    lower = {"LowerDir": ":".join(layer_folders[1:])} if layer_folders[1:] else {}
    return lower | {"UpperDir": layer_folders[0]}


def summary(image: Image, tags: list[str] | None = None, digests: list[str] | None = None) -> dict[str, Any]:
    """Return an item of /images/json; `tags` and `digests` replace the image's where a filter left some out."""
    return {
        "Containers": -1,
        "Created": image.created // units.NS,
        "Id": image.id,
        "Labels": image.labels,
        "ParentId": image.parent,
        "RepoDigests": image.digests if digests is None else digests,
        "RepoTags": image.tags if tags is None else tags,
        "SharedSize": -1,
        "Size": image.size,
    }


def history(image: Image) -> list[dict[str, Any]]:
    """Return the items of `docker history`, the newest first; steps whose image is not known have the id <missing>."""
    sizes = list(image.layer_sizes)
    items: list[dict[str, Any]] = [
        {
            "Comment": entry.comment or "",
            "Created": entry.created_s,
            "CreatedBy": entry.created_by or "",
            "Id": "<missing>",
            "Size": 0 if entry.empty_layer else sizes.pop(0),
            "Tags": None,
        }
        for entry in image.document.history or []
    ]
    items.reverse()
    if items:
        items[0] |= {"Id": image.id, "Tags": image.tags or None}
    return items
