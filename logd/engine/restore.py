"""Find everything again when the daemon starts: containers from their folders, processes from their shims.

What is on disk decides, never a pid alone. A container whose process is gone has the exit that its shim recorded, or
else "unknown": exit code 255, and inspect's Error says why. A log that no shim followed to its end gets a gap there.
"""

import asyncio
import contextlib
import logging
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from logd.container import EXIT_UNKNOWN, Container, UnreadableRecord, read_record
from logd.engine.launching import launch_of, runtime_of, take_down_strays
from logd.engine.lifecycle import Lifecycle
from logd.engine.removal import Removal, delete_folder
from logd.engine.userns import check_host
from logd.engine.world import World
from logd.errors import Conflict, LogdError
from logd.logstore.reader import end_positions
from logd.runtime.command import RUNTIME_FAILED_EXIT
from logd.runtime.protocol import STATE_FILE, ExitStatus, read_exit_status
from logd.runtime.shim_client import Shim

log = logging.getLogger(__name__)

ADOPTIONS: Final = 16
"""Containers looked after at once."""
STATE_WAIT_S: Final = 10.0
INTERRUPTED_WORDS: Final = "the start was interrupted by the end of the daemon"
UNKNOWN_WORDS: Final = "exit status unknown: the container ended unobserved while logd was not running"


