"""Which networks a container is to be in: read from a create request or a connect request, and checked.

A network that is not there is not an error before the start, as in dockerd: it may be made until then, and a
container that is restarted finds one that was made anew under its name.
Source: Docker Engine API 1.47, NetworkingConfig and EndpointSettings; the messages are dockerd's.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from logd.endpoint import split_link
from logd.engine.names import Registry
from logd.engine.networks import Networks
from logd.errors import InvalidParameter, LogdError, Unsupported
from logd.network.state import Network
from logd.spec import ContainerSpec, EndpointIPAMConfig, EndpointSettings, HostConfig, convert

MAC: Final = re.compile(r"[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2}(?:\1[0-9a-fA-F]{2}){4})")
MAX_ALIAS: Final = 255
"""RFC 1035: of a name as a whole."""


def read_endpoint(value: Any, where: str) -> EndpointSettings:
    """Read one EndpointSettings. Raises InvalidParameter."""
    return convert(value or {}, EndpointSettings, where)


def settle_networks(
    networks: Networks, registry: Registry, spec: ContainerSpec, host: HostConfig, networking: Mapping[str, Any]
) -> tuple[HostConfig, dict[str, EndpointSettings]]:
    """Return the settings by the network's name, that of the network mode first; and `host` with other ids resolved.

    Nothing for a container without networks of its own. Raises InvalidParameter, Unsupported.
    """
    mode = host.network_mode or "bridge"
    asked = networking.get("EndpointsConfig") or {}
    if not isinstance(asked, dict):
        raise InvalidParameter("invalid JSON: EndpointsConfig must be an object")
    named = {_name(networks, key): read_endpoint(one, f"EndpointsConfig.{key}.") for key, one in asked.items()}
    if mode.startswith("container:"):
        _check_sharing(spec, host, named)
        return _resolved(registry, host), {}
    main = _name(networks, mode)
    if main in {"host", "none"}:
        if set(named) - {main} or (main in named and _is_set(named[main])):
            raise InvalidParameter(f"conflicting options: network {main} and settings of an endpoint")
        return host, {}
    if spec.network_disabled:
        return host, {}
    if conflicting := [name for name in named if name in {"host", "none"}]:
        raise InvalidParameter(f"conflicting options: cannot attach to both {main} and {conflicting[0]}")
    settings = {main: _with_mac(named.pop(main, EndpointSettings()), spec.mac_address), **named}
    for name, one in settings.items():
        check_endpoint(name, networks.by_name(name), one)
    return host, settings


def check_endpoint(name: str, network: Network | None, settings: EndpointSettings) -> None:
    """Check the settings of one endpoint; raises InvalidParameter or Unsupported, in Docker's words."""
    if settings.links and name == "bridge":
        raise Unsupported(
            "--link is supported on user-defined networks only: elsewhere it is a legacy feature of Docker"
        )
    if settings.driver_opts:
        raise Unsupported(f"--driver-opt {next(iter(settings.driver_opts))} is not supported")
    asked = settings.ipam_config or EndpointIPAMConfig()
    if asked.link_local_ips:
        raise Unsupported("--link-local-ip is not supported")
    problems = [
        *_bad_addresses(asked),
        *(_bad_alias(alias) for alias in settings.aliases),
        *(_bad_link(link) for link in settings.links),
    ]
    if settings.mac_address and not _is_mac(settings.mac_address):
        problems.append(f"invalid MAC address: {settings.mac_address}")
    if network is not None and not any(problems):
        problems += _misplaced(network, settings, asked)
    if words := [one for one in problems if one]:
        raise InvalidParameter("\n".join([f"invalid config for network {name}: invalid endpoint settings:", *words]))


