"""What a request mounts in its container: `-v`, `--mount`, `--tmpfs` and an image's VOLUMEs.

The plan is made of the request alone, so that it is checked when a container is created; `mount_table` makes the OCI
mounts of it when the container starts. Source: Docker's "Bind mounts", "Volumes", "tmpfs mounts".
"""

import os
import re
from dataclasses import dataclass
from typing import Any, Final

from logd.errors import InvalidParameter, Unsupported
from logd.spec import ContainerSpec, HostConfig
from logd.spec import Mount as MountRequest

VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
PRIVATE: Final = frozenset({"", "private", "rprivate"})
PROPAGATIONS: Final = frozenset({"shared", "slave", "rshared", "rslave", "private", "rprivate"})
WITHOUT_EFFECT: Final = frozenset({"z", "Z", "cached", "delegated", "consistent", "default"})
TMPFS_DATA: Final = frozenset({"size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol"})
_SWITCHES: Final = ("exec", "suid", "dev", "atime", "diratime", "relatime", "strictatime", "mand")
TMPFS_FLAGS: Final = frozenset(["ro", "rw", "sync", "async", *_SWITCHES, *(f"no{word}" for word in _SWITCHES)])
TMPFS_DEFAULTS: Final = ("noexec", "nosuid", "nodev")


@dataclass(frozen=True)
class Bind:
    """A file or folder of the host."""

    source: str
    destination: str
    read_only: bool = False
    recursive: bool = True
    read_only_recursive: bool = True
    create_source: bool = False


@dataclass(frozen=True)
class Volume:
    """A volume; an anonymous one has no name. `copy`: it starts with what the image has at the destination."""

    destination: str
    name: str = ""
    read_only: bool = False
    copy: bool = True


@dataclass(frozen=True)
class Tmpfs:
    """A tmpfs with mount(8) options."""

    destination: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class MountPlan:
    """All that the request mounts; destinations are clean, absolute and different."""

    entries: tuple[Bind | Volume | Tmpfs, ...]

    @property
    def destinations(self) -> frozenset[str]:
        """Where something is mounted."""
        return frozenset(entry.destination for entry in self.entries)

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """Those that need a folder of their own."""
        return tuple(entry for entry in self.entries if isinstance(entry, Volume))


def plan(spec: ContainerSpec, host: HostConfig) -> MountPlan:
    """Read Binds, Mounts, Tmpfs and Volumes; raises InvalidParameter or Unsupported.

    A VOLUME at a place where something else is mounted gives way, as in Docker.
    """
    entries: dict[str, Bind | Volume | Tmpfs] = {}
    requested: list[Bind | Volume | Tmpfs] = [
        *(_parse_bind(text) for text in host.binds),
        *(_parse_mount(request) for request in host.mounts),
        *(Tmpfs(_destination(path), tmpfs_options(options)) for path, options in host.tmpfs.items()),
    ]
    for entry in requested:
        if entry.destination in entries:
            raise InvalidParameter(f"Duplicate mount point: {entry.destination}")
        entries[entry.destination] = entry
    for path in spec.volumes:
        destination = _destination(path)
        entries.setdefault(destination, Volume(destination))
    return MountPlan(tuple(entries.values()))


