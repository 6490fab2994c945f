"""What a container mounts, settled when it is created: names of anonymous volumes, mounts of other containers."""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from logd.container import Container, MountPoint
from logd.engine.volumes import DRIVER, Volumes
from logd.engine.world import World
from logd.errors import InvalidParameter, LogdError, NotFound
from logd.mounted import Bind, Mounted, Volume
from logd.runtime.idmapped import Mapped
from logd.runtime.mountinfo import check_propagation
from logd.runtime.mounts import MountPlan, inherit, parse_volumes_from, plan
from logd.runtime.rootfs import mount_overlay, unmount
from logd.runtime.userns import lent
from logd.spec import HostConfig


def inherited(world: World, host: HostConfig) -> list[Bind | Volume]:
    """Return what `--volumes-from` takes over: volumes and binds. Raises InvalidParameter."""
    entries: dict[str, Bind | Volume] = {}
    for text in host.volumes_from:
        reference, read_only = parse_volumes_from(text)
        try:
            source = world.registry.get(reference)
        except NotFound as error:
            raise InvalidParameter(str(error)) from error  # as dockerd: what is missing is not what was asked for
        if source.removed:
            raise InvalidParameter(f"No such container: {reference}")
        for entry in settled(source).entries:
            if isinstance(entry, Bind | Volume):
                entries[entry.destination] = inherit(entry, read_only=read_only)
    return list(entries.values())


def settle(mounts: MountPlan, data_root: Path) -> MountPlan:
    """Give each anonymous volume a name, and a bind that has our mounts in it a propagation by which it loses them."""
    return MountPlan(tuple(_named(_released(entry, data_root), secrets.token_hex(32)) for entry in mounts.entries))


def settled(container: Container) -> MountPlan:
    """Return what a container mounts; for one that an older logd made, as the request says it."""
    if container.plan is not None:
        return MountPlan(tuple(container.plan))
    names = {mount.destination: mount.name for mount in container.mounts}
    request = plan(container.spec, container.host)
    return MountPlan(tuple(_named(entry, names.get(entry.destination, "")) for entry in request.entries))


def _released(entry: Mounted, data_root: Path) -> Mounted:
    """Return a bind of the data-root, or of something in or around it, as a slave of the host where that can be.

    A private one would keep the roots of all other containers mounted after their end.
    """
    if not isinstance(entry, Bind) or entry.propagation:
        return entry
    if data_root.is_relative_to(entry.source) or Path(entry.source).is_relative_to(data_root):
        with contextlib.suppress(LogdError):
            check_propagation(entry.source, "rslave")
            return replace(entry, propagation="rslave")
    return entry


def _named(entry: Mounted, name: str) -> Mounted:
    return replace(entry, name=name) if isinstance(entry, Volume) and not entry.name else entry


def mount_points(volumes: Volumes, mounts: MountPlan, host: HostConfig) -> list[MountPoint]:
    """Return what inspect shows; `--tmpfs` is not among it, as in Docker."""
    shown_tmpfs = {request.target for request in host.mounts if request.type == "tmpfs"}
    points = []
    for entry in mounts.entries:
        place = entry.destination
        if isinstance(entry, Volume):
            source = str(volumes.content(entry.name))
            points.append(MountPoint("volume", source, place, entry.name, DRIVER, entry.mode, not entry.read_only))
        elif isinstance(entry, Bind):
            propagation = entry.propagation or "rprivate"
            points.append(
                MountPoint(
                    "bind", entry.source, place, mode=entry.mode, rw=not entry.read_only, propagation=propagation
                )
            )
        elif place in shown_tmpfs:
            points.append(MountPoint("tmpfs", "", place, rw="ro" not in entry.options))
    return points


def translates(world: World, container: Container, volume: Volume) -> bool:
    """Say whether a container sees a volume with the ids of its user namespace, which are the container's on the disk.

    What a volume's options mount has the ids of where it comes from, as binds have.
    """
    return container.idmap is not None and not world.volumes.get(volume.name).options


async def make_volumes(world: World, container: Container, mounts: MountPlan, layers: Sequence[Path]) -> None:
    """Make the volumes that are not there yet, and fill empty ones with what the image has in their places."""
    for volume in mounts.volumes:
        await world.volumes.create(
            volume.name,
            options=volume.options,
            labels=volume.labels,
            made_for=container.id if volume.anonymous else "",
        )
    if not mounts.volumes:
        return
    own = [one for one in mounts.volumes if container.idmap is None or translates(world, container, one)]
    await _fill(world, container, own, layers, None)
    others = [one for one in mounts.volumes if one not in own]
    if others and container.idmap is not None:  # these have the host's ids
        with contextlib.ExitStack() as stack:
            mapped = await asyncio.to_thread(stack.enter_context, lent(container.idmap))
            await _fill(world, container, others, layers, mapped)


async def _fill(
    world: World, container: Container, volumes: Sequence[Volume], layers: Sequence[Path], mapped: Mapped | None
) -> None:
    """Fill volumes with what the image has in their places, whose ids are as on the disk, or as `mapped` says."""
    if not volumes:
        return
    rootfs = container.dir / "rootfs"
    await asyncio.to_thread(mount_overlay, layers, container.upper, container.dir / "work", rootfs, mapped)
    try:
        for volume in volumes:
            await world.volumes.fill(volume, rootfs, container.id)
    finally:
        await asyncio.to_thread(unmount, rootfs)
