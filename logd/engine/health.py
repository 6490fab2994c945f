"""Health checks: a monitor for each running container that has one, which probes it from time to time.

The result is in `container.state.health`. It is written to the disk when the status changes and with whatever else
is; the kept probes of a daemon that was killed may be older ones. A new daemon goes on with the status that it finds.
"""

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

from logd.container import Container, Health, Probe
from logd.engine import health_state
from logd.engine.health_state import KINDS, MAX_OUTPUT_BYTES, NO_EXIT_CODE, Check
from logd.engine.world import World
from logd.errors import LogdError
from logd.runtime.exec import Capture, ExecRequest, end_stale
from logd.runtime.oci import exec_process
from logd.units import NS

log = logging.getLogger(__name__)

STARTS: Final = 4
"""Probes being started at once. The runtime takes some 30 ms of CPU for each; how many run is not bounded."""
KILLED_EXIT: Final = 137
"""128 + SIGKILL."""


class HealthCounts:
    """Of all containers since the daemon's start: probes, and those that could not be run (as dockerd counts)."""

    def __init__(self) -> None:
        self.checks = 0
        self.failed = 0


class HealthMonitors:
    """The monitors. `runtime_of` gives the OCI runtime's command line of a container."""

    def __init__(self, world: World, runtime_of: Callable[[Container], tuple[str, ...]]) -> None:
        self.counts = HealthCounts()
        self._world = world
        self._runtime_of = runtime_of
        self._starts = asyncio.Semaphore(STARTS)
        self._monitors: dict[str, asyncio.Task[None]] = {}
        self._requests: dict[str, ExecRequest] = {}
        self._exec_ids: dict[str, str] = {}

    def begin(self, container: Container, *, is_new: bool) -> None:
        """Watch a container that was just started (`is_new`), or that a new daemon found running."""
        state, check = container.state, health_state.check_of(container.spec)
        if check is None:
            state.health = None
            _warn_of_unknown(container)
            return
        if is_new or state.health is None:
            state.health = health_state.restarted(state.health)
        self._cancel(container)
        work = self._monitor(container, check, is_new=is_new)
        task = self._world.tasks.start(work, f"health of {container.id[:12]}", watches=True)
        self._monitors[container.id] = task
        task.add_done_callback(lambda ended: self._forget(container, ended))

    def end(self, container: Container) -> None:
        """Stop watching a container whose process has ended; it then counts as unhealthy, as in dockerd."""
        self._cancel(container)
        if container.state.health is not None:
            container.state.health.status = "unhealthy"

    def exec_ids(self, container: Container) -> list[str]:
        """Return the id of a container's probe, if one is running now."""
        return [self._exec_ids[container.id]] if container.id in self._exec_ids else []

    async def ended(self, container: Container) -> None:
        """Return when nothing is left of a container's last probe."""
        if task := self._monitors.get(container.id):
            await asyncio.wait({task})

    def _cancel(self, container: Container) -> None:
        self._requests.pop(container.id, None)
        if task := self._monitors.get(container.id):
            task.cancel()

    def _forget(self, container: Container, task: "asyncio.Task[None]") -> None:
        if self._monitors.get(container.id) is task:
            del self._monitors[container.id]

    async def _monitor(self, container: Container, check: Check, *, is_new: bool) -> None:
        wait_ns = self._wait_ns(container, check)
        if not is_new:
            await self._end_stale(container)
            wait_ns = health_state.spread_ns(wait_ns, container.id)
        while True:
            await asyncio.sleep(wait_ns / NS)
            if not container.state.paused:
                self._enter(container, check, await self._probe(container, check))
            wait_ns = self._wait_ns(container, check)

    def _wait_ns(self, container: Container, check: Check) -> int:
        health = container.state.health or Health()
        return health_state.delay_ns(check, health, time.time_ns() - container.state.started_ns)

    async def _end_stale(self, container: Container) -> None:
        try:
            path = await asyncio.to_thread(self._world.use.cgroup_path, container)
            await end_stale(container.id, path, container.exec_dir)
        except OSError as error:
            log.warning("a probe of an earlier daemon may go on: %s", error, extra={"container": container.id})

    def _enter(self, container: Container, check: Check, probe: Probe) -> None:
        """Take a result in; a change of the status is told and saved."""
        state = container.state
        before = state.health or Health()
        state.health = health_state.judge(check, before, probe, state.started_ns)
        if state.health.status != before.status:
            self._world.writer.save(container)
            self._world.tell(container, f"health_status: {state.health.status}")
            log.info("container %s is %s", container.name, state.health.status, extra={"container": container.id})

    async def _probe(self, container: Container, check: Check) -> Probe:
        """Run the check once; that it can't be run is a result too."""
        start_ns = time.time_ns()
        self.counts.checks += 1
        try:
            code, text = await self._run(container, check)
        except (LogdError, OSError, ValueError) as error:
            self.counts.failed += 1
            code, text = NO_EXIT_CODE, str(error)
            last = (container.state.health or Health()).log[-1:]
            if text not in {one.output for one in last}:  # said once
                log.warning("health check: %s", text, extra={"container": container.id})
        return Probe(start_ns=start_ns, end_ns=time.time_ns(), exit_code=code, output=text)

    async def _run(self, container: Container, check: Check) -> tuple[int, str]:
        """Return the exit code and what is shown of the output. Raises LogdError, OSError, ValueError."""
        request = await self._request(container, check)
        words, names = f"{check.argv[0]} {' '.join(check.argv[1:])}", {"execID": request.exec_id}
        capture = Capture(request, MAX_OUTPUT_BYTES)
        self._exec_ids[container.id] = request.exec_id
        try:
            async with self._starts:
                self._world.tell(container, f"exec_create: {words}", names)
                self._world.tell(container, f"exec_start: {words}", names)
                await capture.start()
            try:
                ended = await capture.finish(check.timeout_s)
            except asyncio.CancelledError:  # the container ends, and the process with it
                self._world.tell(container, "exec_die", {**names, "exitCode": str(KILLED_EXIT)})
                raise
            code = KILLED_EXIT if ended.code is None else ended.code
            self._world.tell(container, "exec_die", {**names, "exitCode": str(code)})
        finally:
            self._exec_ids.pop(container.id, None)
            await capture.close()
        text = health_state.output_text(ended.output, is_cut=ended.is_cut)
        return (NO_EXIT_CODE, health_state.timeout_text(check, text)) if ended.code is None else (ended.code, text)

    async def _request(self, container: Container, check: Check) -> ExecRequest:
        """Return what to run, under an id of its own; the rest stays the same while the container runs."""
        request = self._requests.get(container.id)
        if request is None:
            request = self._requests[container.id] = await asyncio.to_thread(self._make_request, container, check)
        return dataclasses.replace(request, exec_id=secrets.token_hex(32))

    def _make_request(self, container: Container, check: Check) -> ExecRequest:
        return ExecRequest(
            exec_id="",
            container_id=container.id,
            exec_dir=container.exec_dir,
            cgroup_path=self._world.use.cgroup_path(container),
            runtime=self._runtime_of(container),
            process=exec_process(container.exec_dir, check.argv),
            owner=container.root_ids,
        )


def _warn_of_unknown(container: Container) -> None:
    """Tell of an image whose check is of a kind that is not known; dockerd leaves it out too."""
    check = container.spec.healthcheck
    if check is not None and check.test and check.test[0] not in KINDS:
        words = "health check of an unknown kind %r (known: %s)"
        log.warning(words, check.test[0], ", ".join(KINDS), extra={"container": container.id})
