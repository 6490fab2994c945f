"""A container's process from start to exit: start, stop, kill, restart, and what follows when it ends.

The order at the end: the exit is recorded in memory at once (its durable record is the shim's exit.json), then the
output is awaited to its end, then waiters are answered, and the slow part (the runtime's delete, the unmount) comes
last, in the background. The next start or removal waits for that part.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from logd.container import Container
from logd.engine.attach import begin_attachments, end_attachments
from logd.engine.execs import Execs
from logd.engine.freezing import Freezer
from logd.engine.health import HealthMonitors
from logd.engine.joining import others_started
from logd.engine.launching import command_line, launch_of, prepare, runtime_of, take_down
from logd.engine.limit_updates import Updates
from logd.engine.logopts import store_options
from logd.engine.restarts import Restarts, check_not_restarting
from logd.engine.runtime_commands import run_command
from logd.engine.signals import means_stop, parse_signal, stop_signal_of
from logd.engine.userns import enter_user_namespace
from logd.engine.world import World
from logd.errors import Conflict, LogdError, NotModified
from logd.logstore.reader import end_positions
from logd.logstore.unobserved import note_unobserved_end
from logd.runtime.command import RUNTIME_FAILED_EXIT
from logd.runtime.oci import delete_argv
from logd.runtime.protocol import ExitStatus
from logd.runtime.shim_client import RuntimeFailure, Shim
from logd.units import NS

log = logging.getLogger(__name__)

KILL_WAIT_S: Final = 2.0
"""How long `kill -9` waits for the end of the process; it answers in any case, a stuck disk must not hold it."""
DRAIN_WAIT_S: Final = 5.0
"""The shim announces the end of the output at most 2 s after the exit; beyond this it is taken to be stuck."""
GONE_WAIT_S: Final = 0.5
"""A shim ends right after the end of the output, if nobody else holds the pipes."""
QUIT_WAIT_S: Final = 10.0


class Lifecycle:
    """The verbs on processes. `auto_remove` removes a container that was created with --rm and has ended."""

    def __init__(self, world: World, auto_remove: Callable[[Container], Awaitable[None]]) -> None:
        self._world = world
        self._auto_remove = auto_remove
        self.restarts = Restarts(world, self._start, partial(others_started, world.registry))
        self.health = HealthMonitors(world, partial(runtime_of, world.config))
        self.execs = Execs(world, partial(runtime_of, world.config))
        self.freezer = Freezer(world, partial(runtime_of, world.config))
        self.updates = Updates(world, partial(runtime_of, world.config))

    async def start(self, container: Container) -> None:
        """Start a container. Raises NotModified if it runs, Conflict if it is being removed, and what launch raises."""
        async with container.lock:
            _check_startable(container)
            if container.settling:
                await container.log_ended.wait()
                _check_startable(container)
            self.restarts.forget(container)
            self.restarts.forgive(container)
            container.state.running = container.state.restarting = False
            await self._start(container)

    async def _start(self, container: Container) -> None:
        try:
            if container.cleanup is not None:
                await asyncio.shield(container.cleanup)
            await self.end_lingering(container)
            container.run += 1
            container.state.starting_ns = time.time_ns()
            await self._world.connections.enter(container)
            await self._launch(container)
        except BaseException as error:
            await self._start_failed(container, error)
            if isinstance(error, OSError):
                raise LogdError(f"can't start container {container.name}: {error}") from error
            raise

    async def _launch(self, container: Container) -> None:
        """Bring up the process; meanwhile, but before the command runs, mark it in container.json and tell of it."""
        world = self._world
        beside = [asyncio.ensure_future(world.writer.saved(container))]
        try:
            await world.volumes.hold(container.volume_names, container.id)
            await asyncio.to_thread(enter_user_namespace, world, container)
            await _all_of(asyncio.to_thread(prepare, world, container), world.connections.build(container))
            if container.endpoints:
                beside.append(asyncio.ensure_future(world.networks.changed(container)))
            shim = await world.supervisor.launch(launch_of(world.config, container))
        except BaseException:
            await asyncio.gather(*beside, return_exceptions=True)
            raise
        container.shim = shim
        world.use.begin(container, shim.pid)
        await _all_of(*beside)
        container.log_ended.clear()
        await begin_attachments(container, shim)
        started_ns = time.time_ns()
        await shim.start()
        self.took_off(container, shim, started_ns)
        world.connections.announce(container)
        world.tell_volumes(container, "mount")
        world.tell(container, "start")
        log.info("started container %s", container.name, extra={"container": container.id})

    def took_off(self, container: Container, shim: Shim, started_ns: int) -> None:
        """Enter the state "running" and watch for the exit; also for a container found running by a new daemon."""
        state = container.state
        state.running, state.starting_ns, state.restarting = True, 0, False
        state.pid, state.exit_code, state.signal, state.exit_known = shim.pid, 0, None, True
        state.oom_killed, state.error = False, ""
        is_new, state.started_ns = started_ns != state.started_ns, started_ns
        state.paused = state.paused and not is_new
        container.shim = shim
        container.log_ended.clear()
        self._world.use.begin(container, shim.pid)
        self.health.begin(container, is_new=is_new)
        self._world.writer.save(container)
        self._world.tasks.start(self._watch(container, shim), f"exit of {container.id[:12]}", watches=True)
        self._world.deliveries.begin(container)

    async def _start_failed(self, container: Container, error: BaseException) -> None:
        """Undo a start and keep its reason, as dockerd does: the state stays what it was, with an exit code."""
        state = container.state
        shim, container.shim = container.shim, None
        if shim is not None:
            container.lingering = shim
            with contextlib.suppress(ProcessLookupError):
                shim.signal(signal.SIGKILL)
            await asyncio.wait({shim.exited}, timeout=KILL_WAIT_S)
        state.error = str(error) or type(error).__name__
        was_restarting = state.restarting
        if not was_restarting:  # else it is that of the last run, and no further restart comes
            state.exit_code = error.container_exit_code if isinstance(error, RuntimeFailure) else RUNTIME_FAILED_EXIT
        state.running, state.starting_ns, state.restarting = False, 0, False
        log.warning("start of %s failed: %s", container.name, state.error, extra={"container": container.id})
        self._world.writer.save(container)
        container.log_ended.set()
        end_attachments(container, waiting=True)
        await self.clean_up(container)
        container.tell_waiters(exited=was_restarting)
        if container.host.auto_remove:
            await self._auto_remove(container)

    async def _watch(self, container: Container, shim: Shim) -> None:
        status = await shim.exited
        container.settling = True
        self.landed(container, status)
        try:
            container.ended_positions = await self._end_of_output(container, shim)
        finally:
            container.settling = False
            container.shim, container.lingering = None, shim
            await self.ended(container)

    async def _end_of_output(self, container: Container, shim: Shim) -> tuple[int, int]:
        """Wait for the end of the output and return its positions; if the shim is stuck or lost, what is stored."""
        try:
            ends = await asyncio.wait_for(asyncio.shield(shim.drained), DRAIN_WAIT_S)
        except TimeoutError:
            log.warning("the end of the output was not announced in time", extra={"container": container.id})
            ends = (0, 0)
        if not shim.saw_end:
            await self.lose_sight(container)
        if ends == (0, 0):
            ends = await asyncio.to_thread(end_positions, str(container.log_dir))
        return ends

    async def lose_sight(self, container: Container) -> None:
        """Note in a container's log that its end may be missing: all of our processes were killed before it."""
        options = store_options(container.host.log_config, self._world.config)
        try:
            noted = await asyncio.to_thread(note_unobserved_end, str(container.log_dir), options, container.run)
        except OSError as error:
            log.warning("the log does not tell that its end is missing: %s", error, extra={"container": container.id})
            return
        if noted:
            log.warning("the end of the output was not observed; noted as a gap", extra={"container": container.id})

    def landed(self, container: Container, status: ExitStatus) -> None:
        """Record an exit, and whether a restart is due."""
        state = container.state
        state.running, state.starting_ns, state.paused, state.restarting, state.pid = False, 0, False, False, 0
        state.exit_code, state.signal, state.exit_known = status.code, status.signal, status.known
        state.oom_killed, state.finished_ns = status.oom_killed, status.finished_ns or time.time_ns()
        self.health.end(container)
        self.restarts.decide(container)
        self._world.writer.save(container)

    async def ended(self, container: Container) -> None:
        """Do what follows an exit and the end of the output: events, answers, cleaning, removal if it was asked for."""
        world, state = self._world, container.state
        container.log_ended.set()
        end_attachments(container)
        self._world.deliveries.end(container)
        duration_s = max(0, state.finished_ns - state.started_ns) // NS
        if state.oom_killed:
            world.tell(container, "oom")
        world.tell(container, "die", {"exitCode": str(state.exit_code), "execDuration": str(duration_s)})
        removes = container.host.auto_remove and not container.restart_asked
        departing = world.tasks.start(world.connections.depart(container), f"departure of {container.id[:12]}")
        if not removes:  # at once: a start that comes meanwhile has to wait for it
            cleaning = self._clean_up_after(departing, container)
            container.cleanup = world.tasks.start(cleaning, f"cleaning of {container.id[:12]}")
        await asyncio.wait({departing})
        world.tell_volumes(container, "unmount")
        log.info("container %s exited with %d", container.name, state.exit_code, extra={"container": container.id})
        container.tell_waiters()
        if removes:
            await self._auto_remove(container)
        self.restarts.begin(container)

    async def _clean_up_after(self, departing: "asyncio.Task[None]", container: Container) -> None:
        await asyncio.wait({departing})
        await self.clean_up(container)

    async def clean_up(self, container: Container) -> None:
        """Remove what belongs to the process: the runtime's state and cgroup, the mount, the exec folder.

        The exec folder holds a copy of the exit status, so it goes after container.json has it; while a shim still
        stores the output of some process of the host, it stays, since the shim's socket is in it. What the run used
        is saved before the cgroup goes, but a disk that takes nothing holds no cgroup.
        """
        await self.health.ended(container)
        try:
            try:
                self._world.use.end(container)
                await self._world.connections.leave(container)
                if not container.removed:
                    await self._world.writer.saved(container)
            finally:
                await self._runtime_delete(runtime_of(self._world.config, container), container.id)
            await self.execs.ended(container)
            await asyncio.to_thread(take_down, container, keep_exec_dir=not await _is_gone(container.lingering))
        except (LogdError, OSError) as error:
            log.warning("not cleaned up: %s", error, extra={"container": container.id})
        await self._world.volumes.release(container.volume_names, container.id)

    async def end_lingering(self, container: Container) -> None:
        """Take the store from a shim that goes on after its container's exit: the next one needs it."""
        shim, container.lingering = container.lingering, None
        if shim is not None and not shim.gone.is_set():
            await shim.quit()
            if not await _is_gone(shim, QUIT_WAIT_S):
                raise LogdError(f"the last shim of container {container.id} does not end; is its disk stuck?")

    async def delete_stray(self, container_id: str, *, force: bool) -> bool:
        """Remove what the default runtime keeps of a container that is not known; false if it refuses."""
        config = self._world.config
        runtime = command_line(config, config.default_runtime)
        return await self._runtime_delete(runtime, container_id, force=force)

    async def _runtime_delete(self, runtime: tuple[str, ...], container_id: str, *, force: bool = True) -> bool:
        """Have the runtime forget a container: politely, then by force. False if it does not."""
        argv = delete_argv(runtime, container_id)
        attempts = [argv, [*argv[:-1], "--force", argv[-1]]] if force else [argv]
        for attempt in attempts:
            code, words = await run_command(attempt)
            if code == 0:
                return True
            log.debug("%s: %s", " ".join(attempt), words)
        return False

    async def signal(self, container: Container, number: int) -> bool:
        """Send a signal; one that means the end lets a paused container go on. False if the process is gone already.

        Raises Conflict if nothing runs.
        """
        check_not_restarting(container)
        if not container.state.running or container.shim is None:
            raise Conflict(f"container {container.id} is not running")
        try:
            container.shim.signal(number)
        except ProcessLookupError:
            return False
        self._world.tell(container, "kill", {"signal": str(number)})
        await self.freezer.thaw(container, number)
        return True

    async def kill(self, container: Container, text: str) -> None:
        """Send a signal by name or number, SIGKILL by default, after which the exit is awaited for a short while."""
        number = parse_signal(text) if text else signal.SIGKILL
        if container.state.running and means_stop(container.spec.stop_signal, number):
            await self._note_stop(container)
            if await self.restarts.give_up(container):
                return
        await self.signal(container, number)
        if number == signal.SIGKILL:
            await self.await_exit(container, KILL_WAIT_S)

    async def await_exit(self, container: Container, timeout_s: float | None) -> bool:
        """Wait for the exit and the end of the output; False if it takes longer."""
        future = container.wait("not-running")
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self, container: Container, signal_name: str | None, timeout_s: int | None) -> None:
        """Ask a container to stop, and kill it after the timeout. Raises NotModified if it does not run."""
        if not container.state.running:
            raise NotModified("container is already stopped")
        number = parse_signal(signal_name) if signal_name else stop_signal_of(container.spec.stop_signal)
        if timeout_s is None:
            timeout_s = container.spec.stop_timeout
        if timeout_s is None:
            timeout_s = self._world.config.default_stop_timeout
        await self._note_stop(container)
        if not await self.restarts.give_up(container):
            with contextlib.suppress(Conflict):
                await self.signal(container, number)
        if not await self.await_exit(container, timeout_s if timeout_s >= 0 else None):
            log.info(
                "%s did not stop in %d s, killing it", container.name, timeout_s, extra={"container": container.id}
            )
            with contextlib.suppress(Conflict):
                await self.signal(container, signal.SIGKILL)
            if not await self.await_exit(container, DRAIN_WAIT_S + KILL_WAIT_S):
                raise LogdError(f"cannot stop container: {container.name}: tried to kill it, but saw no exit")
        self._world.tell(container, "stop")

    async def _note_stop(self, container: Container) -> None:
        """Have the restart policy leave a container alone, under the next daemon too (a frozen disk has no say)."""
        container.state.manually_stopped = True
        if container.host.restart_policy.name != "no":
            with contextlib.suppress(LogdError, TimeoutError):
                await asyncio.wait_for(self._world.writer.saved(container), KILL_WAIT_S)

    async def restart(self, container: Container, signal_name: str | None, timeout_s: int | None) -> None:
        """Stop a container if it runs, and start it."""
        container.restart_asked = True
        try:
            with contextlib.suppress(NotModified):
                await self.stop(container, signal_name, timeout_s)
        finally:
            container.restart_asked = False
        with contextlib.suppress(NotModified):
            await self.start(container)
        self._world.tell(container, "restart")


def _check_startable(container: Container) -> None:
    state = container.state
    if state.paused:
        raise Conflict("cannot start a paused container, try unpause instead")
    if state.has_process:
        raise NotModified("container is already running")
    if state.removing or state.dead or container.removed:
        raise Conflict("container is marked for removal and cannot be started")


async def _all_of(*work: Awaitable[None]) -> None:
    """Wait for the end of all, also where one fails: nothing goes on behind what undoes it."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _is_gone(shim: Shim | None, timeout_s: float = GONE_WAIT_S) -> bool:
    """Tell whether a shim has ended, or does so soon."""
    if shim is None:
        return True
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(shim.gone.wait(), timeout_s)
    return shim.gone.is_set()
