"""Create a container: check everything, take the name, make the folder, write container.json last.

A folder without container.json is a creation that was interrupted; the next start of the daemon clears it away.
"""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from logd.container import Container, Record, State, sync_folder
from logd.engine import merge
from logd.engine.joining import settle_joined
from logd.engine.logopts import check_tags, try_plugins
from logd.engine.mounting import inherited, make_volumes, mount_points, settle
from logd.engine.names import check_name
from logd.engine.network_settings import settle_networks, shared_hostname
from logd.engine.removal import delete_folder
from logd.engine.userns import settle_idmap
from logd.engine.world import World
from logd.errors import InvalidParameter, LogdError
from logd.images.image import Image
from logd.network.ports import parse_bindings
from logd.runtime.mounts import plan
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
    warnings = validate_host(spec, host)
    host, networks = settle_networks(world.networks, world.registry, spec, host, networking)
    if not spec.image:
        raise InvalidParameter("no image specified: Image must not be empty")
    image = world.images.resolve(spec.image)
    asked_logging = host.log_config
    host = merge.complete_host(host, world.config)
    spec = merge.merge_image(spec, image.document.run_config())
    host = settle_joined(world.registry, host)
    idmap = settle_idmap(world, host)
    mounts = settle(plan(spec, host, inherited(world, host)), world.config.data_root)
    container_id = world.registry.new_id()
    parse_bindings(spec, host)
    spec = merge.complete_spec(shared_hostname(world.registry, spec, host), host, container_id)
    name = _take_name(world, name, container_id)  # last: up to here a refusal has nothing to give back
    record = _record(container_id, name, image, spec, host)
    record.asked_logging = asked_logging
    record.networks = networks
    record.idmap = idmap
    record.plan = list(mounts.entries)
    record.mounts += mount_points(world.volumes, mounts, host)
    container = Container(record, world.containers_dir / container_id, world.exec_dir / container_id)
    world.creating.add(container)  # from here on nobody removes its image and its volumes
    try:
        check_tags(container)
        await try_plugins(container, host.log_config, world.config)
    except BaseException:
        world.creating.discard(container)
        world.registry.release(name, container_id)
        raise
    try:
        layers = world.images.layers(image)
        await asyncio.to_thread(_make_folders, container, layers)
        await make_volumes(world, container, mounts, layers)
        await asyncio.to_thread(world.deliveries.prepare, container)
        await world.writer.saved(container)
    except BaseException as error:
        container.removed = True
        world.registry.release(name, container_id)
        await _undo(world, container)
        if isinstance(error, OSError):
            raise LogdError(f"can't create container {name}: {error}") from error
        raise
    finally:
        world.creating.discard(container)
    world.registry.add(container)
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


def _make_folders(container: Container, layers: Sequence[Path]) -> None:
    """Make the container's folder."""
    container.dir.mkdir(mode=0o710)
    container.log_dir.mkdir(mode=0o710)
    for name in ("work", "rootfs"):
        (container.dir / name).mkdir(mode=0o700)
    container.upper.mkdir(mode=0o755)
    if layers:  # the root of an overlay has the attributes of the upper folder
        root = layers[0].stat()
        os.chown(container.upper, root.st_uid, root.st_gid)
        container.upper.chmod(root.st_mode & 0o7777)
    sync_folder(container.dir.parent)


async def _undo(world: World, container: Container) -> None:
    """Remove what was made; volumes with a name stay, as in Docker."""
    for folder in await world.volumes.remove_with(container.id, world.volumes.made_for([container.id])):
        await asyncio.to_thread(delete_folder, folder)
    await asyncio.to_thread(shutil.rmtree, container.dir, ignore_errors=True)
