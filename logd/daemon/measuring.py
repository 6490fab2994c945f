"""Puts the metrics together: what the daemon and its machine are, and which collectors there are."""

import os
import platform
from importlib.metadata import version

from logd.api import host
from logd.api.system import daemon_id
from logd.config import DaemonConfig
from logd.engine.engine import Engine
from logd.events import EventBus
from logd.metrics.containers import ContainerCollector
from logd.metrics.daemon import DaemonMetrics, HealthCounts, Identity
from logd.metrics.groups import Machine
from logd.metrics.scrape import Scraper
from logd.metrics.subjects import Subjects


def make_scraper(engine: Engine, events: EventBus, config: DaemonConfig) -> Scraper:
    """Return what answers scrapers; close it. Raises OSError where the host can't be looked at."""
    machine = Machine(os.cpu_count() or 1, host.memory_total())
    release = host.os_release()
    identity = Identity(
        build={"version": version("logd"), "python": platform.python_version()},
        engine={
            "version": version("logd"),
            "commit": "",
            "architecture": platform.machine(),
            "graphdriver": "overlay2",
            "kernel": platform.release(),
            "os": release.get("PRETTY_NAME", ""),
            "os_type": "linux",
            "os_version": release.get("VERSION_ID", ""),
            "daemon_id": daemon_id(config.data_root),
        },
        cpus=machine.cpus,
        memory_bytes=machine.memory_bytes,
    )
    subjects = Subjects(config, engine.cgroup_path)
    containers = ContainerCollector(engine, subjects, config, machine, lambda _: None)
    return Scraper(
        DaemonMetrics(engine, events, getattr(engine, "health_counts", HealthCounts()), identity), [containers]
    )
