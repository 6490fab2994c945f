"""Where a container stands, as series: state, exit, restarts, health, OOM kills. A stopped container has them too."""

from typing import Final, get_args

from logd.container import Container, Status
from logd.metrics.families import CONTAINER, LOG, Family, Series
from logd.units import NS
from logd.usage import Counters

STATES: Final[tuple[str, ...]] = get_args(Status)
NO_HEALTH_CHECK: Final = -1
OOM_EVENTS: Final = Family(
    "container_oom_events_total", "counter", "Processes that the kernel killed for want of memory.", (), CONTAINER
)
LAST_SEEN: Final = Family("container_last_seen", "gauge", "Now, while it runs, in Unix time.", (), CONTAINER)
START_TIME: Final = Family(
    "container_start_time_seconds", "gauge", "When it was started; only while it runs.", (), CONTAINER
)
CREATION_TIME: Final = Family("container_creation_time_seconds", "gauge", "When it was created.", (), CONTAINER)
HEALTH: Final = Family(
    "container_health_state", "gauge", "1: healthy, 0: not, -1: no health check; only while it runs.", (), CONTAINER
)
INFO: Final = Family(
    "logd_container_info",
    "gauge",
    "What a container is, always 1.",
    ("image_id", "log_driver", "restart_policy", "runtime"),
    CONTAINER,
)
STATE: Final = Family("logd_container_state", "gauge", "1 for the state it is in; none once removed.", ("state",), LOG)
EXIT_CODE: Final = Family("logd_container_exit_code", "gauge", "Of the last run; none before its end.", (), LOG)
EXITED: Final = Family("logd_container_exited_timestamp_seconds", "gauge", "When the last run ended.", (), LOG)
RESTARTS: Final = Family("logd_container_restarts_total", "counter", "Restarts by its restart policy.", (), LOG)

RUNNING_ONLY: Final = (START_TIME, HEALTH)
FAMILIES: Final = (OOM_EVENTS, LAST_SEEN, *RUNNING_ONLY, CREATION_TIME, INFO, STATE, EXIT_CODE, EXITED, RESTARTS)


def info_of(container: Container) -> tuple[str, ...]:
    """Return the values of INFO's own labels."""
    host = container.host
    return container.image_id, host.log_config.type, host.restart_policy.name or "no", host.runtime


def container_series(info: tuple[str, ...], *, running: bool) -> list[Series]:
    """Return the series with a container's labels, in the order of `container_values`; LAST_SEEN, always new, apart."""
    lasting: list[Series] = [(INFO, *info), (CREATION_TIME,), (OOM_EVENTS,)]
    return [*lasting, *((family,) for family in RUNNING_ONLY)] if running else lasting


def container_values(container: Container, total: Counters, *, running: bool) -> tuple[float, ...]:
    """Return their values."""
    lasting = (1, container.created_ns / NS, total.oom_kills)
    return (*lasting, container.state.started_ns / NS, _health(container)) if running else lasting


def log_series(*, exists: bool, exited: bool) -> list[Series]:
    """Return the series with `id` and `name` alone, in the order of `log_values`."""
    found: list[Series] = [(RESTARTS,)]
    found += [(EXIT_CODE,), (EXITED,)] if exited else []
    return found + [(STATE, state) for state in STATES] if exists else found


def log_values(container: Container, *, exists: bool, exited: bool) -> tuple[float, ...]:
    """Return their values."""
    state = container.state
    values: list[float] = [container.restart_count]
    if exited:
        values += state.exit_code, state.finished_ns / NS
    if exists:
        status = state.status
        values += [int(one == status) for one in STATES]
    return tuple(values)


def is_running(container: Container) -> bool:
    """Tell whether it has a process: one that waits for its restart has none, though Docker calls it running."""
    return container.state.running and not container.state.restarting


def has_exited(container: Container) -> bool:
    """Tell whether there is an exit to show: of a container that does not run now."""
    return container.state.finished_ns > 0 and not is_running(container)


def _health(container: Container) -> int:
    health = container.state.health
    return NO_HEALTH_CHECK if health is None else int(health.status == "healthy")