def _destination(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")
    clean = os.path.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")
    if "\0" in clean:
        raise InvalidParameter(f"invalid mount path: {path!r} contains a NUL")
    return clean


def _parse_bind(text: str) -> Bind | Volume:
    """`SOURCE:DESTINATION[:MODE]`, or `DESTINATION` for an anonymous volume."""
    parts = text.split(":")
    if not all(parts) or len(parts) > 3 or (len(parts) == 2 and _is_mode(parts[1])):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return Volume(_bind_destination(parts[0], text, "volume"))
    source = parts[0]
    kind = "bind" if source.startswith("/") else "volume"
    words = _mode(parts[2] if len(parts) == 3 else "")
    destination = _bind_destination(parts[1], text, kind)
    read_only = "ro" in words
    if kind == "bind":
        if "nocopy" in words:
            raise _wrong_bind(text, kind, "field VolumeOptions must not be specified")
        return Bind(os.path.normpath(source), destination, read_only, create_source=True)
    return _named_volume(Volume(destination, source, read_only, copy="nocopy" not in words))


def _bind_destination(path: str, text: str, kind: str) -> str:
    try:
        return _destination(path)
    except InvalidParameter as error:
        raise _wrong_bind(text, kind, str(error)) from error


def _wrong_bind(text: str, kind: str, reason: str) -> InvalidParameter:
    return InvalidParameter(
        f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {reason}"
    )


def _is_mode(text: str) -> bool:
    """Say whether it is a mode: `/place:ro` is none of an anonymous volume, and no destination either."""
    return set(text.split(",")) <= PROPAGATIONS | WITHOUT_EFFECT | {"ro", "rw", "nocopy"}


def _mode(text: str) -> set[str]:
    words = text.split(",") if text else []
    for word in words:
        if word in PROPAGATIONS:
            _check_propagation(word)
        elif word not in WITHOUT_EFFECT | {"ro", "rw", "nocopy"}:
            raise InvalidParameter(f"invalid mode: {text}")
    if len(words) != len(set(words)) or {"ro", "rw"} <= set(words):
        raise InvalidParameter(f"invalid mode: {text}")
    return set(words)


def _check_propagation(word: str) -> None:
    if word not in PRIVATE:
        raise Unsupported(f"bind propagation {word} is not supported yet (rprivate is)")


def _named_volume(volume: Volume) -> Volume:
    if not VOLUME_NAME.fullmatch(volume.name):
        raise InvalidParameter(
            f'create {volume.name}: "{volume.name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    raise Unsupported(f"named volumes are not supported yet: {volume.name} (use a host path, or an anonymous volume)")


def _parse_mount(request: MountRequest) -> Bind | Volume | Tmpfs:
    def wrong(reason: str) -> InvalidParameter:
        return InvalidParameter(f'invalid mount config for type "{request.type}": {reason}')

    if not request.target:
        raise wrong("field Target must not be empty")
    destination = _destination(request.target)
    others = {"bind": request.bind_options, "volume": request.volume_options, "tmpfs": request.tmpfs_options}
    for name, options in others.items():
        if options is not None and name != request.type:
            raise wrong(f"field {name.capitalize()}Options must not be specified")
    if request.type == "bind":
        return _bind_mount(request, destination, wrong)
    if request.type == "volume":
        options = request.volume_options
        if options and (options.subpath or (options.driver_config and options.driver_config.name not in {"", "local"})):
            raise Unsupported("--mount: volume-subpath and volume drivers are not supported yet")
        if options and options.driver_config and options.driver_config.options:
            raise Unsupported("--mount: volume-opt is not supported yet")
        volume = Volume(destination, request.source, request.read_only, copy=not (options and options.no_copy))
        return _named_volume(volume) if volume.name else volume
    if request.type == "tmpfs":
        if request.source:
            raise wrong("field Source must not be specified")
        return Tmpfs(destination, _tmpfs_mount_options(request))
    if request.type in {"image", "cluster"}:
        raise Unsupported(f"--mount: type {request.type} is not supported yet (supported: bind, volume, tmpfs)")
    raise wrong("mount type unknown (supported: bind, volume, tmpfs)")


def _bind_mount(request: MountRequest, destination: str, wrong: Any) -> Bind:
    options = request.bind_options
    if not request.source:
        raise wrong("field Source must not be empty")
    if not request.source.startswith("/"):
        raise wrong(f"invalid mount path: '{request.source}' mount path must be absolute")
    create = bool(options and options.create_mountpoint)
    if not create and not os.path.exists(request.source):
        raise wrong(f"bind source path does not exist: {request.source}")
    if options:
        if options.propagation and options.propagation not in PROPAGATIONS:
            raise wrong(f"invalid propagation mode: {options.propagation}")
        _check_propagation(options.propagation)
    return Bind(
        os.path.normpath(request.source),
        destination,
        request.read_only,
        recursive=not (options and options.non_recursive),
        read_only_recursive=not (options and options.read_only_non_recursive),
        create_source=create,
    )


def tmpfs_options(text: str) -> tuple[str, ...]:
    """Check `--tmpfs` options; later ones win over Docker's defaults (noexec, nosuid, nodev)."""
    options = [*TMPFS_DEFAULTS, *(word for word in text.split(",") if word)]
    for option in options:
        key, has_value, value = option.partition("=")
        if not (key in TMPFS_DATA and value if has_value else option in TMPFS_FLAGS):
            raise InvalidParameter(
                "invalid tmpfs option [" + " ".join(f'"{word}"' for word in option.split("=", 1)) + "]"
            )
    return tuple(options)


def _tmpfs_mount_options(request: MountRequest) -> tuple[str, ...]:
    words = ["ro"] if request.read_only else []
    options = request.tmpfs_options
    if options:
        if options.size_bytes < 0 or options.mode < 0 or options.mode > 0o7777:
            raise InvalidParameter('invalid mount config for type "tmpfs": size and mode must not be out of range')
        words += [f"mode={options.mode:o}"] if options.mode else []
        words += [f"size={options.size_bytes}"] if options.size_bytes else []
        words += ["=".join(pair) for pair in options.options]
    return tmpfs_options(",".join(words))


def create_bind_sources(mount_plan: MountPlan) -> None:
    """Make the missing source folders of `-v` (root, 0755), as Docker does; raises InvalidParameter."""
    for entry in mount_plan.entries:
        if not isinstance(entry, Bind) or os.path.lexists(entry.source):
            continue
        if not entry.create_source:
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: {entry.source}'
            )
        try:
            os.makedirs(entry.source, 0o755, exist_ok=True)
        except OSError as error:
            raise InvalidParameter(
                f"error while creating mount source path '{entry.source}': {error.strerror}"
            ) from error
