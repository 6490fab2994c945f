"""The firewall and the published ports, kept as the view of all networks says.

Not Docker's userland proxy: the kernel leads all packets, whether a daemon runs or not; ::1 excepted, see `relay`.
"""

import asyncio
import errno
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from logd.config import DaemonConfig
from logd.errors import LogdError
from logd.network import nft
from logd.network.claims import PortClaims, PortTaken
from logd.network.conntrack import forget_udp
from logd.network.firewall import Bridge, Forward, render
from logd.network.ports import Published, parse_bindings
from logd.network.relay import LOOPBACK, Relay, is_relayed
from logd.network.rules_watch import RulesWatch
from logd.network.state import (
    OPTION_HOST_BINDING,
    OPTION_ICC,
    OPTION_MASQUERADE,
    Endpoint,
    Member,
    Network,
    NetworkView,
)

log = logging.getLogger(__name__)

ROUTE_LOCALNET: Final = "/proc/sys/net/ipv4/conf/{}/route_localnet"
HAIRPIN: Final = "/sys/class/net/{}/brport/hairpin_mode"
"""Where bridges filter by iptables (br_netfilter), a container reaches its own published port only so."""
ISOLATED: Final = "/sys/class/net/{}/brport/isolated"
"""The bridge passes no frames between such ports, nor what the firewall leads from one to the other by br_netfilter."""
BRIDGE_FILTERS: Final = tuple(f"/proc/sys/net/bridge/bridge-nf-call-{which}" for which in ("iptables", "ip6tables"))
"""br_netfilter: what a bridge passes on has to pass the firewall's rules too."""
GONE: Final = (errno.ENOENT, errno.ENODEV)
"""What a link's switches say that goes just now."""


