"""What a request mounts in its container: `-v`, `--mount`, `--tmpfs` and an image's VOLUMEs.

The plan is made of the request, and of what `--volumes-from` takes over, when a container is created; `mount_table`
makes the OCI mounts of it when the container starts. Source: Docker's "Bind mounts", "Volumes", "tmpfs mounts".
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from logd.errors import InvalidParameter, Unsupported
from logd.mounted import Bind, Mounted, Tmpfs, Volume
from logd.runtime.local_volume import check_options
from logd.runtime.mountinfo import check_propagation
from logd.spec import ContainerSpec, HostConfig, VolumeOptions
from logd.spec import Mount as MountRequest

VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
PROPAGATIONS: Final = frozenset({"shared", "slave", "rshared", "rslave", "private", "rprivate"})
WITHOUT_EFFECT: Final = frozenset({"z", "Z", "cached", "delegated", "consistent", "default"})
TMPFS_DATA: Final = frozenset({"size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol"})
_SWITCHES: Final = ("exec", "suid", "dev", "atime", "diratime", "relatime", "strictatime", "mand")
TMPFS_FLAGS: Final = frozenset(["ro", "rw", "sync", "async", *_SWITCHES, *(f"no{word}" for word in _SWITCHES)])
TMPFS_DEFAULTS: Final = ("noexec", "nosuid", "nodev")


@dataclass(frozen=True)
class MountPlan:
    """All that the request mounts; destinations are clean, absolute and different."""

    entries: tuple[Mounted, ...]

    @property
    def destinations(self) -> frozenset[str]:
        """Where something is mounted."""
        return frozenset(entry.destination for entry in self.entries)

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """Those that need a folder of their own."""
        return tuple(entry for entry in self.entries if isinstance(entry, Volume))


def plan(spec: ContainerSpec, host: HostConfig, inherited: Sequence[Mounted] = ()) -> MountPlan:
    """Read Binds, Mounts, Tmpfs and Volumes; raises InvalidParameter or Unsupported.

    What is `inherited` from other containers gives way to what was asked for at the same place, and a VOLUME to both,
    as in Docker.
    """
    asked: dict[str, Mounted] = {}
    requested: list[Mounted] = [
        *(_parse_bind(text) for text in host.binds),
        *(_parse_mount(request) for request in host.mounts),
        *(Tmpfs(_destination(path), tmpfs_options(options)) for path, options in host.tmpfs.items()),
    ]
    for entry in requested:
        if entry.destination in asked:
            raise InvalidParameter(f"Duplicate mount point: {entry.destination}")
        asked[entry.destination] = entry
    entries = {entry.destination: entry for entry in inherited} | asked
    for path in spec.volumes:
        destination = _destination(path)
        entries.setdefault(destination, Volume(destination, anonymous=True))
    return MountPlan(tuple(entries.values()))


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """Read `CONTAINER[:MODE]`: the container, and whether its volumes become read-only. Raises InvalidParameter."""
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    reference, _, mode = text.partition(":")
    if not set(_mode(mode)) <= {"ro", "rw", "z", "Z"}:
        raise InvalidParameter(f"invalid mode: {mode}")
    if not reference:
        raise InvalidParameter('invalid name or ID supplied: ""')
    return reference, "ro" in mode.split(",")


def inherit(entry: Bind | Volume, *, read_only: bool) -> Bind | Volume:
    """Return what another container that takes over a mount has of it."""
    if isinstance(entry, Volume):
        return replace(entry, read_only=entry.read_only or read_only, copy=False, mode="")
    return replace(entry, read_only=entry.read_only or read_only, mode="")


def check_volume_name(name: str) -> None:
    """Raise InvalidParameter for what can't be a volume's name."""
    if len(name) == 1:
        raise InvalidParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not VOLUME_NAME.fullmatch(name):
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


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
        return Volume(_bind_destination(parts[0], text, "volume"), anonymous=True)
    source, mode = parts[0], parts[2] if len(parts) == 3 else ""
    kind = "bind" if source.startswith("/") else "volume"
    words = _mode(mode)
    destination = _bind_destination(parts[1], text, kind)
    read_only = "ro" in words
    propagation = next(iter(PROPAGATIONS.intersection(words)), "")
    if kind == "bind":
        if "nocopy" in words:
            raise _wrong_bind(text, kind, "field VolumeOptions must not be specified")
        source = os.path.normpath(source)
        return Bind(source, destination, read_only, create_source=True, propagation=propagation, mode=mode)
    if propagation:
        raise _wrong_bind(text, kind, "field BindOptions must not be specified")
    check_volume_name(source)
    return Volume(destination, source, read_only, copy="nocopy" not in words, mode=mode or "z")


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


def _mode(text: str) -> list[str]:
    """Split a mode into its words, of each kind one at most. Raises InvalidParameter."""
    words = text.split(",") if text else []
    kinds = ({"ro", "rw"}, {"z", "Z"}, {"nocopy"}, PROPAGATIONS, WITHOUT_EFFECT - {"z", "Z"})
    found = [len([word for word in words if word in kind]) for kind in kinds]
    if sum(found) != len(words) or max(found) > 1:
        raise InvalidParameter(f"invalid mode: {text}")
    return words


def _parse_mount(request: MountRequest) -> Mounted:
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
        return _volume_mount(request, destination, wrong)
    if request.type == "tmpfs":
        if request.source:
            raise wrong("field Source must not be specified")
        return Tmpfs(destination, _tmpfs_mount_options(request))
    if request.type in {"image", "cluster"}:
        raise Unsupported(f"--mount: type {request.type} is not supported yet (supported: bind, volume, tmpfs)")
    raise wrong("mount type unknown (supported: bind, volume, tmpfs)")


def _bind_mount(request: MountRequest, destination: str, wrong: Callable[[str], InvalidParameter]) -> Bind:
    options = request.bind_options
    if not request.source:
        raise wrong("field Source must not be empty")
    if not request.source.startswith("/"):
        raise wrong(f"invalid mount path: '{request.source}' mount path must be absolute")
    create = bool(options and options.create_mountpoint)
    if not create and not os.path.exists(request.source):
        raise wrong(f"bind source path does not exist: {request.source}")
    if options and options.propagation and options.propagation not in PROPAGATIONS:
        raise wrong(f"invalid propagation mode: {options.propagation}")
    return Bind(
        os.path.normpath(request.source),
        destination,
        request.read_only,
        recursive=not (options and options.non_recursive),
        read_only_recursive=not (options and options.read_only_non_recursive),
        create_source=create,
        propagation=options.propagation if options else "",
    )


def _volume_mount(request: MountRequest, destination: str, wrong: Callable[[str], InvalidParameter]) -> Volume:
    options = request.volume_options or VolumeOptions()
    if request.read_only and not request.source:
        raise wrong("must not set ReadOnly mode when using anonymous volumes")
    if options.subpath and not request.source:
        raise wrong("must not set Subpath when using anonymous volumes")
    if options.subpath.startswith("/") or ".." in options.subpath.split("/"):
        raise wrong("subpath must be a relative path within the volume")
    if "\0" in options.subpath:
        raise wrong("a NUL byte in Subpath")
    if request.source:
        check_volume_name(request.source)
    driver = options.driver_config
    if driver and driver.name not in {"", "local"}:
        raise Unsupported(f"--mount: volume driver {driver.name} is not supported (supported: local)")
    if driver:
        try:
            check_options(driver.options)
        except InvalidParameter as error:
            raise InvalidParameter(f"create {request.source}: {error}") from error
    return Volume(
        destination,
        request.source,
        request.read_only,
        copy=not options.no_copy,
        anonymous=not request.source,
        subpath=options.subpath,
        options=driver.options if driver else {},
        labels=options.labels,
        mode="z",
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


def check_propagations(mount_plan: MountPlan) -> None:
    """Raise LogdError for a propagation for which the source's mount is not made."""
    for entry in mount_plan.entries:
        if isinstance(entry, Bind):
            check_propagation(entry.source, entry.propagation)


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
