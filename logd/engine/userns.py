"""Containers' user namespaces: who has one, with which mapping, and when it is made.

A container keeps the mapping that the daemon had when it was created. Who shares namespaces of another container shares
its user namespace too, since those belong to it. Source: dockerd 20.10, whose words these are.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from logd.container import Container
from logd.engine.connections import has_sandbox
from logd.engine.joining import joined_namespaces, others
from logd.engine.world import World
from logd.errors import InvalidParameter, LogdError
from logd.idmap import IdMap, is_mapped
from logd.runtime import idmapped, userns
from logd.spec import HostConfig

HOST: Final = "host"
TTY_GROUP: Final = 5
"""To whom Docker gives a container's terminals."""


def settle_idmap(world: World, host: HostConfig) -> IdMap | None:
    """Return the mapping that a new container gets, None in the host's namespace. Raises InvalidParameter."""
    if world.idmap is None or host.userns_mode == HOST:
        return None
    _check_modes(host)
    found = [(other, other.idmap) for other in others(world.registry, host)]
    for other, idmap in found:
        if idmap is None:
            raise InvalidParameter(
                f"cannot share a namespace of container {other.id}, which runs in the host's user namespace, when user "
                "namespaces are enabled: use --userns=host"
            )
        if idmap != found[0][1]:
            raise InvalidParameter(f"containers {found[0][0].id} and {other.id} do not share a user namespace")
    return found[0][1] if found else world.idmap


def _check_modes(host: HostConfig) -> None:
    if host.privileged:
        raise InvalidParameter(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode"
        )
    if host.network_mode == HOST:
        raise InvalidParameter("cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == HOST:
        raise InvalidParameter("cannot share the host PID namespace when user namespaces are enabled")


def enter_user_namespace(world: World, container: Container) -> None:
    """Make the user namespace of a container that starts, and its network namespace with it (blocks).

    Raises LogdError, OSError.
    """
    if container.idmap is None:
        return
    joined_namespaces(world.registry, container.host)  # says which of the others does not run
    world.connections.setup(container)
    path = container.user_namespace
    userns.remove(path)
    sandbox = world.networks.sandbox(container.id) if has_sandbox(container) else None
    if shared := list(_bound(others(world.registry, container.host))):
        if not all(userns.is_same(shared[0], one) for one in shared[1:]):
            raise LogdError("the containers whose namespaces are to be shared do not share a user namespace")
        userns.join(path, shared[0], sandbox)
    else:
        userns.make(path, container.idmap, sandbox)


def _bound(containers: Iterable[Container]) -> Iterable[Path]:
    for one in containers:
        if not one.user_namespace.exists():
            raise LogdError(f"container {one.id} has no user namespace to be shared")
        yield one.user_namespace


def check_host(world: World) -> None:
    """Check that this host can do what `userns-remap` asks for (blocks); raises LogdError with what is in the way."""
    idmap, config = world.idmap, world.config
    if idmap is None:
        return
    for folder in (config.exec_root, *config.exec_root.parents):
        if not os.stat(folder).st_mode & 1:
            raise LogdError(
                f"userns-remap: exec-root {config.exec_root}: containers' root has to pass through {folder} (chmod "
                f"o+x {folder})"
            )
    if not is_mapped(idmap.gids, TTY_GROUP):
        raise LogdError(f"userns-remap: the group range has no room for group {TTY_GROUP}, to which terminals belong")
    try:
        with userns.lent(idmap) as mapped:
            os.close(idmapped.clone(config.data_root, mapped))
    except OSError as error:
        raise LogdError(
            f"userns-remap: data-root {config.data_root}: {error.strerror}: its file system has to translate ids "
            "(ext4, xfs, btrfs and f2fs do), in a kernel of version 5.19 or newer"
        ) from error