class Publishing:
    """A NetworkObserver."""

    def __init__(self, config: DaemonConfig) -> None:
        self._config = config
        self._table = nft.table_name(config.exec_root)
        self._claims = PortClaims(config.exec_root, config.ip)
        self._loaded = False
        self._rules: str | None = None
        self._applying = asyncio.Lock()
        self._watch: RulesWatch | None = None
        """While there are rules that others could take away."""
        self._repair: asyncio.Task[None] | None = None
        self._forwards: frozenset[Forward] = frozenset()
        self._links: frozenset[str] = frozenset()
        self._refused: dict[str, LogdError] = {}
        """Containers that could not have their ports: they don't get them later either."""
        self._relays: dict[tuple[str, Published], Relay] = {}
        """By container."""

    def published(self, container_id: str) -> tuple[Published, ...]:
        """Return the ports of the host that lead to a container."""
        return self._claims.of(container_id)

    def close(self) -> None:
        """Let the sockets go that hold ports; the rules go on."""
        self._watch_rules(False)
        if self._repair is not None:
            self._repair.cancel()
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        self._claims.close()

    async def changed(self, view: NetworkView) -> None:
        """See NetworkObserver."""
        if not self._loaded:
            await asyncio.to_thread(self._claims.load)
            self._loaded = True
        networks = {network.id: network for network in view.networks}
        self._end_relays({member.container_id for member in view.members if _exits(member)})
        self._settle_claims(view.members, networks)
        used = view.raised.union(endpoint.network_id for member in view.members for endpoint in member.endpoints)
        bridges = [_bridge(one) for one in view.networks if one.driver == "bridge" and one.bridge and one.id in used]
        forwards = [one for member in view.members for one in self._forwards_to(member)]
        self._settle_relays(view.members)
        async with self._applying:
            self._watch_rules(bool(bridges) and self._config.iptables)
            await asyncio.to_thread(self._apply, view, bridges, forwards)

    def refusal(self, container_id: str) -> LogdError | None:
        """See NetworkObserver."""
        return self._refused.get(container_id)

    def _watch_rules(self, wanted: bool) -> None:
        if not wanted and self._watch is not None:
            self._watch.close()
            self._watch = None
        elif wanted and self._watch is None:
            try:
                self._watch = RulesWatch(self._table, self._rules_taken)
            except OSError as error:
                log.warning("nobody watches whether others change table %s: %s", self._table, error)

    def _rules_taken(self) -> None:
        if self._repair is None or self._repair.done():
            self._repair = asyncio.create_task(self._put_back(), name="put the firewall's rules back")

    async def _put_back(self) -> None:
        """Make the table anew as it was. What fails is tried again at the next change of a network."""
        async with self._applying:
            if self._rules is None or self._watch is None:
                return
            rules, self._rules = self._rules, None
            try:
                await asyncio.to_thread(nft.apply, rules)
            except LogdError as error:
                log.error("table inet %s was changed, and can't be put back: %s", self._table, error)  # noqa: TRY400 - the reason is enough
                return
            self._rules = rules
        log.warning("table inet %s was changed by another program; it is as before again", self._table)

    def _settle_claims(self, members: Iterable[Member], networks: dict[str, Network]) -> None:
        """Release what is not needed any more, take what is."""
        publishing = {member.container_id: member for member in members if _exits(member)}
        for container_id in self._claims.ids():
            if container_id not in publishing:
                self._claims.release(container_id)
        self._refused = {one: why for one, why in self._refused.items() if one in publishing}
        for container_id in publishing.keys() - self._refused.keys() - set(self._claims.ids()):
            member = publishing[container_id]
            endpoint = _exits(member)[0]
            try:
                self._claim(member, networks.get(endpoint.network_id))
            except LogdError as error:
                what = f"driver failed programming external connectivity on endpoint {member.name} ({endpoint.id})"
                self._refused[container_id] = PortTaken(f"{what}: {error}") if isinstance(error, PortTaken) else error

    def _claim(self, member: Member, network: Network | None) -> None:
        bindings = parse_bindings(member.spec, member.host)
        if bindings and not self._config.iptables:
            raise LogdError("ports can't be published: `iptables` is false in the daemon's settings")
        default_ip = network.options.get(OPTION_HOST_BINDING, "") if network else ""
        has_ipv6 = any(endpoint.ipv6 for endpoint in member.endpoints)
        self._claims.claim(member.container_id, bindings, ipv6=has_ipv6, default_ip=default_ip)

    def _forwards_to(self, member: Member) -> Iterator[Forward]:
        ipv4, ipv6 = _addresses(member)
        for published in self._claims.of(member.container_id):
            address = ipv6 if published.is_ipv6 else ipv4
            if address and published.host_ip != LOOPBACK:
                yield Forward(published=published, address=address)

    def _end_relays(self, publishing: set[str]) -> None:
        """Close the relays of others than these containers, before their sockets are."""
        for key in [one for one in self._relays if one[0] not in publishing]:
            self._relays.pop(key).close()

    def _settle_relays(self, members: Iterable[Member]) -> None:
        wanted: dict[tuple[str, Published], tuple[str, int]] = {}
        for member in members:
            ipv4, ipv6 = _addresses(member)
            for published in self._claims.sockets_of(member.container_id):
                if is_relayed(published) and (address := ipv6 or ipv4):
                    wanted[member.container_id, published] = address, published.container_port
        for key, relay in tuple(self._relays.items()):
            if wanted.get(key) != relay.target:
                self._relays.pop(key).close()
        for (container_id, published), target in wanted.items():
            if (container_id, published) not in self._relays:
                listener = self._claims.sockets_of(container_id)[published]
                self._relays[container_id, published] = Relay(listener, target)

    def _apply(self, view: NetworkView, bridges: list[Bridge], forwards: list[Forward]) -> None:
        """Make the kernel do so (blocks). The claims are saved first: a rule without a claim would never go."""
        self._claims.save()
        if not self._config.iptables:
            return
        rules = render(self._table, bridges, forwards)
        if rules != self._rules and (bridges or nft.is_installed()):
            nft.apply(rules)
            self._rules = rules
        self._set_links(view, bridges, published=bool(forwards))
        changed = self._forwards.symmetric_difference(forwards)
        forget_udp({one.published.host_port for one in changed if one.published.protocol == "udp"})
        self._forwards = frozenset(forwards)

    def _set_links(self, view: NetworkView, bridges: list[Bridge], *, published: bool) -> None:
        """Have bridges route the loopback's addresses for published ports; the rules close that to others."""
        for bridge in bridges:
            _set(ROUTE_LOCALNET.format(bridge.link), on=published)
        links = frozenset(one.link for one in bridges)
        for link in self._links - links:
            _set(ROUTE_LOCALNET.format(link), on=False)
        self._links = links
        by_rules = all(_is_on(one) for one in BRIDGE_FILTERS)
        isolated = {bridge.link: not (bridge.icc or by_rules) for bridge in bridges}
        for network, _, endpoint in view.endpoints():
            if network.bridge in isolated and endpoint.host_interface:
                _set(HAIRPIN.format(endpoint.host_interface), on=True)
                _set(ISOLATED.format(endpoint.host_interface), on=isolated[network.bridge])


def _exits(member: Member) -> list[Endpoint]:
    """Return the endpoints through which a container is reached from outside: not those in internal networks."""
    return [one for one in member.endpoints if one.gateway or one.gateway6]


def _addresses(member: Member) -> tuple[str, str]:
    """Return the IPv4 and the IPv6 address at which a container is reached from outside, "" for none."""
    exits = _exits(member)
    ipv4 = next((one.ipv4 for one in exits if one.ipv4 and one.gateway), "")
    ipv6 = next((one.ipv6 for one in exits if one.ipv6 and one.gateway6), "")
    return ipv4.partition("/")[0], ipv6.partition("/")[0]


def _bridge(network: Network) -> Bridge:
    return Bridge(
        link=network.bridge,
        subnets=tuple(one.subnet for one in network.subnets),
        internal=network.internal,
        masquerade=network.flag(OPTION_MASQUERADE),
        icc=network.flag(OPTION_ICC),
    )


def _is_on(path: str) -> bool:
    try:
        return Path(path).read_text(encoding="ascii").strip() == "1"
    except FileNotFoundError:
        return False


def _set(path: str, *, on: bool) -> None:
    """Set a switch of the kernel where it is not so; a link that is gone needs nothing."""
    switch = Path(path)
    try:
        if switch.read_text(encoding="ascii").strip() != str(int(on)):
            switch.write_text(str(int(on)), encoding="ascii")
    except OSError as error:
        if error.errno not in GONE:
            raise
