"""An image's config: the JSON document whose digest is the image's id.

Source: OCI image-spec config.md; Docker's image spec v1.2 adds Healthcheck, OnBuild, Shell and the like. Names are read
in the case that both write; null is as good as absent.
"""

import platform as machine
import time
from typing import Any, Final

import msgspec
import orjson

from logd import references, units
from logd.errors import InvalidParameter
from logd.images.blobs import chain_id_on
from logd.spec import ContainerSpec, convert

MAX_LAYERS: Final = 125
"""Docker's bound; overlayfs takes 500 lower directories, and mount(2) a page of options."""
ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
"""uname -m → Go's name, as OCI writes it."""


class RootFS(msgspec.Struct, frozen=True):
    """The layers, lowest first, by the digests of their tars."""

    type: str = "layers"
    diff_ids: list[str] | None = None


class History(msgspec.Struct, frozen=True):
    """How a layer came to be; an empty layer only changed the config."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None

    @property
    def created_s(self) -> int:
        """Unix seconds, 0 where it is not said."""
        return units.parse_rfc3339(self.created) // units.NS if self.created else 0


class Document(msgspec.Struct, frozen=True):
    """The whole document, as far as this engine reads it."""

    rootfs: RootFS
    architecture: str | None = None
    variant: str | None = None
    os: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    docker_version: str | None = None
    config: dict[str, Any] | None = None
    history: list[History] | None = None

    @property
    def diff_ids(self) -> list[str]:
        """The layers, lowest first."""
        return self.rootfs.diff_ids or []

    @property
    def created_ns(self) -> int:
        """When the image was made, Unix time in nanoseconds, 0 where it is not said."""
        return units.parse_rfc3339(self.created) if self.created else 0

    def run_config(self) -> ContainerSpec:
        """Return what a container takes from its image."""
        return convert(self.config or {}, ContainerSpec, "image config")


def parse(data: bytes) -> Document:
    """Return the document in `data`, checked. Raises InvalidParameter."""
    try:
        document = msgspec.json.decode(data, type=Document)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"invalid image config: {error}") from error
    if (document.os or "linux") != "linux":
        raise InvalidParameter(f"cannot load {document.os} image on linux")
    if document.rootfs.type != "layers":
        raise InvalidParameter(f"invalid image config: rootfs.type {document.rootfs.type!r} (accepted: layers)")
    if len(document.diff_ids) > MAX_LAYERS:
        raise InvalidParameter(f"max depth exceeded: the image has {len(document.diff_ids)} layers, of {MAX_LAYERS}")
    for diff_id in document.diff_ids:
        if not diff_id.startswith("sha256:") or not references.DIGEST.fullmatch(diff_id):
            raise InvalidParameter(f"invalid image config: diff id {diff_id!r} (accepted: sha256 and 64 hex digits)")
    layers = sum(1 for entry in document.history or [] if not entry.empty_layer)
    if layers > len(document.diff_ids):
        raise InvalidParameter("invalid image config: too many non-empty layers in History section")
    try:
        _ = document.created_ns, [entry.created_s for entry in document.history or []]
    except ValueError as error:
        raise InvalidParameter(f"invalid image config: created: {error}") from error
    document.run_config()
    return document


def chain_ids(diff_ids: list[str]) -> list[str]:
    """Return the id of each layer together with all beneath it."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(chain_id_on(chain[-1] if chain else "", diff_id))
    return chain


def host_architecture() -> str:
    """Return this machine's architecture in Go's name."""
    return ARCHITECTURES.get(machine.machine(), machine.machine())


def parse_platform(text: str) -> tuple[str, str, str]:
    """Return (os, architecture, variant) of `linux/arm64/v8`, `linux` or `arm64`; empty is the host's."""
    parts = text.lower().split("/") if text else []
    if len(parts) > 3 or "" in parts:
        raise InvalidParameter(f"{text!r}: unknown operating system or architecture: invalid argument")
    aliases = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
    known = {*ARCHITECTURES.values(), "ppc64", "mips64le", "mips64", "loong64"}
    if len(parts) == 1:
        parts = [parts[0], host_architecture()] if aliases.get(parts[0], parts[0]) not in known else ["linux", *parts]
    system, architecture, variant = [*parts, "", "", ""][:3] if parts else ["linux", host_architecture(), ""]
    if system != "linux":
        raise InvalidParameter(f'operating system is not supported: "{system}" (supported: linux)')
    architecture = aliases.get(architecture, architecture)
    if architecture == "arm64" and variant in {"8", "v8"}:
        variant = ""
    return system, architecture, variant


def imported(diff_id: str, run_config: dict[str, Any], message: str, system: tuple[str, str, str]) -> bytes:
    """Return the document of an image made of one layer; `system` is (os, architecture, variant)."""
    now = units.format_time_short(time.time_ns())
    document: dict[str, Any] = {
        "architecture": system[1],
        "comment": message,
        "config": run_config,
        "created": now,
        "history": [{"created": now, "comment": message}],
        "os": system[0],
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    if system[2]:
        document["variant"] = system[2]
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def nothing() -> dict[str, Any]:
    """Return the document of what `FROM scratch` begins with."""
    return {"architecture": host_architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


def committed(base: dict[str, Any], diff_id: str | None, run_config: dict[str, Any], step: dict[str, str]) -> bytes:
    """Return the document of an image made of a container; `base` is its image's, `diff_id` the new layer's, if any.

    `step` is the entry in the history: created_by, author, comment.
    """
    now = units.format_time_short(time.time_ns())
    entry = {"created": now} | {key: value for key, value in step.items() if value}
    history = [] if not step["created_by"] and not diff_id else [entry if diff_id else entry | {"empty_layer": True}]
    rootfs = {"type": "layers", "diff_ids": [*(base["rootfs"].get("diff_ids") or []), *([diff_id] if diff_id else [])]}
    inherited = ("architecture", "variant", "os", "os.version", "os.features")
    document = {key: base[key] for key in inherited if key in base} | {
        "author": step["author"],
        "comment": step["comment"],
        "config": run_config,
        "created": now,
        "history": [*(base.get("history") or []), *history],
        "rootfs": rootfs,
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
