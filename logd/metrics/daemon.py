"""What the daemon counts of itself: dockerd's engine_daemon_* and logger_*, requests, streams, its build.

Names, labels and meanings of engine_daemon_* and logger_* are dockerd's (moby daemon/internal/metrics/metrics.go and
daemon/logger/metrics.go): an action is timed where it succeeds. One name is typed otherwise: since a gauge can't end in
_total, engine_daemon_events_subscribers_total has no type.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import prometheus_client
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from logd.container import Container
from logd.events import EventBus
from logd.metrics import process
from logd.metrics.families import Family
from logd.metrics.process import Process, metric

CONTAINER: Final = "container"
IMAGE: Final = "image"
NETWORK: Final = "network"
HOST: Final = "host"
TIMERS: Final = {
    CONTAINER: Family(
        "engine_daemon_container_actions_seconds", "histogram", "How long each container action took.", ("action",)
    ),
    IMAGE: Family("engine_daemon_image_actions_seconds", "histogram", "How long each image action took.", ("action",)),
    NETWORK: Family(
        "engine_daemon_network_actions_seconds", "histogram", "How long each network action took.", ("action",)
    ),
    HOST: Family(
        "engine_daemon_host_info_functions_seconds",
        "histogram",
        "How long it took to gather information about the host.",
        ("function",),
    ),
}
ACTIONS: Final = {
    CONTAINER: ("changes", "commit", "create", "delete", "start"),
    IMAGE: ("delete", "history", "import", "load"),
    NETWORK: ("allocate", "connect", "release"),
    HOST: ("system_info", "system_version"),
}
"""What is timed; those of containers are all that dockerd has, of which some never happen here."""
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""dockerd's, which are those of Prometheus' client for Go."""
STATES: Final = Family("engine_daemon_container_states_containers", "gauge", "Containers by state.", ("state",))
ENGINE_LABELS: Final = (
    *("version", "commit", "architecture", "graphdriver", "kernel", "os", "os_type", "os_version", "daemon_id"),
)
ENGINE: Final = Family("engine_daemon_engine_info", "gauge", "The engine and its system, always 1.", ENGINE_LABELS)
CPUS: Final = Family("engine_daemon_engine_cpus_cpus", "gauge", "CPUs of the host.")
MEMORY: Final = Family("engine_daemon_engine_memory_bytes", "gauge", "Memory of the host.")
EVENTS: Final = Family("engine_daemon_events_total", "counter", "Events published.")
SUBSCRIBERS: Final = Family(
    "engine_daemon_events_subscribers_total", "unknown", "Clients that follow the events now (a gauge)."
)
CHECKS: Final = Family("engine_daemon_health_checks_total", "counter", "Health checks run.")
CHECKS_FAILED: Final = Family("engine_daemon_health_checks_failed_total", "counter", "Health checks that failed.")
WRITES_FAILED: Final = Family(
    "logger_log_write_operations_failed_total",
    "counter",
    "Deliveries of log records that failed, to be tried again or given up.",
)
READS_FAILED: Final = Family(
    "logger_log_read_operations_failed_total", "counter", "Requests for logs that ended in an error of the daemon."
)
TOO_LONG: Final = Family(
    "logger_log_entries_size_greater_than_buffer_total",
    "counter",
    "Lines that log drivers got in parts, being longer than max-line-size.",
)
BUILD: Final = Family("logd_build_info", "info", "The versions of logd and Python, always 1.", ("version", "python"))
REQUESTS: Final = Family(
    "logd_api_requests_total",
    "counter",
    "Requests by the route that answered, as it is documented; other: none did, or no known method.",
    ("method", "route", "code"),
)
STREAMS: Final = Family("logd_api_streams", "gauge", "Answers under way that last, such as logs.", ("kind",))
CUT: Final = Family(
    "logd_api_connections_cut_total",
    "counter",
    "Connections to the API that were ended unanswered: of a peer with too-many, or with a slow-head of a request.",
    ("reason",),
)
CUT_REASONS: Final = ("slow-head", "too-many")
FAMILIES: Final = (
    *TIMERS.values(),
    *(STATES, ENGINE, CPUS, MEMORY, EVENTS, SUBSCRIBERS, CHECKS, CHECKS_FAILED),
    *(WRITES_FAILED, READS_FAILED, TOO_LONG, BUILD, REQUESTS, STREAMS, CUT),
    *process.FAMILIES,
)
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
OTHER: Final = "other"
"""The label of any other method, of which a client can make up as many as it likes."""


class Source(Protocol):
    """The engine, as far as it is looked at."""

    def containers(self) -> list[Container]:
        """Return all containers."""


