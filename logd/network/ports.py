"""Published ports as they are asked for: HostConfig's PortBindings and PublishAllPorts, parsed and checked.

Which addresses and ports they become when a container starts is decided in `claims`.
Sources: Docker Engine API 1.47, PortMap; docker run's --publish; ip(7) for the range of random ports.
"""

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from logd.errors import InvalidParameter, Unsupported
from logd.spec import ContainerSpec, HostConfig

Protocol = Literal["tcp", "udp"]

MAX_PORT: Final = 65535
DEFAULT_RANGE: Final = (32768, 60999)
"""The kernel's own net.ipv4.ip_local_port_range."""
RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Binding(msgspec.Struct, kw_only=True, frozen=True):
    """One wish: a port of the container at `host_ip` ("" for the default) and one of the ports `first` to `last`.

    `first` is 0 where any port will do.
    """

    protocol: Protocol
    container_port: int
    host_ip: str = ""
    first: int = 0
    last: int = 0


class Published(msgspec.Struct, kw_only=True, frozen=True):
    """A port of the host that leads to one of a container; `host_ip` may be 0.0.0.0 or ::, all addresses of a kind."""

    protocol: Protocol
    container_port: int
    host_ip: str
    host_port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.host_ip

    @property
    def place(self) -> str:
        """Return `0.0.0.0:8080` or `[::]:8080`."""
        return f"[{self.host_ip}]:{self.host_port}" if self.is_ipv6 else f"{self.host_ip}:{self.host_port}"


def parse_port(text: str) -> tuple[int, Protocol]:
    """Read a port of a container, `80`, `80/tcp` or `53/udp`. Raises InvalidParameter in Docker's words."""
    number, _, name = text.partition("/")
    protocol = name.lower() or "tcp"
    if protocol == "sctp":
        raise Unsupported(f"port {text}: sctp is not supported (supported: tcp, udp)")
    if protocol not in get_args(Protocol):
        raise InvalidParameter(f"invalid port specification: {text!r}: invalid proto: {name}")
    known: Protocol = "udp" if protocol == "udp" else "tcp"
    return _number(number, f"invalid port specification: {text!r}"), known


def parse_bindings(spec: ContainerSpec, host: HostConfig) -> tuple[Binding, ...]:
    """Return all that a container wants published, in a fixed order.

    Raises InvalidParameter for what is no port or address, Unsupported for sctp.
    """
    bindings: list[Binding] = []
    for text, wishes in host.port_bindings.items():
        port, protocol = parse_port(text)
        bindings += (_binding(port, protocol, wish.host_ip, wish.host_port, text) for wish in wishes or ())
    if host.publish_all_ports:
        given = {(one.container_port, one.protocol) for one in bindings}
        exposed = {parse_port(text) for text in spec.exposed_ports}
        bindings += (Binding(protocol=kind, container_port=port) for port, kind in sorted(exposed - given))
    return tuple(sorted(dict.fromkeys(bindings), key=lambda one: (one.first == 0, one.container_port, one.protocol)))


def _binding(port: int, protocol: Protocol, address: str, host_port: str, text: str) -> Binding:
    wrong = f"invalid port binding of {text}"
    first, dash, last = host_port.partition("-")
    begin = _number(first, f"{wrong}: {host_port!r}", least=0) if first else 0
    end = _number(last, f"{wrong}: {host_port!r}") if dash else begin
    if end < begin or (dash and not begin):
        raise InvalidParameter(f"{wrong}: invalid range: {host_port!r}")
    return Binding(
        protocol=protocol,
        container_port=port,
        host_ip=_address(address, wrong) if address else "",
        first=begin,
        last=end,
    )


def _number(text: str, wrong: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PORT)) and least <= int(text) <= MAX_PORT):
        raise InvalidParameter(f"{wrong}: invalid port {text!r} (accepted: 1 to {MAX_PORT})")
    return int(text)


def _address(text: str, wrong: str) -> str:
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InvalidParameter(f"{wrong}: invalid IP address {text!r}") from None
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise InvalidParameter(f"{wrong}: invalid IP address {text!r} (no zone, no IPv4 address in IPv6 form)")
    return str(address)


def random_range(file: Path = RANGE_FILE) -> tuple[int, int]:
    """Return the first and the last of the ports that are given where any will do."""
    try:
        first, last = (int(number) for number in file.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return DEFAULT_RANGE
    return (first, last) if 0 < first <= last <= MAX_PORT else DEFAULT_RANGE


def port_map(spec: ContainerSpec, published: Iterable[Published]) -> dict[str, list[dict[str, str]] | None]:
    """Return NetworkSettings.Ports of a container that runs: exposed ports that are not published are null."""
    places: dict[str, list[dict[str, str]]] = {}
    for one in published:
        place = {"HostIp": one.host_ip, "HostPort": str(one.host_port)}
        places.setdefault(f"{one.container_port}/{one.protocol}", []).append(place)
    return dict(sorted({**dict.fromkeys(_exposed(spec)), **places}.items()))


def port_list(spec: ContainerSpec, published: Iterable[Published]) -> list[dict[str, Any]]:
    """Return `Ports` of a container that runs in the list of containers."""
    shown: list[dict[str, Any]] = [
        {
            "IP": one.host_ip,
            "PrivatePort": one.container_port,
            "PublicPort": one.host_port,
            "Type": one.protocol,
        }
        for one in published
    ]
    known = {f"{one['PrivatePort']}/{one['Type']}" for one in shown}
    for port in _exposed(spec):
        if port not in known:
            number, protocol = port.split("/")
            shown.append({"PrivatePort": int(number), "Type": protocol})
    return shown


def _exposed(spec: ContainerSpec) -> list[str]:
    """Return exposed ports in full form; what an image exposes that is no port of ours is left out."""
    known = []
    for text in spec.exposed_ports:
        number, _, protocol = text.partition("/")
        if number.isascii() and number.isdigit():
            known.append(f"{number}/{protocol or 'tcp'}")
    return known
