"""What probes make of a container's health: when the next one is due, and what its result changes. No I/O.

                 success     failure, within the start period    failure, after it
    starting     healthy     starting                            starting, after `retries` of them unhealthy
    healthy      healthy     healthy, after `retries` in a row unhealthy
    unhealthy    healthy     unhealthy

Source: Docker's reference for the Dockerfile, HEALTHCHECK; defaults and bounds, dockerd 27 (Docker Engine API 1.47,
HealthConfig).
"""

from dataclasses import dataclass
from typing import Final

from logd.container import Health, Probe
from logd.spec import ContainerSpec
from logd.units import NS, format_duration

INTERVAL_NS: Final = 30 * NS
TIMEOUT_NS: Final = 30 * NS
START_INTERVAL_NS: Final = 5 * NS
RETRIES: Final = 3
KEPT_PROBES: Final = 5
MAX_OUTPUT_BYTES: Final = 4096
SHELL: Final = ("/bin/sh", "-c")
KINDS: Final = ("NONE", "CMD", "CMD-SHELL")
"""The first word of a check's Test."""
NO_EXIT_CODE: Final = -1
"""The exit code that stands for a probe that did not end in time, or could not be started."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A health check with nothing left open; durations are nanoseconds."""

    argv: tuple[str, ...]
    interval_ns: int
    timeout_ns: int
    start_period_ns: int
    start_interval_ns: int
    retries: int

    @property
    def timeout_s(self) -> float:
        """How long a probe may run."""
        return self.timeout_ns / NS


def check_of(spec: ContainerSpec) -> Check | None:
    """Return the health check of a container; None if it has none, or one of a kind that nobody knows."""
    asked = spec.healthcheck
    if asked is None or len(asked.test) < 2:
        return None
    kind, *command = asked.test
    if kind not in {"CMD", "CMD-SHELL"}:
        return None
    shell = (spec.shell or SHELL) if kind == "CMD-SHELL" else ()
    return Check(
        argv=(*shell, *command),
        interval_ns=asked.interval or INTERVAL_NS,
        timeout_ns=asked.timeout or TIMEOUT_NS,
        start_period_ns=asked.start_period,
        start_interval_ns=asked.start_interval or START_INTERVAL_NS,
        retries=asked.retries if asked.retries > 0 else RETRIES,
    )


def delay_ns(check: Check, health: Health, since_start_ns: int) -> int:
    """Return how long to wait from the end of a probe, or the start of the container, to the next probe."""
    is_starting = health.status == "starting" and since_start_ns < check.start_period_ns
    return check.start_interval_ns if is_starting else check.interval_ns


def spread_ns(wait_ns: int, container_id: str) -> int:
    """Return a part of the first wait after a new daemon has found its containers, all at the same moment."""
    return wait_ns * int(container_id[:8], 16) >> 32


def judge(check: Check, health: Health, probe: Probe, started_ns: int) -> Health:
    """Return the health after a probe of a container that was started at `started_ns`."""
    kept = [*health.log, probe][-KEPT_PROBES:]
    if probe.exit_code == 0:
        return Health(status="healthy", failing_streak=0, log=kept)
    if health.status == "starting" and probe.start_ns - started_ns < check.start_period_ns:
        return Health(status="starting", failing_streak=health.failing_streak, log=kept)
    streak = health.failing_streak + 1
    return Health(status="unhealthy" if streak >= check.retries else health.status, failing_streak=streak, log=kept)


def restarted(health: Health | None) -> Health:
    """Return the health of a container that was just started; the probes of its last run stay to be seen."""
    return Health(log=health.log if health else [])


def output_text(output: bytes, *, is_cut: bool) -> str:
    """Return what a probe printed as it is shown; what is no UTF-8 is replaced."""
    return output.decode(errors="replace") + ("..." if is_cut else "")


def timeout_text(check: Check, printed: str) -> str:
    """Return what is shown of a probe that did not end in time, in dockerd's words."""
    words = f"Health check exceeded timeout ({format_duration(check.timeout_ns)})"
    return f"{words}: {printed}" if printed else words
