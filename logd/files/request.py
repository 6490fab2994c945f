"""What the daemon asks of the process that works on a container's files; it goes there as JSON in argv."""

from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["stat", "pack", "extract", "export", "changes", "layer", "copy", "where", "raw"]


@dataclass(frozen=True, kw_only=True)
class MountRequest:
    """What is mounted in the container at `destination`: a file or folder of the host, or the part of a volume."""

    source: str
    destination: str
    read_only: bool = False
    recursive: bool = True
    subpath: str = ""
    is_mapped: bool = False
    """Whether the container sees it with the ids of its user namespace."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a container's root is: mounted on `rootfs` while it runs, else `layers` (the top one first) and `upper`.

    `point` is a folder on which they may be mounted then. `idmap` are the fields of the IdMap of its user namespace.
    """

    rootfs: str
    point: str
    layers: list[str]
    upper: str
    work: str
    mounts: list[MountRequest] = field(default_factory=list)
    idmap: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """How a tar is put into the container."""

    keep_kinds: bool = False
    """Never a file in the place of a directory, nor the other way round."""
    owner: str = ""
    """The user, as in --user, who gets the files; "" for what the tar says."""
    read_only_root: bool = False


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The sources of a COPY, which may be patterns, and where they go.

    `destination` is absolute in the tree `target`; with `into_folder` it is a folder, there or not. `unpacks`: archives
    among them are unpacked, which is not done by the process that copies. `owner` is who gets the files, as in --user,
    by the names of the target; "" for root, or, if `keeps_owners`, whose they are. `ignored` are the patterns of
    .dockerignore.
    """

    target: Place | None = None
    sources: list[str] = field(default_factory=list)
    destination: str = ""
    into_folder: bool = False
    unpacks: bool = False
    owner: str = ""
    keeps_owners: bool = False
    ignored: list[str] = field(default_factory=list)
