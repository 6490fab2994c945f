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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from logd.container import Container
from logd.events import EventBus
from logd.metrics.process import Process

CONTAINER: Final = "container"
IMAGE: Final = "image"
HOST: Final = "host"
ACTIONS: Final = {
    CONTAINER: ("changes", "commit", "create", "delete", "start"),
    IMAGE: ("delete", "history", "import", "load"),
    HOST: ("system_info", "system_version"),
    "network": (),
}
"""What is timed, by its kind; those of containers are all that dockerd has, of which some never happen here."""
_TIMERS: Final = {
    CONTAINER: ("container_actions", "action", "How long each container action took."),
    IMAGE: ("image_actions", "action", "How long each image action took."),
    HOST: ("host_info_functions", "function", "How long it took to gather information about the host."),
    "network": ("network_actions", "action", "How long each network action took."),
}
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""dockerd's, which are those of Prometheus' client for Go."""
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
OTHER: Final = "other"
"""The label of any other method, of which a client can make up as many as it likes."""


class Source(Protocol):
    """The engine, as far as it is looked at."""

    def containers(self) -> list[Container]:
        """Return all containers."""


@dataclass
class HealthCounts:
    """How many health checks have been run, and how many of them have failed."""

    checks: int = 0
    failed: int = 0


@dataclass
class LoggerCounts:
    """dockerd's logger_*. Whoever sees one of these adds to it, in the event loop."""

    writes_failed: int = 0
    reads_failed: int = 0
    entries_too_long: int = 0


@dataclass(frozen=True)
class Identity:
    """What the daemon and its machine are: the labels of logd_build_info and engine_info; bytes, and a number."""

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
        build = prometheus_client.Info("logd_build", "The versions of logd and Python.", registry=self.registry)
        build.info(dict(identity.build))
        self._timers = {kind: _timer(self.registry, kind) for kind in ACTIONS}
        self._requests = prometheus_client.Counter(
            "logd_api_requests",
            'Requests by the route that answered, as the documentation writes it ("other": there is none).',
            ("method", "route", "code"),
            registry=self.registry,
        )
        self._streams = prometheus_client.Gauge(
            "logd_api_streams", "Answers under way that last: logs, attach, events.", ("kind",), registry=self.registry
        )

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
    name, label, text = _TIMERS[kind]
    made = prometheus_client.Histogram(
        f"engine_daemon_{name}_seconds", text, (label,), registry=registry, buckets=BUCKETS_S
    )
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
        states = GaugeMetricFamily(
            "engine_daemon_container_states_containers", "Containers by state.", labels=["state"]
        )
        for state, number in self._states.items():
            states.add_metric([state], number)
        yield states
        engine = self._identity.engine
        info = GaugeMetricFamily("engine_daemon_engine_info", "The engine and its system.", labels=list(engine))
        info.add_metric(list(engine.values()), 1)
        yield info
        yield GaugeMetricFamily("engine_daemon_engine_cpus_cpus", "CPUs of the host.", self._identity.cpus)
        yield GaugeMetricFamily("engine_daemon_engine_memory_bytes", "Memory of the host.", self._identity.memory_bytes)
        yield CounterMetricFamily("engine_daemon_events", "Events published.", self._events.published)
        yield UnknownMetricFamily(
            "engine_daemon_events_subscribers_total", "Clients that follow the events now.", self._events.listeners
        )
        yield CounterMetricFamily("engine_daemon_health_checks", "Health checks run.", self._health.checks)
        yield CounterMetricFamily("engine_daemon_health_checks_failed", "Health checks failed.", self._health.failed)
        yield CounterMetricFamily(
            "logger_log_write_operations_failed",
            "Deliveries of log records that failed and are tried again, or were refused.",
            self._logger.writes_failed,
        )
        yield CounterMetricFamily(
            "logger_log_read_operations_failed", "Requests for logs that ended in an error.", self._logger.reads_failed
        )
        yield CounterMetricFamily(
            "logger_log_entries_size_greater_than_buffer",
            "Lines that a log driver got in parts, being longer than max-line-size.",
            self._logger.entries_too_long,
        )
