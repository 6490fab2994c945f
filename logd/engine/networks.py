"""Docker's verbs on networks, and who has to be told when something changes.

A network is a file until the first container joins it: its bridge is made then, and goes with the last one. That,
addresses and interfaces are the work of `logd.engine.connections`.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from logd import units
from logd.config import DaemonConfig, Pool
from logd.container import Container
from logd.engine.names import Registry
from logd.errors import Conflict, Forbidden, InvalidParameter, LogdError, NotFound
from logd.events import EventBus
from logd.network import links, store
from logd.network.default_bridge import default_bridge
from logd.network.host_addresses import host_networks
from logd.network.ipam import (
    DOCKERS_POOLS,
    IPNetwork,
    check_free,
    choose_subnet,
    first_address,
    unique_local_pool,
)
from logd.network.requests import NetworkRequest, asked_subnets
from logd.network.state import (
    BRIDGE_PREFIX,
    OPTION_NAME,
    Endpoint,
    Member,
    Network,
    NetworkObserver,
    NetworkView,
    Subnet,
)

log = logging.getLogger(__name__)

MAX_LINK_NAME: Final = 15
PRUNE_FILTERS: Final = frozenset(("label", "label!", "until"))


class Networks:
    """All networks. Changed only in the event loop; `lock` is held while addresses, names and bridges change."""

    def __init__(self, config: DaemonConfig, events: EventBus, registry: Registry) -> None:
        self._config = config
        self._events = events
        self._registry = registry
        self._networks: dict[str, Network] = {}
        self._telling = asyncio.Lock()
        self.occupants: dict[str, Container] = {}
        """The containers that have endpoints, by id; a removed one too, until its interfaces are gone."""
        self.raised: set[str] = set()
        """The ids of the networks whose bridges are there, also that of one whose last container has just left."""
        self.lock = asyncio.Lock()
        self.took: Callable[[str, float], None] = lambda action, seconds: None
        """Called with what dockerd times for containers that enter and leave: allocate, connect, release."""
        self.observers: list[NetworkObserver] = []
        """Those who are told of every change, in this order."""

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the networks' files are."""
        return self._config.data_root / "networks"

    @property
    def sandbox_dir(self) -> Path:
        """Where the containers' network namespaces are bound."""
        return self._config.exec_root / "netns"

    def sandbox(self, container_id: str) -> Path:
        """Return the file that a container's network namespace is bound to."""
        return self.sandbox_dir / container_id

    async def load(self) -> None:
        """Read all networks, and make those that come with the engine where they are missing."""
        for network in await asyncio.to_thread(store.load, self.folder):
            self._networks[network.id] = network
        await asyncio.to_thread(self.sandbox_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
        for name, driver in (("host", "host"), ("none", "null")):
            if self.by_name(name) is None:
                await self._keep(Network(id=_new_id(), name=name, driver=driver, created_ns=time.time_ns()))  # type: ignore[arg-type]  # two of Driver
        await self.settle_default()

    async def settle_default(self) -> Network:
        """Make the network "bridge" as the settings say, with a subnet that hides none of the host's, if it is idle."""
        known = self.by_name("bridge")
        if known is not None and (known.id in self.raised or self.endpoints_in(known)):
            return known
        host = await asyncio.to_thread(host_networks, self._links())
        network = default_bridge(self._config, known, lambda version: self._choose(version, known, host), host)
        if known is None:
            network = msgspec.structs.replace(network, id=_new_id(), created_ns=time.time_ns())
        if network != known:
            await self._keep(network)
        return network

    def all(self) -> list[Network]:
        """Return all networks, by name."""
        return sorted(self._networks.values(), key=lambda one: one.name)

    @property
    def alias(self) -> str:
        """What this daemon's links are marked with, and those of its networks with more behind it."""
        return f"logd {hashlib.sha256(bytes(self._config.data_root)).hexdigest()[:12]}"

    def alias_of(self, network: Network) -> str:
        """Return what a network's bridge is marked with."""
        return f"{self.alias} {network.id}"

    def by_name(self, name: str) -> Network | None:
        """Return the network of exactly this name."""
        return next((one for one in self._networks.values() if one.name == name), None)

    def get(self, ref: str) -> Network:
        """Return the network with this id, name or unique beginning of an id. Raises NotFound, InvalidParameter."""
        ref = "bridge" if ref == "default" else ref
        if not ref:
            raise InvalidParameter('invalid name or ID supplied: ""')
        if found := self._networks.get(ref) or self.by_name(ref):
            return found
        matching = [one for one in self._networks.values() if one.id.startswith(ref)]
        if len(matching) > 1:
            raise InvalidParameter(f"network {ref} is ambiguous ({len(matching)} matches found based on ID prefix)")
        if not matching:
            raise NotFound(f"network {ref} not found")
        return matching[0]

    def find(self, network_id: str) -> Network | None:
        """Return the network with exactly this id."""
        return self._networks.get(network_id)

    def gateway(self, network: Network, subnet: Subnet) -> str:
        """Return what members send through: the bridge, or what the settings say for the default one."""
        is_six = ":" in subnet.subnet
        own = self._config.default_gateway_v6 if is_six else self._config.default_gateway
        return own if network.is_default and own else subnet.gateway

    @property
    def forwards(self) -> bool:
        """Whether the host's forwarding may be switched on."""
        return self._config.ip_forward

    def ranked(self, container: Container) -> list[Endpoint]:
        """Return a container's endpoints in the order of the way out: by priority, then by the network's name."""

        def rank(endpoint: Endpoint) -> tuple[bool, int, str]:
            network = self._networks.get(endpoint.network_id)
            name = network.name if network else ""
            settings = container.networks.get(name)
            return not (endpoint.gateway or endpoint.gateway6), -(settings.gw_priority if settings else 0), name

        return sorted(container.endpoints, key=rank)

    def endpoints_in(self, network: Network) -> list[tuple[Container, Endpoint]]:
        """Return who is in a network, and by which endpoint, also those that are on their way out."""
        return [
            (container, endpoint)
            for container in self.occupants.values()
            for endpoint in container.endpoints
            if endpoint.network_id == network.id
        ]

    def members_of(self, network: Network) -> list[tuple[Container, Endpoint]]:
        """Return who is in a network now."""
        return [(container, endpoint) for container, endpoint in self.endpoints_in(network) if is_member(container)]

    def view(self) -> NetworkView:
        """Return all networks and who is in them."""
        members = [
            Member(
                container_id=one.id,
                name=one.name,
                sandbox=self.sandbox(one.id),
                spec=one.spec,
                host=one.host,
                endpoints=tuple(self.ranked(one)),
            )
            for one in self.occupants.values()
            if is_member(one)
        ]
        return NetworkView(networks=tuple(self.all()), members=tuple(members), raised=frozenset(self.raised))

    # -- the verbs -----------------------------------------------------------------------------------------------

    async def create(self, request: NetworkRequest) -> Network:
        """Make a network. Raises Conflict for its name, Forbidden for its subnet, InvalidParameter."""
        async with self.lock:
            if self.by_name(request.name) is not None:
                raise Conflict(f"network with name {request.name} already exists")
            network_id = _new_id()
            bridge = self._bridge_name(request, network_id)
            network = Network(
                id=network_id,
                name=request.name,
                driver="bridge",
                created_ns=time.time_ns(),
                subnets=await self._subnets(request),
                internal=request.internal,
                attachable=request.attachable,
                enable_ipv6=request.enable_ipv6,
                options=dict(request.options),
                labels=dict(request.labels),
                ipam_options=request.ipam.options if request.ipam else None,
                bridge=bridge,
            )
            await self._keep(network)
        self.tell(network, "create")
        await self.changed()
        return network

    def _bridge_name(self, request: NetworkRequest, network_id: str) -> str:
        name = request.options.get(OPTION_NAME) or f"{BRIDGE_PREFIX}{network_id[:12]}"
        if other := next((one for one in self._networks.values() if one.bridge == name), None):
            raise Forbidden(
                f"cannot create network {network_id} ({name}): conflicts with network {other.id} ({other.bridge}): "
                "networks have same bridge name"
            )
        return name

    async def _subnets(self, request: NetworkRequest) -> tuple[Subnet, ...]:
        asked = asked_subnets(request)
        host: list[IPNetwork] | None = None
        for version in (4, 6) if request.enable_ipv6 else (4,):
            if version in asked:
                check_free(ipaddress.ip_network(asked[version].subnet), self._taken())
                continue
            if host is None:
                host = await asyncio.to_thread(host_networks, self._links())
            asked[version] = self._choose(version, None, host)
        return tuple(asked[version] for version in sorted(asked))

    def _choose(self, version: int, known: Network | None, host: Iterable[IPNetwork]) -> Subnet:
        """Return a subnet of the pools that overlaps no network but `known`, and nothing of the host's."""
        pools: list[Pool] = [one for one in self._config.default_address_pools if one.base.version == version]
        if not pools:
            pools = [*DOCKERS_POOLS] if version == 4 else [unique_local_pool(bytes(self.folder))]
        subnet = choose_subnet(pools, version, [*self._taken(known), *host])
        return Subnet(subnet=str(subnet), gateway=str(first_address(subnet)))

    def _taken(self, but: Network | None = None) -> list[IPNetwork]:
        networks = [one for one in self._networks.values() if but is None or one.id != but.id]
        return [ipaddress.ip_network(subnet.subnet) for one in networks for subnet in one.subnets]

    def _links(self) -> list[str]:
        return [one.bridge for one in self._networks.values() if one.bridge]

    async def remove(self, ref: str) -> None:
        """Remove a network. Raises Forbidden for one that came with the engine, and for one with containers in it."""
        network = self.get(ref)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        await self._remove(network)
        await self.changed()

    async def _remove(self, network: Network) -> None:
        async with self.lock:
            if network.id not in self._networks:
                raise NotFound(f"network {network.name} not found")
            if inside := self.members_of(network):
                who = ", ".join(f'name:"{one.name}" id:"{endpoint.id[:12]}"' for one, endpoint in inside)
                raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({who})")
            del self._networks[network.id]
            try:
                await asyncio.to_thread(store.delete, self.folder, network.id)
                if links.exists(network.bridge):  # containers that have ended are on their way out
                    await asyncio.to_thread(links.remove_bridge, network.bridge, self.alias_of(network))
                self.raised.discard(network.id)
            except (LogdError, OSError) as error:
                self._networks[network.id] = network
                raise LogdError(f"can't remove network {network.name}: {error}") from error
        self.tell(network, "destroy")

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> list[str]:
        """Remove the networks that no container refers to, as filtered; returns their names."""
        matches = _prune_filter(filters)
        removed = []
        for network in self.all():
            if network.predefined or not matches(network) or self.users(network):
                continue
            try:
                await self._remove(network)
            except LogdError as error:
                log.warning("prune: %s", error)
                continue
            removed.append(network.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        await self.changed()
        return removed

    def users(self, network: Network) -> list[Container]:
        """Return the containers that are to be in a network, whether they run or not."""
        return [one for one in self._registry.all() if network.name in one.networks]

    # -- telling -------------------------------------------------------------------------------------------------

    async def changed(self, container: Container | None = None) -> None:
        """Tell all observers how things are, for this container that starts or is connected.

        Raises, after all were told, the first LogdError of what concerns all, else of what that container can't have.
        """
        failures: list[LogdError | OSError] = []
        async with self._telling:
            view = self.view()
            for observer in self.observers:
                try:
                    await observer.changed(view)
                except (LogdError, OSError) as error:
                    failures.append(error)
            if container is not None:
                failures += self.refusals(container)
        if failures:
            raise failures[0] if isinstance(failures[0], LogdError) else LogdError(str(failures[0])) from failures[0]

    def refusals(self, container: Container) -> list[LogdError]:
        """Return why a container can't have what it is to have of its networks."""
        return [why for observer in self.observers if (why := observer.refusal(container.id))]

    @contextlib.contextmanager
    def timed(self, action: str) -> Iterator[None]:
        """Time what is done for a container's networks, unless it fails."""
        begun_s = time.perf_counter()
        yield
        self.took(action, time.perf_counter() - begun_s)

    async def replace(self, network: Network) -> None:
        """Change a network that is known."""
        await self._keep(network)

    def tell(self, network: Network, action: str, container_id: str = "") -> None:
        """Publish an event of a network: create, connect, disconnect or destroy."""
        attributes = {"container": container_id} if container_id else {}
        self._events.publish(
            "network", action, network.id, {**attributes, "name": network.name, "type": network.driver}
        )

    async def _keep(self, network: Network) -> None:
        try:
            await asyncio.to_thread(store.save, self.folder, network)
        except OSError as error:
            raise LogdError(f"can't save network {network.name}: {error}") from error
        self._networks[network.id] = network


def is_member(container: Container) -> bool:
    """Tell whether a container is in its networks now: from shortly before its command runs until it has ended."""
    return bool(container.endpoints) and (container.state.has_process or container.state.starting_ns > 0)


def _new_id() -> str:
    return secrets.token_hex(32)


def _prune_filter(filters: Mapping[str, Sequence[str]]) -> Callable[[Network], bool]:
    if unknown := sorted(set(filters) - PRUNE_FILTERS):
        raise InvalidParameter(f"invalid filter '{unknown[0]}'")
    until = filters.get("until", ())
    if len(until) > 1:
        raise InvalidParameter("more than one until filter specified")
    try:
        until_ns = units.parse_time(until[0]) if until else time.time_ns()
    except ValueError as error:
        raise InvalidParameter(f"until: {error}") from error
    return lambda network: (
        network.created_ns <= until_ns
        and all(_has_label(network, wanted) for wanted in filters.get("label", ()))
        and not (filters.get("label!") and all(_has_label(network, wanted) for wanted in filters["label!"]))
    )


def _has_label(network: Network, wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in network.labels and (not equals or network.labels[name] == value)
