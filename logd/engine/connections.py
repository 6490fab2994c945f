"""Containers in their networks: addresses, namespaces and interfaces, from a start to its cleaning, and live changes.

A container's namespace is made here and bound to a file before the runtime creates it, so that names and counters
outlive its first process. Whatever is on its way into or out of a network holds `Networks.lock`; the slow part, the
container's own interfaces, does not.
"""

import asyncio
import ipaddress
import logging
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from logd.container import Container
from logd.endpoint import Endpoint
from logd.engine.bridges import Bridges
from logd.engine.names import Registry
from logd.engine.networks import Networks, is_member
from logd.engine.saving import StateWriter
from logd.engine.tasks import Tasks
from logd.errors import Conflict, Forbidden, InvalidParameter, LogdError
from logd.network import links, namespaces
from logd.network.ipam import IPAddress, check_address, choose_address, exhausted
from logd.network.links import Gateway, Interface
from logd.network.state import VETH_PREFIX, Network, Subnet
from logd.runtime.network_files import RESOLVER, NetworkSetup, add_addresses, remove_addresses
from logd.spec import EndpointIPAMConfig, EndpointSettings

log = logging.getLogger(__name__)

SHARED_NETWORK: Final = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
HOST_NETWORK: Final = "container cannot be disconnected from host network or connected to host network"
NO_NETWORK: Final = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


