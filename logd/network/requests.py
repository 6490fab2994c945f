"""POST /networks/create: what may be asked for, checked as a whole; which subnets it becomes is decided later.

Source: Docker Engine API 1.47, NetworkCreate; the messages are dockerd's (moby's validation of IPAM settings).
"""

import ipaddress
import re
from typing import Any, Final

import msgspec

from logd.errors import Forbidden, InvalidParameter, NotFound, Unsupported
from logd.network.ipam import IPNetwork, check_address, first_address
from logd.network.state import (
    OPTION_DEFAULT,
    OPTION_HOST_BINDING,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MTU,
    OPTION_NAME,
    PREDEFINED,
    Subnet,
)
from logd.spec import DockerStruct, convert

NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
LINK_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
MAX_NAME: Final = 128
MIN_MTU, MAX_MTU = 68, 65535
"""RFC 791's least; a bridge's most."""
MIN_IPV6_MTU: Final = 1280
"""RFC 8200."""
BOOLEANS: Final = (OPTION_ICC, OPTION_MASQUERADE, OPTION_DEFAULT)
TRUTHS: Final = frozenset(("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"))
OURS: Final = "com.docker.network."
"""What begins so means something to Docker: what is not known here is refused."""
KNOWN: Final = frozenset((*BOOLEANS, OPTION_HOST_BINDING, OPTION_MTU, OPTION_NAME))


class IPAMConfig(DockerStruct, frozen=True):
    """One subnet as it is asked for; empty is the engine's choice."""

    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = msgspec.field(default_factory=dict)


class IPAM(DockerStruct, frozen=True):
    """How addresses are given."""

    driver: str = ""
    options: dict[str, str] | None = None
    config: list[IPAMConfig] = msgspec.field(default_factory=list)


