"""Execs: processes that a person has run in a running container beside its first one.

An exec is created, started once, and kept for some minutes after its end. What runs has a shim of its own
(runtime/exec_shim.py) and outlives the daemon: the next one finds it in the container's exec folder. What was only
created, and what has ended, is known to this daemon alone, as in Docker. Source: Docker Engine API 1.47, Exec.
"""

import asyncio
import logging
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from logd.container import Container
from logd.engine.exec_record import Exec, lay_out, left_behind, read_exec
from logd.engine.exec_stream import ExecStream
from logd.engine.restarts import check_not_restarting
from logd.engine.world import World
from logd.errors import Conflict, InvalidParameter, LogdError, NotFound
from logd.runtime.command import NOT_EXECUTABLE_EXIT
from logd.runtime.exec import END_WAIT_S, kill_session
from logd.runtime.exec_client import ExecFailed, ExecSession, find_exec, launch_exec, lost
from logd.runtime.exec_protocol import TTY, ExecExit, ExecLaunch
from logd.spec import ExecConfig

log = logging.getLogger(__name__)

SWEEP_S: Final = 300.0
"""dockerd's: what has ended is forgotten at the second sweep after its end."""
STREAMS: Final = ("stdin", "stdout", "stderr")
LOG_LABEL: Final = "io.logd.exec-log"
"""A container's label: what its execs print goes into its log although nobody asks for it, as no docker client can."""
STARTED_WAIT_S: Final = 10.0
"""dockerd's: how long a resize waits for the start."""


