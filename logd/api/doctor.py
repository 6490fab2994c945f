"""What makes logs get lost or late on this host, as GET /logd/doctor answers it.

    GET /logd/doctor    [{"name", "status": ok|warn|fail, "found", "advice"}, …]

The daemon looks, not its client: it is the daemon's limits, files and destinations that count.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from aiohttp import web

from logd import plugins
from logd.api import host
from logd.api.call import Call, Route, answer
from logd.config import DaemonConfig
from logd.doctor import daemon, forwarding, journald, kernel
from logd.doctor.check import Check
from logd.engine.logopts import logging_of
from logd.network.nft import table_name
from logd.spec import LogConfig

UDP_ADDRESSES: Final = ("syslog-address", "gelf-address")


async def examine(call: Call) -> web.Response:
    """GET /logd/doctor."""
    logged = [container.host.log_config for container in call.engine.containers()]
    ailing = await call.engine.ailing()
    links, table = call.engine.bridges_in_use(), table_name(call.parts.config.exec_root)
    checks = await asyncio.to_thread(
        lambda: [*_host(logged), *_daemon(call.parts.config), forwarding.forwarding(links, table)]
    )
    return answer([one._asdict() for one in [*checks, daemon.destinations(ailing)]])


def _host(logged: list[LogConfig]) -> Iterator[Check]:
    support = host.cgroup_support()
    yield journald.rate_limit(sum("journald" in logging_of(one).drivers for one in logged))
    yield kernel.datagrams(sum(map(_is_sent_by_udp, logged)))
    yield kernel.pipes()
    yield kernel.descriptors()
    yield kernel.files()
    yield kernel.clock()
    yield kernel.limits(support["CgroupVersion"], host.limit_warnings(support))


def _is_sent_by_udp(one: LogConfig) -> bool:
    addresses = [value for key, value in one.config.items() if key.rpartition(":")[2] in UDP_ADDRESSES]
    return any(address.startswith("udp:") for address in addresses)


def _daemon(config: DaemonConfig) -> Iterator[Check]:
    paths = {name: runtime.path for name, runtime in config.runtimes.items()}
    versions = {name: host.program_version(path).get("version", "") for name, path in paths.items()}
    yield daemon.space(config.data_root, config.min_free)
    yield daemon.runtimes(config.default_runtime, paths, versions)
    yield daemon.seccomp(config.seccomp_profile)
    yield daemon.broken_plugins([(one.plugin, one.reason) for one in plugins.load().broken])


ROUTES: Final = [Route("GET", "/logd/doctor", examine, viewers=True)]