class Connections:
    """The containers' interfaces."""

    def __init__(self, networks: Networks, registry: Registry, writer: StateWriter, tasks: Tasks) -> None:
        self._networks = networks
        self._registry = registry
        self._writer = writer
        self._bridges = Bridges(networks, tasks)

    async def close(self) -> None:
        """Leave nothing that no container needs; those that run go on."""
        await self._bridges.close()

    # -- a container's life --------------------------------------------------------------------------------------

    async def enter(self, container: Container) -> None:
        """Give a container that starts its addresses; `build` makes the interfaces. Raises NotFound, LogdError."""
        networks = self._networks
        await self.leave(container)  # what a cleaning that failed has left
        async with networks.lock:
            networks.occupants[container.id] = container
            if container.networks:
                with networks.timed("allocate"):
                    await self._allocate(container)

    async def _allocate(self, container: Container) -> None:
        networks = self._networks
        for name, settings in container.networks.items():
            network = networks.get(name)
            if network.is_default and not networks.endpoints_in(network):
                network = await networks.settle_default()
            container.endpoints.append(self._admit(network, container, settings))
            await self._bridges.have(networks.get(network.id))

    async def build(self, container: Container, endpoints: Iterable[Endpoint] | None = None) -> None:
        """Make the namespace and the interfaces of a container that has its addresses. Raises LogdError, OSError."""
        interfaces = [self._interface(one) for one in (container.endpoints if endpoints is None else endpoints)]
        if interfaces or (endpoints is None and has_sandbox(container)):
            sandbox = self._networks.sandbox(container.id)
            with self._networks.timed("connect"):
                await asyncio.to_thread(_build, sandbox, interfaces, self._gateways(container))

    def announce(self, container: Container) -> None:
        """Publish that a container that starts was connected."""
        for endpoint in container.endpoints:
            self._networks.tell(self._networks.get(endpoint.network_id), "connect", container.id)

    async def depart(self, container: Container) -> None:
        """Publish that a container that has ended is disconnected: from now on nothing leads to it."""
        for endpoint in container.endpoints:
            if network := self._networks.find(endpoint.network_id):
                self._networks.tell(network, "disconnect", container.id)
        if container.endpoints:
            await self._tell_quietly()

    async def leave(self, container: Container) -> None:
        """Remove the interfaces and the namespace, and release the addresses; nothing of it there is fine."""
        sandbox = self._networks.sandbox(container.id)
        if not container.endpoints and not sandbox.exists():
            self._networks.occupants.pop(container.id, None)
            return
        with self._networks.timed("release"):
            await self._release(container, sandbox)
        await self._tell_quietly()

    async def _release(self, container: Container, sandbox: Path) -> None:
        names = [one.host_interface for one in container.endpoints]
        await asyncio.to_thread(_take_down, sandbox, names)
        left = {one.network_id for one in container.endpoints}
        async with self._networks.lock:
            container.endpoints = []
            self._networks.occupants.pop(container.id, None)
            self._bridges.begin_lowering(left)

    async def _tell_quietly(self) -> None:
        try:
            await self._networks.changed()
        except LogdError as error:
            log.warning("networks: %s", error)

    # -- addresses -----------------------------------------------------------------------------------------------

    def _admit(self, network: Network, container: Container, settings: EndpointSettings) -> Endpoint:
        """Return the endpoint of a container in a network, with addresses that nobody else has."""
        asked = settings.ipam_config or EndpointIPAMConfig()
        found: dict[int, tuple[str, str]] = {}
        for subnet in network.subnets:
            version = ipaddress.ip_network(subnet.subnet).version
            wanted = asked.ipv4_address if version == 4 else asked.ipv6_address
            address = self._address(network, subnet, wanted, container)
            prefix = ipaddress.ip_network(subnet.subnet).prefixlen
            gateway = "" if network.internal else self._networks.gateway(network, subnet)
            found[version] = f"{address}/{prefix}", gateway
        ipv4, gateway4 = found.get(4, ("", ""))
        ipv6, gateway6 = found.get(6, ("", ""))
        names = [container.name, *settings.aliases, container.id[:12], container.spec.hostname]
        endpoint_id = secrets.token_hex(32)
        return Endpoint(
            id=endpoint_id,
            network_id=network.id,
            container_id=container.id,
            mac=settings.mac_address.lower().replace("-", ":") or _mac_of(ipv4),
            ipv4=ipv4,
            ipv6=ipv6,
            gateway=gateway4,
            gateway6=gateway6,
            aliases=tuple(settings.aliases),
            links=tuple(settings.links),
            dns_names=() if network.is_default else tuple(dict.fromkeys(one for one in names if one)),
            interface=_free_interface(container.endpoints),
            host_interface=f"{VETH_PREFIX}{endpoint_id[:12]}",
        )

    def _address(self, network: Network, subnet: Subnet, wanted: str, container: Container) -> IPAddress:
        block = ipaddress.ip_network(subnet.subnet)
        taken = {ipaddress.ip_address(one) for one in (subnet.gateway, *subnet.auxiliary.values())}
        taken.add(ipaddress.ip_address(self._networks.gateway(network, subnet)))
        for _, endpoint in self._networks.endpoints_in(network):
            taken |= {ipaddress.ip_interface(one).ip for one in (endpoint.ipv4, endpoint.ipv6) if one}
        if wanted:
            check_address(block, ipaddress.ip_address(wanted), taken)
            return ipaddress.ip_address(wanted)
        for other in self._networks.users(network):  # what is to have an address keeps it while it does not run
            config = other.networks[network.name].ipam_config
            if config and other is not container:
                taken |= {ipaddress.ip_address(one) for one in (config.ipv4_address, config.ipv6_address) if one}
        chosen = choose_address(block, ipaddress.ip_network(subnet.ip_range) if subnet.ip_range else None, taken)
        if chosen is None:
            raise exhausted(block.version, network.name, network.id)
        return chosen

    # -- interfaces ----------------------------------------------------------------------------------------------

    def _interface(self, endpoint: Endpoint) -> Interface:
        network = self._networks.get(endpoint.network_id)
        return Interface(
            name=endpoint.interface,
            host_name=endpoint.host_interface,
            bridge=network.bridge,
            mac=endpoint.mac,
            ipv4=endpoint.ipv4,
            ipv6=endpoint.ipv6,
            mtu=network.mtu,
        )

    def _gateways(self, container: Container) -> list[Gateway]:
        """Return the default routes: those of the endpoint that comes first, see `Networks.ranked`."""
        ranked = self._networks.ranked(container)
        first4 = next((Gateway(one.gateway, one.interface) for one in ranked if one.gateway), None)
        first6 = next((Gateway(one.gateway6, one.interface) for one in ranked if one.gateway6), None)
        return [one for one in (first4, first6) if one]

    # -- live changes --------------------------------------------------------------------------------------------

    async def connect(self, network: Network, container: Container, settings: EndpointSettings) -> None:
        """Connect a container, at once if it runs. Raises InvalidParameter, Forbidden, LogdError in Docker's words.

        Its caller has checked `settings`.
        """
        async with container.lock:
            try:
                await self._connect(network, container, settings)
            except OSError as error:
                raise LogdError(f"can't connect {container.name} to network {network.name}: {error}") from error

    async def _connect(self, network: Network, container: Container, settings: EndpointSettings) -> None:
        _check_present(container)
        _check_connectable(network, container)
        if network.name in container.networks:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
        if container.state.has_process:
            await self._connect_live(network, container, settings)
        container.networks = {**container.networks, network.name: settings}
        await self._writer.saved(container)

    async def _connect_live(self, network: Network, container: Container, settings: EndpointSettings) -> None:
        async with self._networks.lock:
            if network.is_default and not self._networks.endpoints_in(network):
                network = await self._networks.settle_default()
            endpoint = self._admit(network, container, settings)
            container.endpoints = [*container.endpoints, endpoint]
            self._networks.occupants[container.id] = container
            try:
                await self._bridges.have(self._networks.get(network.id))
            except (LogdError, OSError):
                container.endpoints = [one for one in container.endpoints if one != endpoint]
                self._bridges.begin_lowering([network.id])
                raise
        try:
            await self._writer.saved(container)  # so that a daemon that ends now leaves nothing that is not known
            await self.build(container, [endpoint])
            await self._networks.changed(container)
        except (LogdError, OSError):
            await self._disconnect_live(endpoint, container)
            raise
        await asyncio.to_thread(add_addresses, container.dir, container.spec, _addresses(endpoint))
        self._networks.tell(network, "connect", container.id)

    async def disconnect(self, network: Network, container: Container) -> None:
        """Disconnect a container, at once if it runs. Raises InvalidParameter, LogdError in Docker's words."""
        async with container.lock:
            try:
                await self._disconnect(network, container)
            except OSError as error:
                raise LogdError(f"can't disconnect {container.name} from network {network.name}: {error}") from error

    async def _disconnect(self, network: Network, container: Container) -> None:
        _check_present(container)
        _check_disconnectable(network, container)
        endpoint = next((one for one in container.endpoints if one.network_id == network.id), None)
        container.networks = {name: one for name, one in container.networks.items() if name != network.name}
        if endpoint is not None and is_member(container):
            await self._disconnect_live(endpoint, container)
            await asyncio.to_thread(remove_addresses, container.dir, _addresses(endpoint))
            self._networks.tell(network, "disconnect", container.id)
        await self._writer.saved(container)

    async def _disconnect_live(self, endpoint: Endpoint, container: Container) -> None:
        await asyncio.to_thread(links.unplug, [endpoint.host_interface])
        async with self._networks.lock:
            container.endpoints = [one for one in container.endpoints if one.id != endpoint.id]
            self._bridges.begin_lowering([endpoint.network_id])
        sandbox = self._networks.sandbox(container.id)
        if sandbox.exists():
            await asyncio.to_thread(links.set_gateways, sandbox, self._gateways(container))
        await self._tell_quietly()

    async def renamed(self, container: Container, old: str) -> None:
        """Have a container found by its new name."""
        container.endpoints = [
            msgspec.structs.replace(
                one, dns_names=tuple(container.name if name == old else name for name in one.dns_names)
            )
            for one in container.endpoints
        ]
        if container.endpoints:
            await self._writer.saved(container)
            await self._tell_quietly()

    # -- what a bundle has to know -------------------------------------------------------------------------------

    def setup(self, container: Container) -> NetworkSetup:
        """Return what a container's bundle has to know of its networks."""
        mode = container.host.network_mode
        if mode.startswith("container:"):
            return self._shared(self._registry.get(mode.partition(":")[2]))
        if not has_sandbox(container):
            return NetworkSetup()
        named = any(one.dns_names for one in container.endpoints)
        ranked = self._networks.ranked(container)
        gateways = [address for one in ranked for address in (one.gateway, one.gateway6) if address]
        return NetworkSetup(
            namespace=str(self._networks.sandbox(container.id)),
            addresses=tuple(address for one in container.endpoints for address in _addresses(one)),
            resolver=RESOLVER if named else "",
            gateway=gateways[0] if gateways else "",
        )

    def _shared(self, owner: Container) -> NetworkSetup:
        """Return the setup of a container that shares another's namespace, and its three files."""
        if not owner.state.has_process:
            raise Conflict(f"cannot join network of a non running container: {owner.id}")
        sandbox = self._networks.sandbox(owner.id)
        namespace = sandbox if sandbox.exists() else Path(f"/proc/{owner.state.pid}/ns/net")
        return NetworkSetup(namespace=str(namespace), shared=owner.dir)

    # -- after a restart of the daemon ---------------------------------------------------------------------------

    async def restore(self) -> None:
        """Find again what the containers that run have, make anew what is missing, remove what belongs to nobody."""
        networks = self._networks
        members = [one for one in self._registry.all() if is_member(one)]
        for container in self._registry.all():
            if not container.state.has_process and not container.cleanup:
                await self.leave(container)
        async with networks.lock:
            for container in members:
                for endpoint in container.endpoints:
                    if network := networks.find(endpoint.network_id):
                        await self._bridges.have(network)
        for container in members:
            try:
                await self.build(
                    container, [one for one in container.endpoints if not links.exists(one.host_interface)]
                )
            except (LogdError, OSError) as error:
                log.error("can't connect again: %s", error, extra={"container": container.id})  # noqa: TRY400
        await asyncio.to_thread(self._clear_strays, {one.id: one for one in members})
        await self._tell_quietly()
        for container in members:
            for refusal in networks.refusals(container):
                log.warning("networks: %s", refusal, extra={"container": container.id})

    def _clear_strays(self, members: dict[str, Container]) -> None:
        """Remove our links and namespaces that no container has (blocks)."""
        known = {one.host_interface for container in members.values() for one in container.endpoints}
        for sandbox in self._networks.sandbox_dir.iterdir():
            if sandbox.name not in members and self._registry.find(sandbox.name) is None:
                namespaces.remove(sandbox)
        for bridge, alias in links.bridges_of(f"{self._networks.alias} ").items():
            links.unplug([one for one in links.ports_of(bridge) if one not in known and one.startswith(VETH_PREFIX)])
            if alias.rpartition(" ")[2] not in self._networks.raised:
                links.remove_bridge(bridge, alias)