class Execs:
    """The execs of all containers. `runtime_of` gives the OCI runtime's command line of a container."""

    def __init__(self, world: World, runtime_of: Callable[[Container], tuple[str, ...]]) -> None:
        self._world = world
        self._runtime_of = runtime_of
        self._execs: dict[str, Exec] = {}
        self._sweeping: asyncio.Task[None] | None = None

    def create(self, ref: str, container: Container, config: ExecConfig, detach_keys: bytes = b"") -> Exec:
        """Note what is to be run in a container that was asked for as `ref`. Raises Conflict unless it runs."""
        _check_active(container, ref)
        if container.spec.labels.get(LOG_LABEL) == "true":
            config = replace(config, log=True)
        created = self._add(Exec(secrets.token_hex(32), container, config, detach_keys))
        self._tell(created, f"exec_create: {created.words}")
        return created

    def get(self, exec_id: str) -> Exec:
        """Return an exec by its whole id. Raises NotFound."""
        found = self._execs.get(exec_id)
        if found is None or found.container.removed:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def startable(self, exec_id: str) -> Exec:
        """Return an exec that can be started now. Raises NotFound, Conflict."""
        found = self.get(exec_id)
        _check_active(found.container, found.container.id)
        if found.exit_code is not None:
            raise Conflict(f"exec command {exec_id} has already run")
        if found.running:
            raise Conflict(f"exec command {exec_id} is already running")
        return found

    def ids(self, container: Container) -> list[str]:
        """Return the ids of a container's execs that have not ended."""
        return [one.id for one in self._execs.values() if one.container is container and one.exit_code is None]

    async def start(self, one: Exec, *, attached: bool, console_size: list[int]) -> ExecStream:
        """Run an exec that `startable` returned just now; return its streams, to be closed.

        Where it can't be run its exit code is 126, 127 or 128. Raises ExecFailed, InvalidParameter, LogdError. A
        caller that goes away does not stop a start.
        """
        one.running = True
        self._tell(one, f"exec_start: {one.words}")
        starting = asyncio.ensure_future(self._start(one, attached=attached, console_size=console_size))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_abandon)
            raise

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of an exec's terminal. Raises NotFound, Conflict, InvalidParameter."""
        one = self.get(exec_id)
        _check_active(one.container, one.container.id)
        try:
            await asyncio.wait_for(one.ready.wait(), STARTED_WAIT_S)
        except TimeoutError as error:
            raise LogdError("timeout waiting for exec session ready") from error
        if one.session is None:
            raise InvalidParameter("exec process is not started")
        await one.session.resize(rows, columns)

    async def adopt(self, container: Container) -> None:
        """Find the execs again that an earlier daemon ran in a container, also those that have ended since."""
        for folder in await asyncio.to_thread(left_behind, container):
            try:
                await self._adopt(container, folder)
            except (LogdError, OSError, ValueError) as error:
                log.warning("exec %s is not found again: %s", folder.name, error, extra={"container": container.id})

    async def ended(self, container: Container) -> None:
        """The container has ended, and the runtime has killed what was in it: return when nothing of execs is left."""
        for one in self._of(container):
            if one.session is None and not one.running and one.exit_code is None:
                del self._execs[one.id]  # never started
        waits = {one.session.exited for one in self._of(container) if one.session is not None and one.running}
        if waits:
            await asyncio.wait(waits, timeout=END_WAIT_S)

    def close(self) -> None:
        """The daemon ends; what runs goes on."""
        for one in self._execs.values():
            if one.session is not None:
                one.session.close()

    def detached(self, one: Exec) -> None:
        """A client has left by its detach keys."""
        self._tell(one, "exec_detach")

    # -- one exec ------------------------------------------------------------------------------------------------

    def _of(self, container: Container) -> list[Exec]:
        return [one for one in self._execs.values() if one.container is container]

    def _add(self, one: Exec) -> Exec:
        self._execs[one.id] = one
        if self._sweeping is None:
            self._sweeping = self._world.tasks.start(self._sweep(), "sweep of execs", watches=True)
        return one

    def _tell(self, one: Exec, action: str, attributes: dict[str, str] | None = None) -> None:
        self._world.tell(one.container, action, {"execID": one.id, **(attributes or {})})

    async def _start(self, one: Exec, *, attached: bool, console_size: list[int]) -> ExecStream:
        config = one.config
        wanted = {"stdin": config.attach_stdin, "stdout": config.attach_stdout, "stderr": config.attach_stderr}
        streams = (TTY,) if config.tty else tuple(name for name in STREAMS if attached and wanted[name])
        rows, columns = size = console_size or config.console_size or [0, 0]
        launch = ExecLaunch(
            str(one.folder),
            one.container.id,
            self._runtime_of(one.container),
            streams,
            (rows, columns),
            owner=one.container.root_ids,
            log=config.log,
        )
        try:
            await asyncio.to_thread(lay_out, one, size if any(size) else [])
            one.session = await launch_exec(self._world.supervisor, launch)
            ends = await one.session.streams()
        except (LogdError, OSError, ValueError) as error:
            await self._failed(one, error)
            if isinstance(error, LogdError):
                raise
            raise LogdError(f"can't run exec {one.id}: {error}") from error
        finally:
            one.ready.set()
        self._watch(one)
        is_wanted = attached and (config.attach_stdout or config.attach_stderr)
        return ExecStream(one.session, ends, is_wanted=is_wanted, is_logged=config.log)

    async def _failed(self, one: Exec, error: Exception) -> None:
        one.running = False
        one.exit_code = error.exec_exit_code if isinstance(error, ExecFailed) else NOT_EXECUTABLE_EXIT
        session, one.session = one.session, None
        if session is not None:
            session.close()
        if not self._world.closing:  # else it may be that it runs, and the next daemon finds it
            await asyncio.to_thread(shutil.rmtree, one.folder, ignore_errors=True)

    async def _adopt(self, container: Container, folder: Path) -> None:
        one = await asyncio.to_thread(read_exec, container, folder)
        found = await find_exec(str(folder))
        self._add(one)
        one.running = True
        one.ready.set()
        if isinstance(found, ExecSession):
            one.session = found
            self._watch(one)
        else:
            await self._land(one, found or lost())

    def _watch(self, one: Exec) -> None:
        self._world.tasks.start(self._await_end(one), f"exec {one.id[:12]}", watches=True)

    async def _await_end(self, one: Exec) -> None:
        assert one.session is not None
        await self._land(one, await asyncio.shield(one.session.exited))

    async def _land(self, one: Exec, ended: ExecExit) -> None:
        """Enter how an exec ended. Its folder goes before that is told, so that it is not told again."""
        if not ended.known:
            log.warning("exec %s: %s", one.id, ended.error, extra={"container": one.container.id})
            path = await asyncio.to_thread(self._world.use.cgroup_path, one.container)
            await asyncio.to_thread(kill_session, one.folder, path)
        one.exit_code, one.running = ended.code, False
        await asyncio.to_thread(shutil.rmtree, one.folder, ignore_errors=True)
        self._tell(one, "exec_die", {"exitCode": str(ended.code)})

    async def _sweep(self) -> None:
        """Forget what ended a while ago."""
        while True:
            await asyncio.sleep(SWEEP_S)
            for one in list(self._execs.values()):
                if one.can_remove or one.container.removed:
                    del self._execs[one.id]
                one.can_remove = one.exit_code is not None


def _check_active(container: Container, ref: str) -> None:
    if not container.state.running:
        raise Conflict(f"container {container.id} is not running")
    if container.state.paused:
        raise Conflict(f"Container {ref} is paused, unpause the container before exec")
    check_not_restarting(container)


def _abandon(starting: "asyncio.Future[ExecStream]") -> None:
    """Close the streams of an exec whose client went away during its start."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().close()
