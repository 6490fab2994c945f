"""Create a container: check everything, take the name, make the folder, write container.json last.

A folder without container.json is a creation that was interrupted; the next start of the daemon clears it away.
"""

import asyncio
import logging
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from logd.container import Container, MountPoint, Record, State, sync_folder
from logd.engine import merge
from logd.engine.logopts import check_tags, try_plugins
from logd.engine.names import check_name
from logd.engine.volumes import make_volume, remove_volume
from logd.engine.world import World
from logd.errors import InvalidParameter, LogdError
from logd.images.image import Image
from logd.runtime.mounts import Bind, MountPlan, Volume, plan
from logd.runtime.rootfs import mount_overlay, unmount
from logd.runtime.validate import validate_host
from logd.spec import ContainerSpec, HostConfig

log = logging.getLogger(__name__)


async def create(
    world: World, name: str | None, spec: ContainerSpec, host: HostConfig, networking: Mapping[str, Any]
) -> tuple[Container, list[str]]:
    """Create a container, not started, and return it with Docker's warnings.

    Raises InvalidParameter or Unsupported for a request that can't be honoured, NotFound for its image, Conflict for
    its name, LogdError when the disk refuses.
    """
    merge.check_request(spec, host)
    warnings = validate_host(spec, host, networking)
    if not spec.image:
        raise InvalidParameter("no image specified: Image must not be empty")
    image = world.images.resolve(spec.image)
    asked_logging = host.log_config
    host = merge.complete_host(host, world.config)
    spec = merge.merge_image(spec, image.document.run_config())
    mounts = plan(spec, host)
    container_id = world.registry.new_id()
    name = _take_name(world, name, container_id)
    spec = merge.complete_spec(spec, host, container_id)
    record = _record(container_id, name, image, spec, host)
    record.asked_logging = asked_logging
    record.mounts += _mount_points(world, mounts, host)
    container = Container(record, world.containers_dir / container_id, world.exec_dir / container_id)
    try:
        check_tags(container)
        await try_plugins(container, host.log_config, world.config)
    except BaseException:
        world.registry.release(name, container_id)
        raise
    world.creating.add(container)
    try:
        await asyncio.to_thread(_make_folders, container, world.images.layers(image), mounts)
        await asyncio.to_thread(world.deliveries.prepare, container)
        await world.writer.saved(container)
    except BaseException as error:
        container.removed = True
        world.registry.release(name, container_id)
        await asyncio.to_thread(_undo, container)
        if isinstance(error, OSError):
            raise LogdError(f"can't create container {name}: {error}") from error
        raise
    finally:
        world.creating.discard(container)
    world.registry.add(container)
    world.tell_volumes(container, "create")
    world.tell(container, "create")
    log.info("created container %s", name, extra={"container": container_id})
    return container, warnings


def _take_name(world: World, name: str | None, container_id: str) -> str:
    if not name:
        return world.registry.reserve_generated(container_id)
    name = check_name(name)
    world.registry.reserve(name, container_id)
    return name


def _record(container_id: str, name: str, image: Image, spec: ContainerSpec, host: HostConfig) -> Record:
    path, args = merge.command_of(spec)
    return Record(
        id=container_id,
        name=name,
        created_ns=time.time_ns(),
        image_id=image.id,
        image_ref=spec.image,
        os=image.document.os or "linux",
        path=path,
        args=args,
        config=spec,
        host_config=host,
        mounts=[],
        run=0,
        restart_count=0,
        state=State(),
    )


def _mount_points(world: World, mounts: MountPlan, host: HostConfig) -> list[MountPoint]:
    """Return what inspect shows; anonymous volumes get their folder here. `--tmpfs` is not among it, as in Docker."""
    modes = {parts[1]: parts[2] for bind in host.binds if len(parts := bind.split(":")) == 3}
    shown_tmpfs = {request.target for request in host.mounts if request.type == "tmpfs"}
    points = []
    for entry in mounts.entries:
        place = entry.destination
        if isinstance(entry, Volume):
            name = secrets.token_hex(32)
            source = str(world.volumes_dir / name / "_data")
            points.append(MountPoint("volume", source, place, name, "local", modes.get(place, ""), not entry.read_only))
        elif isinstance(entry, Bind):
            mode = modes.get(place, "")
            points.append(
                MountPoint("bind", entry.source, place, mode=mode, rw=not entry.read_only, propagation="rprivate")
            )
        elif place in shown_tmpfs:
            points.append(MountPoint("tmpfs", "", place, rw="ro" not in entry.options))
    return points


def _make_folders(container: Container, layers: Sequence[Path], mounts: MountPlan) -> None:
    """Make the container's folder, and its volumes with what the image has in their places."""
    container.dir.mkdir(mode=0o710)
    container.log_dir.mkdir(mode=0o710)
    for name in ("work", "rootfs"):
        (container.dir / name).mkdir(mode=0o700)
    container.upper.mkdir(mode=0o755)
    if layers:  # the root of an overlay has the attributes of the upper folder
        root = layers[0].stat()
        os.chown(container.upper, root.st_uid, root.st_gid)
        container.upper.chmod(root.st_mode & 0o7777)
    if mounts.volumes:
        copies = {volume.destination: volume.copy for volume in mounts.volumes}
        mount_overlay(layers, container.upper, container.dir / "work", container.rootfs)
        try:
            for place, folder in container.volumes.items():
                make_volume(container.rootfs, place, folder, copy=copies[place])
        finally:
            unmount(container.rootfs)
    sync_folder(container.dir.parent)


def _undo(container: Container) -> None:
    for content in container.volumes.values():
        remove_volume(content)
    shutil.rmtree(container.dir, ignore_errors=True)
