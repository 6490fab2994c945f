"""Docker's shapes of networks and endpoints: Network, EndpointSettings, and a container's NetworkSettings.

Source: Docker Engine API 1.47; what of it is null and what is empty, dockerd 27.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from logd.container import Container
from logd.engine.networks import Networks, is_member
from logd.network.state import Endpoint, Network, Subnet
from logd.spec import EndpointIPAMConfig, EndpointSettings
from logd.units import format_time_short


def network_shape(network: Network, members: Iterable[tuple[Container, Endpoint]]) -> dict[str, Any]:
    """Return Docker's Network; the list has it without members."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": format_time_short(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": network.ipam_options,
            "Config": [_subnet(one) for one in network.subnets] if network.driver == "bridge" else None,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {container.id: _member(container, endpoint) for container, endpoint in members},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def _subnet(subnet: Subnet) -> dict[str, Any]:
    shown: dict[str, Any] = {"Subnet": subnet.subnet}
    if subnet.ip_range:
        shown["IPRange"] = subnet.ip_range
    shown["Gateway"] = subnet.gateway
    if subnet.auxiliary:
        shown["AuxiliaryAddresses"] = dict(subnet.auxiliary)
    return shown


def _member(container: Container, endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": container.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.ipv4,
        "IPv6Address": endpoint.ipv6,
    }


def endpoints_shape(networks: Networks, container: Container) -> dict[str, Any]:
    """Return a container's `Networks`: addresses while it runs, and what was asked for also before and after."""
    mode = container.host.network_mode
    if mode.startswith("container:"):
        return {}
    lone = mode in {"host", "none"}
    settings: Mapping[str, EndpointSettings] = {mode: EndpointSettings()} if lone else container.networks
    present = {one.network_id: one for one in container.endpoints} if is_member(container) else {}
    shown = {}
    for name, asked in settings.items():
        network = networks.by_name(name)
        endpoint = present.get(network.id) if network else None
        known = network.id if network and container.state.started_ns else ""
        shown[name] = _endpoint(asked, endpoint, known)
    return shown


def _endpoint(asked: EndpointSettings, endpoint: Endpoint | None, network_id: str) -> dict[str, Any]:
    address, prefix = _split(endpoint.ipv4 if endpoint else "")
    address6, prefix6 = _split(endpoint.ipv6 if endpoint else "")
    return {
        "IPAMConfig": _ipam_config(asked.ipam_config),
        "Links": list(asked.links) or None,
        "Aliases": list(asked.aliases) or None,
        "MacAddress": endpoint.mac if endpoint else "",
        "DriverOpts": None,
        "NetworkID": network_id,
        "EndpointID": endpoint.id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": address,
        "IPPrefixLen": prefix,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": prefix6,
        "DNSNames": list(endpoint.dns_names) or None if endpoint else None,
    }


def _ipam_config(asked: EndpointIPAMConfig | None) -> dict[str, str] | None:
    if asked is None:
        return None
    fields = {"IPv4Address": asked.ipv4_address, "IPv6Address": asked.ipv6_address}
    return {name: value for name, value in fields.items() if value}


def _split(address: str) -> tuple[str, int]:
    if not address:
        return "", 0
    interface = ipaddress.ip_interface(address)
    return str(interface.ip), interface.network.prefixlen


def settings_shape(networks: Networks, container: Container) -> dict[str, Any]:
    """Return a container's NetworkSettings; the fields outside of `Networks` are those of the default bridge."""
    shown = endpoints_shape(networks, container)
    bridge = shown.get("bridge") or _endpoint(EndpointSettings(), None, "")
    own = ("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen")
    return {
        "Bridge": "",
        **_sandbox(networks, container),
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{name: bridge[name] for name in (*own, "IPv6Gateway", "MacAddress")},
        "Networks": shown,
    }


def _sandbox(networks: Networks, container: Container) -> dict[str, str]:
    """Return the namespace's name and file; that of a container without links of ours is its process's."""
    if is_member(container):
        return {"SandboxID": container.id, "SandboxKey": str(networks.sandbox(container.id))}
    pid = container.state.pid
    return {"SandboxID": "", "SandboxKey": f"/proc/{pid}/ns/net" if pid else ""}
