"""What a start is made of: the mounted root, the bundle, the runtime's command line, and what the shim is told."""

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from logd.config import DaemonConfig, find_program
from logd.container import Container
from logd.engine.joining import joined_namespaces, shm_owner, shm_path
from logd.engine.logopts import store_options
from logd.engine.mounting import settled, translates
from logd.engine.world import World
from logd.errors import InvalidParameter, LogdError
from logd.runtime import userns
from logd.runtime.network_files import NetworkSetup, change_resolver
from logd.runtime.oci import BundleRequest, prepare_bundle
from logd.runtime.protocol import Launch
from logd.runtime.rootfs import mount_overlay, unmount
from logd.runtime.shm import mount_shm, unmount_shm
from logd.runtime.subpaths import Part, mount_parts, unmount_parts
from logd.spec import HostConfig


def prepare(world: World, container: Container) -> None:
    """Mount the root and write the bundle (blocks). The container holds its volumes."""
    config, host = world.config, with_name_servers(container.host, world.config)
    image = world.images.by_id(container.image_id)
    if image is None:
        raise LogdError(f"No such image: {container.image_id}, of which the container was made")
    _unmount(container)
    container.exec_dir.mkdir(mode=0o700, parents=True)
    with contextlib.ExitStack() as stack:
        mapped = None
        if container.idmap is not None:
            _let_pass(container.rootfs.parent, container.root_ids)
            mapped = stack.enter_context(userns.opened(container.user_namespace, container.idmap))
        layers = world.images.layers(image)
        mount_overlay(layers, container.upper, container.dir / "work", container.rootfs, mapped)
        parts = mount_parts(_parts_dir(container), _parts(world, container), mapped)
    wants_init = config.init if host.init is None else host.init
    prepare_bundle(
        BundleRequest(
            id=container.id,
            spec=container.spec,
            host=host,
            container_dir=container.dir,
            exec_dir=container.exec_dir,
            rootfs=container.rootfs,
            argv=[container.path, *container.args],
            hostname=container.spec.hostname,
            cgroup_parent=config.cgroup_parent,
            init_path=config.init_path if wants_init else "",
            seccomp_profile=config.seccomp_profile,
            no_new_privileges=config.no_new_privileges,
            plan=settled(container),
            volumes=container.volumes | parts,
            default_ulimits=config.default_ulimits,
            network=with_host_gateway(world.connections.setup(container), config),
            joined=joined_namespaces(world.registry, host),
            shm=_prepare_shm(world, container),
            idmap=container.idmap,
            user_namespace=container.user_namespace,
        )
    )


def _parts(world: World, container: Container) -> dict[str, Part]:
    """Return what is bound to points of ours for the runtime: parts of volumes, volumes whose ids are translated."""
    parts = {}
    for volume in settled(container).volumes:
        is_mapped = translates(world, container, volume)
        if volume.subpath or is_mapped:
            content = world.volumes.content(volume.name)
            parts[volume.destination] = Part(content, volume.subpath, is_mapped)
    return parts


def _prepare_shm(world: World, container: Container) -> Path | None:
    """Return where the /dev/shm is that others share, or may share; a container's own is mounted now."""
    owner = shm_owner(world.registry, container)
    if owner is None:
        return None
    path = shm_path(world.config.exec_root, owner)
    if owner is container:
        mount_shm(path, container.host.shm_size, container.root_ids)
    return path


def with_host_gateway(setup: NetworkSetup, config: DaemonConfig) -> NetworkSetup:
    """Return a container's network with the daemon's `host-gateway-ip`, if there is one."""
    return setup._replace(gateway=config.host_gateway_ip) if config.host_gateway_ip else setup


def with_name_servers(host: HostConfig, config: DaemonConfig) -> HostConfig:
    """Return a container's settings with the daemon's `dns`, `dns-opts` and `dns-search` where it has none."""
    return msgspec.structs.replace(
        host,
        dns=host.dns or list(config.dns),
        dns_options=host.dns_options or list(config.dns_opts),
        dns_search=host.dns_search or list(config.dns_search),
    )


def follow_networks(world: World, container: Container) -> None:
    """Have a container that runs ask the name server that its present networks call for (blocks)."""
    if container.state.has_process and container.endpoints:
        host = with_name_servers(container.host, world.config)
        change_resolver(container.dir, host, world.connections.setup(container).resolver)


def take_down(container: Container, *, keep_exec_dir: bool = False) -> None:
    """Unmount the root and parts of volumes, and delete the bundle with what a shim left in its folder (blocks)."""
    _unmount(container, keep_exec_dir=keep_exec_dir)
    userns.remove(container.user_namespace)


def _unmount(container: Container, *, keep_exec_dir: bool = False) -> None:
    if container.idmap is not None:
        _remove_root(container.rootfs.parent)
    else:
        unmount(container.rootfs)
    unmount_parts(_parts_dir(container))
    unmount_shm(shm_path(container.exec_root, container))
    if not keep_exec_dir:
        shutil.rmtree(container.exec_dir, ignore_errors=True)


def _parts_dir(container: Container) -> Path:
    """Return where the parts of volumes are mounted that a container has: in no folder that is ever deleted whole."""
    return container.exec_root / "subpaths" / container.id


def take_down_strays(world: World) -> None:
    """Unmount what containers had which are no more: parts of volumes, roots and user namespaces (blocks)."""
    for name, undo in (("subpaths", unmount_parts), ("roots", _remove_root), ("userns", userns.remove)):
        with contextlib.suppress(FileNotFoundError):
            for path in (world.config.exec_root / name).iterdir():
                if not (world.containers_dir / path.name).exists():
                    undo(path)


def _let_pass(folder: Path, root_ids: tuple[int, int]) -> None:
    """Make the folder of a root, through which nobody of the host passes but the container's root, by its group."""
    folder.mkdir(mode=0o710, exist_ok=True)
    os.chown(folder, 0, root_ids[1])
    folder.chmod(0o710)


def _remove_root(folder: Path) -> None:
    """Unmount the root in its folder, and remove both; none is fine."""
    unmount(folder / "rootfs")
    for one in (folder / "rootfs", folder):
        with contextlib.suppress(FileNotFoundError):
            one.rmdir()


def runtime_of(config: DaemonConfig, container: Container) -> tuple[str, ...]:
    """Return the runtime's command line up to its own options; raises InvalidParameter if it is not set up now."""
    return command_line(config, container.host.runtime or config.default_runtime)


def command_line(config: DaemonConfig, name: str) -> tuple[str, ...]:
    """Return the command line of a runtime by its name in the settings, up to its own options."""
    runtime = config.runtimes.get(name)
    if runtime is None:
        raise InvalidParameter(f"unknown or invalid runtime name: {name}")
    return find_program(runtime.path) or runtime.path, *runtime.args, "--root", str(config.exec_root / "runc")


def launch_of(config: DaemonConfig, container: Container) -> Launch:
    """Return what the supervisor has to know of a container's present run."""
    return Launch(
        container_id=container.id,
        container_dir=str(container.dir),
        exec_dir=str(container.exec_dir),
        runtime=runtime_of(config, container),
        run=container.run,
        open_stdin=container.spec.open_stdin,
        stdin_once=container.spec.stdin_once,
        terminal=container.spec.tty,
        memory_limit=container.host.memory,
        owner=container.root_ids,
        store=store_options(container.host.log_config, config),
    )
