"""Restart policies: whether a container that has ended is started again, when, and the waiting for it.

A container that waits counts as running and "restarting", without a process. So it stands on the disk, and the next
daemon goes on waiting. An exit and the start of the daemon are the two occasions:

                      after an exit            when the daemon starts, if it ran once and does not run now
    no                stays ended              stays ended
    on-failure[:n]    code not 0, n at most    as after an exit
    unless-stopped    again                    again
    always            again                    again, also if a person stopped it
                      (none of them after a person stopped it)

Source: Docker's manual, "Start containers automatically"; the waits, the count and what a stop, kill, start or removal
of a container that waits does, dockerd 20.10.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from logd.container import Container
from logd.engine.world import World
from logd.errors import Conflict, LogdError
from logd.spec import RestartPolicy
from logd.units import NS

log = logging.getLogger(__name__)

FIRST_WAIT_NS: Final = NS // 10
LONGEST_WAIT_NS: Final = 60 * NS
STEADY_NS: Final = 10 * NS
"""Who ran for so long is not in a loop of crashes: the next wait is the first one again."""
PLACES: Final = 8
"""Restarts under way at once, so that a boot with hundreds of them leaves the API time to answer."""


def is_due(policy: RestartPolicy, *, exit_code: int, count: int, stopped: bool) -> bool:
    """Tell whether a container that has ended is to be started again, which was done `count` times before."""
    if stopped:
        return False
    if policy.name == "on-failure":
        return exit_code != 0 and (not policy.maximum_retry_count or count < policy.maximum_retry_count)
    return policy.name in {"always", "unless-stopped"}


def next_wait_ns(last_ns: int, ran_ns: int) -> int:
    """Return how long to wait after an exit, where the last wait was `last_ns` (0: none)."""
    if ran_ns >= STEADY_NS or not last_ns:
        return FIRST_WAIT_NS
    return min(2 * last_ns, LONGEST_WAIT_NS)


def rest_ns(wait_ns: int, finished_ns: int, now_ns: int) -> int:
    """Return what is left of a wait that began with an exit; all of it where the clock was set back since."""
    return max(0, wait_ns - max(0, now_ns - finished_ns))


def starts_with_daemon(container: Container) -> bool:
    """Tell whether a container that does not run is to be started when the daemon starts."""
    state, policy = container.state, container.host.restart_policy
    if state.running or state.removing or state.dead or container.removed or not state.started_ns:
        return False
    return policy.name == "always" or is_due(
        policy, exit_code=state.exit_code, count=container.restart_count, stopped=state.manually_stopped
    )


def check_not_restarting(container: Container) -> None:
    """Raise Conflict, in dockerd's words, where a process is needed and the container waits for its restart."""
    if container.state.restarting:
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")


class Restarts:
    """The containers that wait for a restart. `start` starts one, under its lock, and records a failure itself.

    `await_others` returns when those that a container joins don't wait for a restart any more.
    """

    def __init__(
        self,
        world: World,
        start: Callable[[Container], Awaitable[None]],
        await_others: Callable[[Container], Awaitable[None]],
    ) -> None:
        self._world = world
        self._await_others = await_others
        self._start = start
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._starting: set[str] = set()
        self._places = asyncio.Semaphore(PLACES)
        self._held = True
        """Until all is found again: what is cleared away before that could be a part of a new start."""

    def decide(self, container: Container) -> None:
        """Enter the state "restarting" if that is due after the exit that was just recorded; `begin` waits for it."""
        state = container.state
        stopped = state.manually_stopped or state.removing or container.removed
        policy = container.host.restart_policy
        if is_due(policy, exit_code=state.exit_code, count=container.restart_count, stopped=stopped):
            container.restart_count += 1
            state.restart_wait_ns = next_wait_ns(state.restart_wait_ns, state.finished_ns - state.started_ns)
            state.running = state.restarting = True

    def begin(self, container: Container) -> None:
        """Wait, and start a container that is "restarting"."""
        state = container.state
        if not state.restarting or self._world.closing or self._held:
            return
        wait_ns = rest_ns(state.restart_wait_ns, state.finished_ns, time.time_ns())
        self.forget(container)
        self._timers[container.id] = asyncio.get_running_loop().call_later(wait_ns / NS, self._fire, container)

    def begin_with_daemon(self, containers: Iterable[Container]) -> None:
        """Have those started that are to be when the daemon starts, and wait on for those that waited.

        Nobody waits for them: meanwhile they show as "restarting".
        """
        self._held = False
        for container in containers:
            state = container.state
            if state.restarting:
                state.running = True
            elif starts_with_daemon(container):
                self.forgive(container)
                state.running = state.restarting = True
            else:
                continue
            self._world.writer.save(container)
            if container.id not in self._timers:
                self.begin(container)

    def forgive(self, container: Container) -> None:
        """Count restarts from the beginning, for the policy also after a stop: as after a start by a person."""
        container.restart_count = 0
        container.state.restart_wait_ns = 0
        container.state.manually_stopped = False

    def forget(self, container: Container) -> None:
        """Wait no more; the state stays."""
        if timer := self._timers.pop(container.id, None):
            timer.cancel()

    async def give_up(self, container: Container) -> bool:
        """Have a container that waits for a restart be an ended one; false if it does not wait.

        A restart that is under way ends first, after which the container runs or has ended again.
        """
        state = container.state
        while state.restarting:
            if container.id not in self._starting:
                self.forget(container)
                state.running = state.restarting = False
                self._world.writer.save(container)
                if not container.settling:  # then they are answered at the end of the output
                    container.tell_waiters()
                return True
            async with container.lock:
                pass
        return False

    def _fire(self, container: Container) -> None:
        self._timers.pop(container.id, None)
        if not self._world.closing:
            self._world.tasks.start(self._again(container, container.run), f"restart of {container.id[:12]}")

    async def _again(self, container: Container, run: int) -> None:
        await self._await_others(container)
        async with self._places, container.lock:
            if self._world.closing or not container.state.restarting or container.run != run:
                return  # something else came first
            self._starting.add(container.id)
            try:
                with contextlib.suppress(LogdError):  # it is in the state, and in the log
                    await self._start(container)
            finally:
                self._starting.discard(container.id)