def _misplaced(network: Network, settings: EndpointSettings, asked: EndpointIPAMConfig) -> list[str]:
    """Return what a network has no place for."""
    addresses = [one for one in (asked.ipv4_address, asked.ipv6_address) if one]
    if network.is_default:
        return [
            *(["user specified IP address is supported on user defined networks only"] if addresses else []),
            *(["network-scoped aliases are only supported for user-defined networks"] if settings.aliases else []),
        ]
    subnets = [ipaddress.ip_network(one.subnet) for one in network.subnets]
    return [
        f"no configured subnet contains IP address {one}"
        for one in addresses
        if not any(ipaddress.ip_address(one) in subnet for subnet in subnets)
    ]


def _bad_addresses(asked: EndpointIPAMConfig) -> list[str]:
    return [
        f"invalid IPv{version} address: {text}"
        for version, text in ((4, asked.ipv4_address), (6, asked.ipv6_address))
        if text and not _is_address(text, version)
    ]


def _bad_alias(alias: str) -> str:
    fine = alias and len(alias) <= MAX_ALIAS and all(letter.isprintable() and letter != " " for letter in alias)
    return "" if fine else f"invalid alias: {alias!r}"


def _bad_link(link: str) -> str:
    name, alias = split_link(link)
    return f"bad format for links: {link}" if _bad_alias(name) or _bad_alias(alias) or ":" in alias else ""


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version and "%" not in text
    except ValueError:
        return False


def _is_mac(text: str) -> bool:
    """One of an interface: six bytes, not one of a group, not nothing."""
    return bool(MAC.fullmatch(text)) and int(text[:2], 16) & 1 == 0 and text.strip("0:-") != ""


def _is_set(settings: EndpointSettings) -> bool:
    return settings not in (EndpointSettings(), EndpointSettings(ipam_config=EndpointIPAMConfig()))


def _with_mac(settings: EndpointSettings, mac: str) -> EndpointSettings:
    """Enter the address that older clients ask for of the container as a whole."""
    if mac and settings.mac_address and mac != settings.mac_address:
        raise InvalidParameter(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be "
            "left empty"
        )
    return msgspec.structs.replace(settings, mac_address=mac) if mac else settings


def _name(networks: Networks, ref: str) -> str:
    """Return the name of the network that is meant; a name that is not known (yet) is itself."""
    try:
        return networks.get(ref).name
    except LogdError:
        return ref


def _check_sharing(spec: ContainerSpec, host: HostConfig, named: Mapping[str, EndpointSettings]) -> None:
    """Refuse what can't be one's own in another container's namespace."""
    if not host.network_mode.partition(":")[2]:
        raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
    conflicts = (
        ("hostname and the network mode", spec.hostname),
        ("dns and the network mode", host.dns or host.dns_search or host.dns_options),
        ("custom host-to-IP mapping and the network mode", host.extra_hosts),
        ("mac-address and the network mode", spec.mac_address),
        ("port publishing and the container type network mode", host.port_bindings or host.publish_all_ports),
        ("port exposing and the container type network mode", spec.exposed_ports),
        ("endpoint settings and the container type network mode", any(_is_set(one) for one in named.values())),
    )
    for words, is_set in conflicts:
        if is_set:
            raise InvalidParameter(f"conflicting options: {words}")


def _resolved(registry: Registry, host: HostConfig) -> HostConfig:
    """Have the mode name a container by its id, so that it stays the same one when that is renamed."""
    try:
        owner = registry.get(host.network_mode.partition(":")[2])
    except LogdError:  # told at the start, as by dockerd
        return host
    return msgspec.structs.replace(host, network_mode=f"container:{owner.id}")


def shared_hostname(registry: Registry, spec: ContainerSpec, host: HostConfig) -> ContainerSpec:
    """Return the spec with the host name of the container whose network it shares, if that is known."""
    if host.network_mode.startswith("container:") and not spec.hostname:
        owner = registry.find(host.network_mode.partition(":")[2])
        if owner is not None:
            return msgspec.structs.replace(spec, hostname=owner.spec.hostname)
    return spec
