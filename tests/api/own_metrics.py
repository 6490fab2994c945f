"""The daemon's own metrics for an API without an engine."""

from types import SimpleNamespace
from typing import Any

from logd.events import EventBus
from logd.metrics.daemon import BUILD, ENGINE, DaemonMetrics, Identity


def own_metrics() -> Any:
    """Return what the API counts in; no process is measured."""
    engine: Any = SimpleNamespace(containers=list)
    identity = Identity(dict.fromkeys(BUILD.labels, ""), dict.fromkeys(ENGINE.labels, ""), cpus=1, memory_bytes=1)
    return SimpleNamespace(daemon=DaemonMetrics(engine, EventBus(), SimpleNamespace(checks=0, failed=0), identity))
