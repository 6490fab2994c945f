"""Containers that share the processes or the IPC of another one: `--pid container:NAME`, `--ipc container:NAME`.

The other has to run when such a one starts, and is named by its id from its creation on. What ends the other's pid
namespace ends all in it; an IPC namespace, and its /dev/shm, live as long as somebody is in them, so that after a
restart of the other the two share nothing until both have started anew. Source: dockerd 20.10.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from logd.container import Container
from logd.engine.names import Registry
from logd.engine.restarts import check_not_restarting
from logd.errors import InvalidParameter, LogdError, NotFound
from logd.spec import HostConfig

PREFIX: Final = "container:"
SHAREABLE: Final = "shareable"
LONGEST_CHAIN: Final = 16
"""Of containers that each join the next one's IPC."""
LOOK_AGAIN_S: Final = 0.1
PATIENCE_S: Final = 60.0
"""How long a restart waits for that of the container that it joins."""


def _named(mode: str) -> str:
    """Return the container that a mode names, "" for another mode."""
    return mode.removeprefix(PREFIX) if mode.startswith(PREFIX) else ""


def settle_joined(registry: Registry, host: HostConfig) -> HostConfig:
    """Return the settings with the ids of the containers that are named. Raises InvalidParameter, as dockerd does."""
    changes = {}
    for name in ("pid_mode", "ipc_mode"):
        if reference := _named(getattr(host, name)):
            try:
                changes[name] = PREFIX + registry.get(reference).id
            except NotFound as error:
                raise InvalidParameter(str(error)) from error
    return msgspec.structs.replace(host, **changes)


def joined_namespaces(registry: Registry, host: HostConfig) -> dict[str, str]:
    """Return the paths of the namespaces that are another container's, by their OCI types. Raises LogdError."""
    paths = {}
    if reference := _named(host.pid_mode):
        paths["pid"] = f"/proc/{_running(registry, reference).state.pid}/ns/pid"
    if reference := _named(host.ipc_mode):
        paths["ipc"] = f"/proc/{_sharing(registry, reference).state.pid}/ns/ipc"
    return paths


def shm_owner(registry: Registry, container: Container) -> Container | None:
    """Return the container whose /dev/shm on the host this one has: its own, another's, or None. Raises LogdError."""
    if container.host.ipc_mode == SHAREABLE:
        return container
    for _ in range(LONGEST_CHAIN):
        reference = _named(container.host.ipc_mode)
        if not reference:
            return container if container.host.ipc_mode == SHAREABLE else None
        container = _sharing(registry, reference)
    raise LogdError(f"can't join IPC of container {container.id}: too long a chain of containers")


def shm_path(exec_root: Path, container: Container) -> Path:
    """Return where a shareable container's /dev/shm is mounted on the host: in no folder that is deleted whole."""
    return exec_root / "shm" / container.id


def _running(registry: Registry, reference: str) -> Container:
    other = registry.get(reference)
    check_not_restarting(other)
    if not other.state.has_process or not other.state.pid:
        raise LogdError(f"container {other.id} is not running")
    return other


def _sharing(registry: Registry, reference: str) -> Container:
    try:
        other = _running(registry, reference)
    except LogdError as error:
        raise LogdError(f"can't join IPC of container {reference}: {error}") from error
    if other.host.ipc_mode != SHAREABLE and not _named(other.host.ipc_mode):
        raise LogdError(
            f"can't join IPC of container {other.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor "
            "container)"
        )
    return other


def others(registry: Registry, host: HostConfig) -> Iterator[Container]:
    """Yield the containers of which one joins namespaces, as far as they are there."""
    for mode in (host.pid_mode, host.ipc_mode, host.network_mode):
        if (reference := _named(mode)) and (other := registry.find(reference)) is not None:
            yield other


async def others_started(registry: Registry, container: Container) -> None:
    """Return when none of the containers that one joins waits for its restart, as after a boot; or after PATIENCE_S."""
    joined = set(others(registry, container.host)) - {container}
    for _ in range(int(PATIENCE_S / LOOK_AGAIN_S)):
        if not any(other.state.restarting for other in joined):
            return
        await asyncio.sleep(LOOK_AGAIN_S)
