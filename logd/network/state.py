"""The nouns: a network, its subnets, who is in it, and the view of all of it that firewall and DNS work from.

A network's file is <data-root>/networks/<id>.json; endpoints stand in their container's container.json.
Source: Docker Engine API 1.47, Network; moby's network options for the keys `com.docker.network.*`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from logd.endpoint import Endpoint
from logd.errors import LogdError
from logd.spec import ContainerSpec, HostConfig

__all__ = ["Endpoint", "Member", "Network", "NetworkObserver", "NetworkView", "Subnet"]

Driver = Literal["bridge", "host", "null"]

DEFAULT_BRIDGE: Final = "logd0"
"""The link of the network "bridge", as docker0 is Docker's."""
BRIDGE_PREFIX: Final = "br-"
VETH_PREFIX: Final = "ve-"
"""Of the ends of pairs that are in our bridges; Docker's begin with veth."""
PREDEFINED: Final = ("bridge", "host", "none")
DEFAULT_MTU: Final = 1500

OPTION_NAME: Final = "com.docker.network.bridge.name"
OPTION_DEFAULT: Final = "com.docker.network.bridge.default_bridge"
OPTION_ICC: Final = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE: Final = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_BINDING: Final = "com.docker.network.bridge.host_binding_ipv4"
OPTION_MTU: Final = "com.docker.network.driver.mtu"


class Subnet(msgspec.Struct, kw_only=True, frozen=True):
    """One of a network's subnets, as text: `subnet` and `ip_range` in CIDR form, `gateway` an address without prefix.

    `ip_range` is "" where addresses come from the whole subnet. `auxiliary` are addresses that are never given, by
    name.
    """

    subnet: str
    gateway: str
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class Network(msgspec.Struct, kw_only=True, frozen=True):
    """A network. `bridge` is its link's name, at most 15 bytes, "" for the drivers host and null."""

    id: str
    """64 hexadecimal digits."""
    name: str
    driver: Driver
    created_ns: int
    subnets: tuple[Subnet, ...] = ()
    """IPv4 first; at most one of each kind."""
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None
    bridge: str = ""

    @property
    def is_default(self) -> bool:
        """Whether it is the default bridge, whose members have no names and see the host's resolv.conf."""
        return self.driver == "bridge" and self.name == "bridge"

    @property
    def predefined(self) -> bool:
        """Whether it came with the engine and can't be removed."""
        return self.name in PREDEFINED

    @property
    def mtu(self) -> int:
        """Of its bridge and the interfaces in it, in bytes; 0 for the kernel's default."""
        return int(self.options.get(OPTION_MTU, "0"))

    def flag(self, option: str, default: bool = True) -> bool:
        """Return a boolean option of the driver, by Go's reading of it."""
        return self.options.get(option, str(default)).lower() in {"1", "t", "true"}


class Member(msgspec.Struct, kw_only=True, frozen=True):
    """A container that has a network namespace of logd's at present, from before its command runs until it is gone.

    `spec` and `host` are its settings (exposed ports, port_bindings, publish_all_ports, dns, dns_search, …).
    """

    container_id: str
    name: str
    sandbox: Path
    """The file to which its network namespace is bound: open it and setns(2)."""
    spec: ContainerSpec
    host: HostConfig
    endpoints: tuple[Endpoint, ...]


class NetworkView(msgspec.Struct, kw_only=True, frozen=True):
    """All networks and all members, at one moment."""

    networks: tuple[Network, ...]
    members: tuple[Member, ...]
    raised: frozenset[str] = frozenset()
    """The ids of the networks whose bridges are there, with members or for a moment without."""

    def network(self, network_id: str) -> Network | None:
        """Return a network by its whole id."""
        return next((one for one in self.networks if one.id == network_id), None)

    def endpoints(self) -> Iterable[tuple[Network, Member, Endpoint]]:
        """Give each endpoint with its network and its container."""
        networks = {one.id: one for one in self.networks}
        for member in self.members:
            for endpoint in member.endpoints:
                if network := networks.get(endpoint.network_id):
                    yield network, member, endpoint


class NetworkObserver(Protocol):
    """Who is told of every change: the firewall, the name server."""

    async def changed(self, view: NetworkView) -> None:
        """Make the world as `view` says; called again with the same view it changes nothing.

        Called when the daemon has found everything again, after a network was made or removed, and after a container
        was connected or disconnected; at a start, once its links are there and before its command runs. Calls don't
        overlap, but a container that starts is in the view of a call for another one, too: LogdError is raised for
        what concerns all, and what one container can't have is kept as its `refusal`.
        """

    def refusal(self, container_id: str) -> LogdError | None:
        """Return why a container can't have what the last view said (`port is already allocated`), if so."""