class Restore:
    """What the engine does once, before its first request."""

    def __init__(self, world: World, lifecycle: Lifecycle, removal: Removal) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._removal = removal
        self._interrupted: list[Path] = []

    async def run(self) -> None:
        """Enter all containers into the registry, adopt what runs, record what ended, clear away what was half done."""
        await asyncio.to_thread(_make_folders, self._world)
        await asyncio.to_thread(check_host, self._world)
        await self._world.networks.load()
        containers = await asyncio.to_thread(self._read_all)
        for container in containers:
            self._register(container)
        await self._find_volumes(containers)
        places = asyncio.Semaphore(ADOPTIONS)
        await asyncio.gather(*(self._find(container, places) for container in containers))
        await self._world.volumes.release_strays()
        await self._world.connections.restore()
        self._lifecycle.restarts.begin_with_daemon(containers)
        await self._clear_strays({container.id for container in containers})
        self._world.tasks.start(self._empty_trash(), "deletion of the trash")
        for container in await asyncio.to_thread(self._read_draining):
            self._world.tasks.start(self._removal.settle(container), f"delivery of {container.id[:12]}", watches=True)

    def _read_all(self) -> list[Container]:
        """Read all folders (blocks)."""
        world = self._world
        containers = []
        for folder in sorted(world.containers_dir.iterdir()):
            try:
                containers.append(Container(read_record(folder), folder, world.exec_dir / folder.name))
            except FileNotFoundError:
                self._interrupted.append(folder)
            except (UnreadableRecord, OSError) as error:
                log.error("a container is left out: %s", error)  # noqa: TRY400 - the reason is enough
        return containers

    async def _find_volumes(self, containers: Iterable[Container]) -> None:
        """Find all volumes and who may hold them; clear away interrupted creations, and the volumes made for them."""
        volumes, trash_dir = self._world.volumes, self._world.trash_dir
        await asyncio.to_thread(volumes.load)
        for container in containers:
            if container.state.running or container.state.starting_ns:
                volumes.note_holder(container.volume_names, container.id)
        await asyncio.to_thread(take_down_strays, self._world)
        await volumes.remove_with("", volumes.made_for(folder.name for folder in self._interrupted))
        for folder in self._interrupted:
            log.warning("clearing away %s, whose creation was interrupted", folder)
            await asyncio.to_thread(folder.rename, _free_name(trash_dir / folder.name))

    def _read_draining(self) -> list[Container]:
        """Read the removed containers whose output is still to be delivered (blocks)."""
        world = self._world
        containers = []
        for folder in sorted(world.draining_dir.iterdir()):
            try:
                containers.append(Container(read_record(folder), folder, world.exec_dir / folder.name))
            except (FileNotFoundError, UnreadableRecord, OSError) as error:
                log.error("what a removed container printed is left alone: %s", error)  # noqa: TRY400
        return containers

    def _register(self, container: Container) -> None:
        registry = self._world.registry
        try:
            registry.reserve(container.name, container.id)
        except Conflict:  # written by hand: dockerd too gives it another name
            log.warning("the name %s is taken twice, giving another", container.name, extra={"container": container.id})
            container.name = registry.reserve_generated(container.id)
        container.state.removing = False  # a removal that was interrupted did not take place
        registry.add(container)
        if container.endpoints:
            self._world.networks.occupants[container.id] = container

    async def _find(self, container: Container, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                await self._find_process(container)
                if not (container.state.has_process or container.removed):
                    self._world.deliveries.resume(container)
            except (LogdError, OSError) as error:
                log.error("can't restore: %s", error, extra={"container": container.id}, exc_info=True)

    async def _find_process(self, container: Container) -> None:
        state = container.state
        waits = state.restarting and not state.starting_ns
        if state.restarting:
            state.running = False  # there is no process until the restart
        has_exec_dir = await asyncio.to_thread(container.exec_dir.exists)
        await self._lifecycle.execs.adopt(container)
        container.ended_positions = await asyncio.to_thread(end_positions, str(container.log_dir))
        if not (state.running or state.starting_ns or has_exec_dir):
            await self._after_end(container)
            return
        shim = await self._world.supervisor.adopt(container.id, launch_of(self._world.config, container))
        if shim is None and not waits:
            await self._record_exit(container)
        elif shim is not None and state.running:
            await self._lifecycle.freezer.found(container)
            self._lifecycle.took_off(container, shim, state.started_ns)
        elif shim is not None and state.starting_ns:
            await self._resolve_start(container, shim)
        else:  # at most its output goes on
            container.lingering = shim
            await self._lifecycle.end_lingering(container)
            await self._clean(container)

    async def _resolve_start(self, container: Container, shim: Shim) -> None:
        """Decide on a start whose end the last daemon did not record: the runtime knows if the command was let go."""
        if shim.exited.done() or await self._runtime_status(container) == "running":
            self._lifecycle.took_off(container, shim, container.state.starting_ns)
            return
        with contextlib.suppress(ProcessLookupError):
            shim.signal(signal.SIGKILL)
        await asyncio.wait({shim.exited}, timeout=STATE_WAIT_S)
        container.lingering = shim
        await self._undo_start(container)

    async def _undo_start(self, container: Container) -> None:
        log.warning("undoing a start that was interrupted", extra={"container": container.id})
        state = container.state
        state.starting_ns, state.pid = 0, 0
        state.error, state.exit_code = INTERRUPTED_WORDS, RUNTIME_FAILED_EXIT
        self._world.writer.save(container)
        await self._clean(container)

    async def _runtime_status(self, container: Container) -> str:
        argv = [*runtime_of(self._world.config, container), "state", container.id]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), STATE_WAIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            return ""
        with contextlib.suppress(orjson.JSONDecodeError):
            return str(orjson.loads(output).get("status", ""))
        return ""

    async def _record_exit(self, container: Container) -> None:
        """Enter how a process ended that is gone, from what its shim left."""
        state = container.state
        folders = str(container.exec_dir), str(container.dir)
        status = await asyncio.to_thread(read_exit_status, *folders)
        if status is not None and status.run != container.run:
            status = None
        if not state.running and status is None:
            if not state.starting_ns:
                await self._clean(container)
                return
            if await asyncio.to_thread(_was_never_created, container.exec_dir):
                await self._undo_start(container)
                return
        if status is None or not status.known:
            finished_ns = status.finished_ns if status is not None else 0
            status = ExitStatus(EXIT_UNKNOWN, None, oom_killed=False, finished_ns=finished_ns, known=False)
            state.error = UNKNOWN_WORDS
        if state.starting_ns:
            state.started_ns = state.starting_ns
        self._lifecycle.landed(container, status)
        await self._lifecycle.lose_sight(container)
        container.ended_positions = await asyncio.to_thread(end_positions, str(container.log_dir))
        await self._lifecycle.ended(container)

    async def _clean(self, container: Container) -> None:
        await self._lifecycle.clean_up(container)
        await self._after_end(container)

    async def _after_end(self, container: Container) -> None:
        """Finish the removal of a container that is not running and was to be removed at its end."""
        if container.host.auto_remove and (container.state.started_ns or container.run):
            await self._removal.auto_remove(container)

    async def _clear_strays(self, known: set[str]) -> None:
        """Remove what is left in the exec-root of containers that were removed, but never a process that runs."""
        for folder in await asyncio.to_thread(_list, self._world.exec_dir):
            if folder.name in known:
                continue
            if (self._world.containers_dir / folder.name).exists():
                continue  # a container that can't be read
            removed = (self._world.trash_dir / folder.name).exists()
            if await self._lifecycle.delete_stray(folder.name, force=removed):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            else:
                log.error("%s belongs to no container, but its process may live: left alone", folder)

    async def _empty_trash(self) -> None:
        for folder in await asyncio.to_thread(_list, self._world.trash_dir):
            await asyncio.to_thread(delete_folder, folder)


def _was_never_created(exec_dir: Path) -> bool:
    """Tell whether a start ended before there was a process; with the whole exec-root gone, nobody knows."""
    return exec_dir.exists() and not (exec_dir / STATE_FILE).exists()


def _list(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir())


def _free_name(path: Path) -> Path:
    """Return a name in the trash that is not taken."""
    return path if not path.exists() else path.with_name(f"{path.name}.{time.time_ns()}")


def _make_folders(world: World) -> None:
    for folder, mode in (
        (world.containers_dir, 0o710),
        (world.volumes_dir, 0o700),  # the setuid programs of containers are not for the host's users
        (world.trash_dir, 0o700),
        (world.draining_dir, 0o710),
        (world.exec_dir, 0o710),
        (world.config.exec_root / "roots", 0o711),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