def has_sandbox(container: Container) -> bool:
    """Tell whether a container has a network namespace that is made here: without networks, too, as it may get some."""
    mode = container.host.network_mode
    return mode not in {"host", "none"} and not mode.startswith("container:")


def _check_connectable(network: Network, container: Container) -> None:
    mode = container.host.network_mode
    if network.driver == "host":
        raise InvalidParameter(HOST_NETWORK)
    if mode == "host" or mode.startswith("container:"):
        raise InvalidParameter(SHARED_NETWORK)
    if mode == "none" or network.driver == "null":
        raise InvalidParameter(NO_NETWORK)


def _check_disconnectable(network: Network, container: Container) -> None:
    mode = container.host.network_mode
    if mode == network.name == "host":
        raise InvalidParameter(HOST_NETWORK)
    if mode == network.name == "none":
        raise InvalidParameter(NO_NETWORK)
    if network.name not in container.networks:
        raise LogdError(f"container {container.id} is not connected to network {network.name}")


def _check_present(container: Container) -> None:
    if container.removed or container.state.removing or container.state.dead:
        raise Conflict(f"container {container.id} is marked for removal and cannot be connected or disconnected")


def _build(sandbox: Path, interfaces: list[Interface], gateways: list[Gateway]) -> None:
    if not namespaces.is_bound(sandbox):
        namespaces.make(sandbox)
    links.plug(sandbox, interfaces, gateways)


def _take_down(sandbox: Path, names: list[str]) -> None:
    try:
        links.unplug([one for one in names if links.exists(one)])
    finally:
        namespaces.remove(sandbox)


def _mac_of(ipv4: str) -> str:
    """Return Docker's address for an interface: 02:42 and those four bytes, else random ones."""
    tail = ipaddress.ip_interface(ipv4).ip.packed if ipv4 else secrets.token_bytes(4)
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + tail)


def _free_interface(endpoints: Iterable[Endpoint]) -> str:
    taken = {one.interface for one in endpoints}
    return next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)


def _addresses(endpoint: Endpoint) -> list[str]:
    """Return the addresses without their prefix lengths."""
    return [one.partition("/")[0] for one in (endpoint.ipv4, endpoint.ipv6) if one]
