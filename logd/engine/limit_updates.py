"""Changing what a container may use, and its restart policy, while it runs or not: Docker's `update`.

The cgroup is changed first, by the OCI runtime, and then container.json: a daemon that is killed in between has told
nobody that it was done. Source: dockerd 20.10 for the conflicts and their words.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson

from logd.container import Container
from logd.engine.runtime_commands import ask_runtime
from logd.engine.world import World
from logd.errors import Conflict, LogdError, Unsupported
from logd.runtime import limits
from logd.runtime.validate import check_restart_policy
from logd.spec import HostConfig

CHANGEABLE: Final = frozenset(
    (
        "blkio_weight",
        "cpu_period",
        "cpu_quota",
        "cpu_shares",
        "cpuset_cpus",
        "cpuset_mems",
        "memory",
        "memory_reservation",
        "memory_swap",
        "nano_cpus",
        "pids_limit",
    )
)
"""The fields of HostConfig that dockerd changes, beside the restart policy."""


class Updates:
    """The verb. `runtime_of` gives the OCI runtime's command line of a container."""

    def __init__(self, world: World, runtime_of: Callable[[Container], tuple[str, ...]]) -> None:
        self._world = world
        self._runtime_of = runtime_of

    async def update(self, container: Container, asked: HostConfig) -> list[str]:
        """Change what `asked` sets, the rest stays; returns Docker's warnings.

        Raises InvalidParameter, Conflict and Unsupported, in Docker's words where it has some, and LogdError.
        """
        refused = f"Cannot update container {container.id}:"
        _check_changeable(asked)
        support = await asyncio.to_thread(limits.host_support)
        warnings = limits.validate_limits(asked, support, update=True)
        check_restart_policy(asked.restart_policy)
        async with container.lock:
            if container.removed or container.state.removing or container.state.dead:
                raise Conflict(f'{refused} container is marked for removal and cannot be "update"')
            try:
                changed = merge(container.host, asked)
                if container.state.has_process:
                    await self._apply(container, changed, support)
            except LogdError as error:
                raise type(error)(f"{refused} {error}") from error
            container.host = changed
            await self._world.writer.saved(container)
        self._world.tell(container, "update")
        return warnings

    async def _apply(self, container: Container, new: HostConfig, support: limits.Support) -> None:
        """Have the runtime write the limits into the cgroup, if they are others."""
        old, wanted = container.host, limits.resources(new, support)
        if wanted == limits.resources(old, support):
            return
        if support.pids and new.pids_limit is None and old.pids_limit is not None:
            wanted["pids"] = {"limit": -1}
        document = orjson.dumps(wanted)
        if problem := await ask_runtime(
            self._runtime_of(container), "update", "--resources", "-", container.id, stdin=document
        ):
            raise LogdError(problem)
        await asyncio.to_thread(self._world.samples.renew, container.id)


def _check_changeable(asked: HostConfig) -> None:
    """Refuse what would have to be known when the container is made; dockerd takes no notice of it."""
    untouched = HostConfig()
    for field in msgspec.structs.fields(HostConfig):
        fixed = field.name not in CHANGEABLE and field.name not in {"restart_policy", "log_config"}
        if fixed and getattr(asked, field.name) != getattr(untouched, field.name):
            raise Unsupported(f"{field.encode_name} of a container can't be changed: create it anew")


def merge(now: HostConfig, asked: HostConfig) -> HostConfig:
    """Return the settings with what is asked for in them. Raises Conflict where the two can't go together."""
    _check_cpu(now, asked)
    if asked.memory and asked.memory > now.memory_swap and not asked.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    changes: dict[str, Any] = {
        name: getattr(asked, name) for name in CHANGEABLE - {"pids_limit"} if getattr(asked, name)
    }
    if asked.cpu_shares:
        changes["cpu_shares"] = limits.clamp_shares(asked.cpu_shares)
    if asked.pids_limit is not None:
        changes["pids_limit"] = asked.pids_limit if asked.pids_limit > 0 else None
    if asked.restart_policy.name:  # Docker's command line always sends one, without a name where it is to stay
        if now.auto_remove and asked.restart_policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = asked.restart_policy
    new = msgspec.structs.replace(now, **changes)
    limits.validate_swap(new)
    return new


def _check_cpu(now: HostConfig, asked: HostConfig) -> None:
    """CPUs are a quota and a period of their own, so that who has the one can't have the others."""
    for name, words in (("cpu_period", "CPU Period"), ("cpu_quota", "CPU Quota")):
        if asked.nano_cpus > 0 and getattr(now, name) > 0:
            raise Conflict(f"Conflicting options: Nano CPUs cannot be updated as {words} has already been set")
        if getattr(asked, name) > 0 and now.nano_cpus > 0:
            raise Conflict(f"Conflicting options: {words} cannot be updated as NanoCPUs has already been set")