class NetworkRequest(DockerStruct, frozen=True):
    """The body of the request."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, Any] | None = None
    enable_ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    ipam: IPAM | None = msgspec.field(name="IPAM", default=None)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)


def read_request(body: dict[str, Any]) -> NetworkRequest:
    """Read and check a body. Raises InvalidParameter, Forbidden, NotFound, Unsupported."""
    request = convert(body, NetworkRequest)
    _check_name(request.name)
    _check_driver(request)
    _check_options(request)
    return request


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidParameter(f'invalid network name "{name}"')
    if name in {*PREDEFINED, "default"}:
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        raise InvalidParameter(
            f'invalid network name "{name}": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most {MAX_NAME} letters'
        )


def _check_driver(request: NetworkRequest) -> None:
    if request.driver in {"host", "null"}:
        raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
    if request.driver in {"ipvlan", "macvlan", "overlay"}:
        raise Unsupported(f"network driver {request.driver} is not supported (supported: bridge)")
    if request.driver not in {"", "bridge"}:
        raise NotFound(
            f'could not find plugin {request.driver} in v1 plugin registry: plugin "{request.driver}" not found'
        )
    if request.scope not in {"", "local"}:
        raise Unsupported(f"network scope {request.scope} is not supported (supported: local)")
    refused = {
        "--ingress": request.ingress,
        "--config-only": request.config_only,
        "--config-from": (request.config_from or {}).get("Network"),
    }
    for option, is_set in refused.items():
        if is_set:
            raise Unsupported(f"{option} is not supported: there is no swarm mode")
    if request.ipam and request.ipam.driver not in {"", "default"}:
        raise Unsupported(f"--ipam-driver {request.ipam.driver} is not supported (supported: default)")


def _check_options(request: NetworkRequest) -> None:
    for key, value in request.options.items():
        if key in BOOLEANS and value not in TRUTHS:
            raise InvalidParameter(f"failed to parse {key} value: {value} (accepted: true or false)")
        if key == OPTION_MTU:
            _check_mtu(value, MIN_IPV6_MTU if request.enable_ipv6 else MIN_MTU)
        if key == OPTION_NAME and not LINK_NAME.fullmatch(value):
            raise InvalidParameter(f"{key}: invalid value {value!r} (accepted: the name of a link, at most 15 letters)")
        if key == OPTION_HOST_BINDING:
            _address(value, f"failed to parse {key} value")
        if key.startswith(OURS) and key not in KNOWN:
            raise Unsupported(f"option {key} is not supported (supported: {', '.join(sorted(KNOWN))})")


def _check_mtu(value: str, least: int) -> None:
    if not re.fullmatch(r"[0-9]{1,5}", value) or (int(value) and not least <= int(value) <= MAX_MTU):
        raise InvalidParameter(f"failed to parse {OPTION_MTU} value: {value} (accepted: {least} to {MAX_MTU})")


def asked_subnets(request: NetworkRequest) -> dict[int, Subnet]:
    """Return the subnets that are asked for by version, 4 and 6; those of IPv6 only where that is enabled.

    Raises InvalidParameter.
    """
    found: dict[int, Subnet] = {}
    for config in request.ipam.config if request.ipam else ():
        if not config.subnet:
            if config.gateway or config.ip_range or config.auxiliary_addresses:
                raise InvalidParameter(
                    "invalid network config:\nan ip-range, gateway or auxiliary address needs a subnet"
                )
            continue
        subnet = complete_subnet(config)
        version = ipaddress.ip_network(subnet.subnet).version
        if version == 6 and not request.enable_ipv6:
            continue
        if version in found:
            raise InvalidParameter(f"the bridge driver takes one IPv{version} subnet (given: {subnet.subnet} too)")
        found[version] = subnet
    return found


def complete_subnet(config: IPAMConfig) -> Subnet:
    """Return a subnet with its gateway; raises InvalidParameter in Docker's words."""
    network = _network(config.subnet, "subnet")
    if config.subnet != str(network) and ipaddress.ip_interface(config.subnet).ip != network.network_address:
        raise InvalidParameter(f"invalid network config:\ninvalid subnet {config.subnet}: it should be {network}")
    if network.prefixlen > network.max_prefixlen - 2:
        raise InvalidParameter(
            f"invalid network config:\ninvalid subnet {config.subnet}: too small for a gateway and a member"
        )
    ip_range = _range(config.ip_range, network) if config.ip_range else ""
    auxiliary = dict(config.auxiliary_addresses)
    for text in auxiliary.values():
        _inside(text, network, "auxiliary address")
    if config.gateway:
        _inside(config.gateway, network, "gateway")
        gateway = ipaddress.ip_address(config.gateway)
        check_address(network, gateway, ())
    else:
        gateway = first_address(network, auxiliary)
    return Subnet(subnet=str(network), gateway=str(gateway), ip_range=ip_range, auxiliary=auxiliary)


def _range(text: str, network: IPNetwork) -> str:
    ip_range = _network(text, "ip-range")
    where = f"invalid network config:\ninvalid ip-range {text}"
    if ip_range.prefixlen < network.prefixlen:
        raise InvalidParameter(f"{where}: CIDR block is bigger than its parent subnet {network}")
    if ip_range.network_address not in network:
        raise InvalidParameter(f"{where}: parent subnet {network} doesn't contain ip-range")
    return str(ip_range)


def _inside(text: str, network: IPNetwork, what: str) -> None:
    if _address(text, f"invalid network config:\ninvalid {what}") not in network:
        raise InvalidParameter(
            f"invalid network config:\ninvalid {what} {text}: parent subnet {network} doesn't contain this address"
        )


def _network(text: str, what: str) -> IPNetwork:
    try:
        if "/" not in text:
            raise ValueError(text)
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidParameter(
            f"invalid network config:\ninvalid {what} {text}: invalid CIDR block notation"
        ) from error


def _address(text: str, where: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidParameter(f"{where} {text}: invalid address") from error
