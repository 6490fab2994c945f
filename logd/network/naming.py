"""The name servers of all containers that have names, kept as the view of all networks says."""

import asyncio
import os
from collections.abc import Callable

from logd.config import DaemonConfig
from logd.errors import LogdError
from logd.network import namespaces
from logd.network.dns import NameServer, open_sockets
from logd.network.dns_names import Names, names_for, zones_of
from logd.network.dns_upstream import Upstream, upstream_of
from logd.network.state import Member, NetworkView
from logd.spec import HostConfig


class Naming:
    """A NetworkObserver."""

    def __init__(self, config: DaemonConfig) -> None:
        self._config = config
        self._servers: dict[tuple[str, int], NameServer] = {}
        """By container and the inode of its namespace, which is another one at each start."""
        self._failed: dict[str, LogdError] = {}
        """Containers that could not have a name server, as of the last view."""

    def close(self) -> None:
        """Stop answering; names don't resolve until the next daemon."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    async def changed(self, view: NetworkView) -> None:
        """See NetworkObserver."""
        zones = zones_of(view)
        gone = set(self._servers)
        failed: dict[str, LogdError] = {}
        for member in view.members:
            named = [one for one in member.endpoints if one.dns_names and one.network_id in zones]
            if not named:
                continue
            try:
                gone.discard(await self._serve(member, names_for(named, zones)))
            except (OSError, LogdError) as error:
                failed[member.container_id] = LogdError(f"can't serve names to container {member.name}: {error}")
        for key in gone:
            self._servers.pop(key).close()
        self._failed = failed

    def refusal(self, container_id: str) -> LogdError | None:
        """See NetworkObserver."""
        return self._failed.get(container_id)

    async def _serve(self, member: Member, names: Names) -> tuple[str, int]:
        upstream = self._upstream(member)
        key = member.container_id, os.stat(member.sandbox).st_ino
        if known := self._servers.get(key):
            known.names, known.upstream = names, upstream
        else:
            opened = await asyncio.to_thread(namespaces.inside, member.sandbox, open_sockets)
            options = member.host.dns_options or list(self._config.dns_opts)
            self._servers[key] = NameServer(opened, names, upstream, needs_dot=_needs_dot(options))
        return key

    def _upstream(self, member: Member) -> Callable[[], Upstream | None]:
        if not any(endpoint.gateway or endpoint.gateway6 for endpoint in member.endpoints):
            return lambda: None
        given, sandbox = _servers_given(member.host, self._config), member.sandbox
        return lambda: upstream_of(given, sandbox)


def _servers_given(host: HostConfig, config: DaemonConfig) -> list[str]:
    return host.dns or list(config.dns)


def _needs_dot(options: list[str]) -> bool:
    """Tell whether `ndots` is asked for, above 0; logd's own resolv.conf says 0."""
    for option in options:
        name, _, number = option.partition(":")
        if name == "ndots" and number.isdigit():
            return int(number) > 0
    return False
