"""Pause and unpause: the freezer of a container's cgroup, through the OCI runtime.

Whether a container is paused is up to the kernel: a new daemon takes it from the cgroup, whatever was recorded. A
frozen process gets a signal only once it goes on (SIGKILL too, where the freezer is cgroup v1's), so a signal that
means the container's end lets it go on. Source: dockerd 20.10; kernel documentation, cgroup-v1/freezer-subsystem.rst.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

from logd.container import Container
from logd.engine.restarts import check_not_restarting
from logd.engine.runtime_commands import ask_runtime
from logd.engine.signals import means_stop
from logd.engine.world import World
from logd.errors import Conflict, LogdError
from logd.runtime import cgroup

log = logging.getLogger(__name__)

HELD: Final = "held"
"""The file in a container's exec folder that says that it is frozen for a while only."""


class Freezer:
    """The verbs. `runtime_of` gives the OCI runtime's command line of a container."""

    def __init__(self, world: World, runtime_of: Callable[[Container], tuple[str, ...]]) -> None:
        self._world = world
        self._runtime_of = runtime_of

    async def pause(self, container: Container) -> None:
        """Freeze all processes of a container. Raises Conflict where that can't be, LogdError where it fails."""
        async with container.lock, container.freezing:
            if not container.state.running:
                raise Conflict(f"Container {container.id} is not running")
            if container.state.paused:
                raise Conflict(f"Container {container.id} is already paused")
            check_not_restarting(container)
            await self._turn(container, "pause")

    async def unpause(self, container: Container) -> None:
        """Let the processes of a paused container go on. Raises LogdError."""
        async with container.lock, container.freezing:
            if not container.state.paused:
                raise LogdError(f"Container {container.id} is not paused")
            await self._turn(container, "resume")

    @contextlib.asynccontextmanager
    async def held(self, container: Container) -> AsyncIterator[None]:
        """Have a container frozen for a while. Should this daemon end meanwhile, the next one lets it go on.

        Raises as `pause`.
        """
        mark = container.exec_dir / HELD
        try:
            await asyncio.to_thread(mark.touch)
        except FileNotFoundError as error:
            raise Conflict(f"Container {container.id} is not running") from error
        try:
            await self.pause(container)
            yield
        finally:
            with contextlib.suppress(LogdError):  # somebody else let it go on, or killed it
                await asyncio.shield(self.unpause(container))
            await asyncio.to_thread(mark.unlink, missing_ok=True)

    async def thaw(self, container: Container, signal_number: int) -> None:
        """Let a paused container go on that was sent a signal which means its end; without, the signal would wait."""
        async with container.freezing:  # a pause that is under way ends first
            if container.state.paused and means_stop(container.spec.stop_signal, signal_number):
                try:
                    await self._turn(container, "resume")
                except LogdError as error:
                    if container.state.has_process:  # else it had the signal and is gone
                        log.warning("%s", error, extra={"container": container.id})

    async def _turn(self, container: Container, verb: str) -> None:
        word = "unpause" if verb == "resume" else verb
        run = container.run
        if problem := await ask_runtime(self._runtime_of(container), verb, container.id):
            raise LogdError(f"Cannot {word} container {container.id}: {problem}")
        if container.run == run and container.state.has_process:
            container.state.paused = verb == "pause"
            self._world.writer.save(container)
            self._world.tell(container, word)

    async def found(self, container: Container) -> None:
        """Take from the kernel whether a container is paused that a new daemon found running."""
        path = await asyncio.to_thread(self._world.use.cgroup_path, container)
        frozen = await asyncio.to_thread(lambda: cgroup.is_frozen(cgroup.container_folders(cgroup.detect(), path)))
        if frozen != container.state.paused:
            container.state.paused = frozen
            self._world.writer.save(container)
        mark = container.exec_dir / HELD
        if await asyncio.to_thread(mark.exists):
            if frozen:
                await self._turn(container, "resume")
            await asyncio.to_thread(mark.unlink)
