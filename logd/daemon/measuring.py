"""Puts the metrics together: what the daemon and its machine are, and which collectors there are."""

import os
import platform
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version

from logd.api import host
from logd.api.system import daemon_id
from logd.config import DaemonConfig
from logd.engine.engine import Engine
from logd.events import EventBus
from logd.metrics.containers import ContainerCollector
from logd.metrics.daemon import NETWORK, DaemonMetrics, Identity
from logd.metrics.groups import Machine
from logd.metrics.pipeline import PipelineCollector
from logd.metrics.scrape import Scraper
from logd.metrics.subjects import Subjects


def make_scraper(engine: Engine, events: EventBus, config: DaemonConfig, stack: AsyncExitStack) -> Scraper:
    """Return what answers scrapers, until the stack closes. Raises OSError where the host can't be looked at."""
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
    daemon = DaemonMetrics(engine, events, engine.health_counts, identity)
    engine.networks.took = partial(daemon.took, NETWORK)
    pipeline = PipelineCollector(engine, subjects, daemon.logger)
    stack.push_async_callback(pipeline.close)
    containers = ContainerCollector(engine, subjects, config, machine, pipeline.layer_bytes)
    scraper = Scraper(daemon, [containers, pipeline])
    stack.callback(scraper.close)
    return scraper
