"""What keeps containers from running well on this host, and their logs from arriving, as GET /logd/doctor answers it.

    GET /logd/doctor    [{"name", "status": ok|warn|fail, "found", "advice"}, …]

The daemon looks, not its client: it is the daemon's limits, files and destinations that count.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aiohttp import web

from logd import plugins
from logd.api import host
from logd.api.call import Call, Route, answer
from logd.config import DaemonConfig
from logd.doctor import daemon, disk, features, forwarding, holes, journald, kernel, permissions
from logd.doctor.check import Check
from logd.engine.logopts import logging_of
from logd.network.nft import table_name
from logd.spec import LogConfig

UNIX: Final = "unix://"
UDP_ADDRESSES: Final = ("syslog-address", "gelf-address")


async def examine(call: Call) -> web.Response:
    """GET /logd/doctor."""
    logged = [container.host.log_config for container in call.engine.containers()]
    ailing = await call.engine.ailing()
    links, table = call.engine.bridges_in_use(), table_name(call.parts.config.exec_root)
    config = call.parts.config
    checks = await asyncio.to_thread(
        lambda: [
            *host_checks(config, in_use=bool(links)),
            forwarding.forwarding(links, table),
            *_limits(logged),
            daemon.broken_plugins([(one.plugin, one.reason) for one in plugins.load().broken]),
        ]
    )
    return answer([one._asdict() for one in [*checks, daemon.destinations(ailing)]])


def host_checks(config: DaemonConfig, *, in_use: bool) -> Iterator[Check]:
    """Give what can be seen without a daemon too (blocks). `in_use`: a container is in a network."""
    release, support = os.uname().release, host.cgroup_support()
    paths = {name: runtime.path for name, runtime in config.runtimes.items()}
    said = {name: host.program_version(path) for name, path in paths.items()}
    yield features.version(release)
    yield features.features(release)
    yield features.cgroups(host.limit_warnings(support))
    yield features.packets(in_use=in_use, switched_on=config.ip_forward)
    yield daemon.runtimes(config.default_runtime, paths, {name: one.get("version", "") for name, one in said.items()})
    yield holes.holes(said)
    yield daemon.seccomp(config.seccomp_profile)
    yield disk.file_system(config.data_root)
    yield daemon.space(config.data_root, config.min_free)
    yield permissions.sockets(
        [Path(one.removeprefix(UNIX)) for one in config.hosts if one.startswith(UNIX)], config.group
    )
    yield permissions.folders([config.data_root, config.exec_root], os.geteuid())
    yield kernel.files()
    yield kernel.clock()


def _limits(logged: list[LogConfig]) -> Iterator[Check]:
    """Give what holds for the daemon's process, and for how containers log."""
    yield journald.rate_limit(sum("journald" in logging_of(one).drivers for one in logged))
    yield kernel.datagrams(sum(map(_is_sent_by_udp, logged)))
    yield kernel.pipes()
    yield kernel.descriptors()


def _is_sent_by_udp(one: LogConfig) -> bool:
    addresses = [value for key, value in one.config.items() if key.rpartition(":")[2] in UDP_ADDRESSES]
    return any(address.startswith("udp:") for address in addresses)


ROUTES: Final = [Route("GET", "/logd/doctor", examine, viewers=True)]