class HealthCounts(Protocol):
    """How many health checks have been run, and how many of them have failed."""

    checks: int
    failed: int


@dataclass
class LoggerCounts:
    """dockerd's logger_*. Whoever sees one of these adds to it, in the event loop."""

    writes_failed: int = 0
    reads_failed: int = 0
    entries_too_long: int = 0


@dataclass(frozen=True)
class Identity:
    """What the daemon and its machine are: the labels of BUILD and ENGINE, and the machine's size."""

    build: Mapping[str, str]
    engine: Mapping[str, str]
    cpus: int
    memory_bytes: int


class DaemonMetrics:
    """The daemon's own metrics, in a registry of prometheus-client. They are counted in the event loop."""

    def __init__(self, source: Source, events: EventBus, health: HealthCounts, identity: Identity) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it declares no types
        self.registry: Final = CollectorRegistry(auto_describe=True)
        self.logger: Final = LoggerCounts()
        self._process = Process()
        self._engine = _Engine(source, events, health, self.logger, identity)
        self.registry.register(self._process)
        self.registry.register(self._engine)
        self._timers = {kind: _timer(self.registry, kind) for kind in TIMERS}
        self._requests = prometheus_client.Counter(
            REQUESTS.name, REQUESTS.help, REQUESTS.labels, registry=self.registry
        )
        self._streams = prometheus_client.Gauge(STREAMS.name, STREAMS.help, STREAMS.labels, registry=self.registry)

        self._cut = prometheus_client.Counter(CUT.name, CUT.help, CUT.labels, registry=self.registry)
        for reason in CUT_REASONS:
            self._cut.labels(reason)

    def close(self) -> None:
        """Close what is kept open."""
        self._process.close()

    def look(self) -> None:
        """Note what only the event loop may look at, before a scrape."""
        self._engine.look()

    def took(self, kind: str, action: str, seconds: float) -> None:
        """Count an action that has succeeded."""
        self._timers[kind].labels(action).observe(seconds)

    def answered(self, method: str, route: str, code: int) -> None:
        """Count a request; `route` has names in place of what a client can choose, "" where nothing answers."""
        self._requests.labels(method if method in METHODS else OTHER, route or OTHER, str(code)).inc()

    def cut(self, reason: str) -> None:
        """Count a connection that was ended without an answer."""
        self._cut.labels(reason).inc()

    def expect_streams(self, kinds: Sequence[str]) -> None:
        """Have a series for each kind from the start."""
        for kind in kinds:
            self._streams.labels(kind)

    @contextlib.contextmanager
    def streaming(self, kind: str) -> Iterator[None]:
        """Count an answer that lasts."""
        with self._streams.labels(kind).track_inprogress():
            yield


def _timer(registry: CollectorRegistry, kind: str) -> prometheus_client.Histogram:
    family = TIMERS[kind]
    made = prometheus_client.Histogram(family.name, family.help, family.labels, registry=registry, buckets=BUCKETS_S)
    for known in ACTIONS[kind]:
        made.labels(known)
    return made


class _Engine(Collector):
    """What dockerd counts and is read where it is kept."""

    def __init__(
        self, source: Source, events: EventBus, health: HealthCounts, logger: LoggerCounts, identity: Identity
    ) -> None:
        self._source = source
        self._events = events
        self._health = health
        self._logger = logger
        self._identity = identity
        self._states = {"running": 0, "paused": 0, "stopped": 0}

    def look(self) -> None:
        """Count containers by state, which changes in the event loop only."""
        states = [container.state for container in self._source.containers()]
        running = sum(state.running for state in states)
        paused = sum(state.running and state.paused for state in states)
        self._states = {"running": running - paused, "paused": paused, "stopped": len(states) - running}

    def describe(self) -> Iterator[Metric]:
        """Return the families."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Return the figures of now, and of the last look."""
        yield metric(STATES, {(state,): number for state, number in self._states.items()})
        identity = self._identity
        yield metric(ENGINE, {tuple(identity.engine[label] for label in ENGINE.labels): 1})
        yield metric(BUILD, {tuple(identity.build[label] for label in BUILD.labels): 1})
        yield metric(CPUS, {(): identity.cpus})
        yield metric(MEMORY, {(): identity.memory_bytes})
        yield metric(EVENTS, {(): self._events.published})
        yield metric(SUBSCRIBERS, {(): self._events.listeners})
        yield metric(CHECKS, {(): self._health.checks})
        yield metric(CHECKS_FAILED, {(): self._health.failed})
        yield metric(WRITES_FAILED, {(): self._logger.writes_failed})
        yield metric(READS_FAILED, {(): self._logger.reads_failed})
        yield metric(TOO_LONG, {(): self._logger.entries_too_long})
