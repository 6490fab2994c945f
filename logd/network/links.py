"""Bridges, and the pairs of interfaces between them and the containers' namespaces, by rtnetlink.

Everything blocks, and works in the namespace of the calling thread. What is there already stays as it is, so that a
call that was interrupted is repeated. A bridge of ours says in its alias whose it is; of links that do not, none is
ever changed.

Source: rtnetlink(7), veth(4), kernel documentation networking/ip-sysctl.rst.
"""

import contextlib
import errno
import hashlib
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from logd.errors import LogdError
from logd.network import namespaces, rtnetlink
from logd.network.netlink import Connection, NetlinkError, Request
from logd.network.rtnetlink import Link

LOOPBACK_INDEX: Final = 1
SYSCTL: Final = Path("/proc/sys/net")
CLASS_NET: Final = Path("/sys/class/net")


class NameTaken(LogdError):
    """There is a link of that name which is not ours."""


class Bridge(NamedTuple):
    """A bridge as it has to be. `addresses` with their prefix lengths; `mtu` 0 for the kernel's default."""

    name: str
    alias: str
    addresses: tuple[str, ...]
    mtu: int = 0


class Interface(NamedTuple):
    """A container's interface. `host_name` is the end in the bridge; addresses are "" or have a prefix length."""

    name: str
    host_name: str
    bridge: str
    mac: str
    ipv4: str = ""
    ipv6: str = ""
    mtu: int = 0


class Gateway(NamedTuple):
    """Where a container's packets go that are for none of its networks: an address, and the interface it is behind."""

    address: str
    interface: str


def ensure_bridge(bridge: Bridge) -> None:
    """Have a bridge with its addresses, up. Raises NameTaken, LogdError."""
    with _netlink(f"bridge {bridge.name}") as route:
        link = rtnetlink.find_link(route, bridge.name) or _make_bridge(route, bridge)
        if not _is_ours(link, bridge.alias):
            raise NameTaken(f"there is a link {bridge.name} that is not ours")
        six = any(":" in one for one in bridge.addresses)
        _set("ipv6", bridge.name, "disable_ipv6", "0" if six else "1")
        _set("ipv6", bridge.name, "accept_ra", "0")
        addresses = [rtnetlink.add_address(link.ifindex, one, errno.EEXIST) for one in bridge.addresses]
        route.do([rtnetlink.set_alias(link.ifindex, bridge.alias), *addresses, rtnetlink.set_up(link.ifindex)])


def _make_bridge(route: Connection, bridge: Bridge) -> Link:
    try:
        route.do([rtnetlink.make_bridge(bridge.name, _mac(bridge.alias), bridge.mtu)])
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            raise NameTaken(f"there is a link {bridge.name} that is not ours") from error
        raise
    link = rtnetlink.find_link(route, bridge.name)
    if link is None:
        raise LogdError(f"bridge {bridge.name} was removed as soon as it was made")
    return link


def _mac(alias: str) -> str:
    """Return a bridge's own address: without one it would change with the interfaces that come and go."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in hashlib.sha256(alias.encode()).digest()[:4])


def _is_ours(link: Link, alias: str) -> bool:
    """Tell whose a link is; one that was made and not yet given its alias is known by its address."""
    return link.alias == alias or (not link.alias and link.mac == _mac(alias))


def remove_bridge(name: str, alias: str) -> None:
    """Remove a bridge of ours; none is fine."""
    with _netlink(f"bridge {name}") as route:
        link = rtnetlink.find_link(route, name)
        if link is not None and _is_ours(link, alias):
            route.do([rtnetlink.remove_link(link.ifindex)])


def plug(sandbox: Path, interfaces: Sequence[Interface], gateways: Sequence[Gateway]) -> None:
    """Make pairs of interfaces between a namespace and bridges, with addresses, up; and the default routes.

    Raises LogdError, OSError.
    """
    with _netlink("interfaces") as route, sandbox.open("rb") as namespace:
        for interface in interfaces:
            if not _index(interface.host_name):
                _make_pair(route, namespace.fileno(), interface)
                _set("ipv6", interface.host_name, "disable_ipv6", "1")  # it is a port of the bridge and no more
    namespaces.inside(sandbox, lambda: _set_up(interfaces, gateways))


def _make_pair(route: Connection, namespace: int, interface: Interface) -> None:
    master = _index(interface.bridge)
    if not master:
        raise LogdError(f"there is no bridge {interface.bridge}")
    one = interface
    route.do([rtnetlink.make_pair(one.host_name, master, one.name, namespace, one.mac, one.mtu)])


def _set_up(interfaces: Sequence[Interface], gateways: Sequence[Gateway]) -> None:
    requests = [rtnetlink.set_up(LOOPBACK_INDEX)]
    for interface in interfaces:
        index = _index(interface.name)
        if not index:
            raise LogdError(f"interface {interface.name} is not in its namespace")
        _set("ipv6", interface.name, "disable_ipv6", "0" if interface.ipv6 else "1")
        _set("ipv6", interface.name, "accept_dad", "0")
        _set("ipv6", interface.name, "accept_ra", "0")
        addresses = [one for one in (interface.ipv4, interface.ipv6) if one]
        requests += [rtnetlink.add_address(index, one, errno.EEXIST) for one in addresses]
        requests.append(rtnetlink.set_up(index))
    with _netlink("interfaces") as route:
        route.do([*requests, *_route_changes(route, gateways)])


def set_gateways(sandbox: Path, gateways: Sequence[Gateway]) -> None:
    """Have these default routes in a namespace, at most one of each kind, and no others. Raises LogdError, OSError."""

    def work() -> None:
        with _netlink("default route") as route:
            route.do(_route_changes(route, gateways))

    namespaces.inside(sandbox, work)


def _route_changes(route: Connection, gateways: Sequence[Gateway]) -> list[Request]:
    """Return what has to be asked for these routes."""
    wanted: dict[int, Gateway] = {ipaddress.ip_address(one.address).version: one for one in gateways}
    changes = []
    for version in (4, 6):
        gateway = wanted.get(version)
        present = rtnetlink.default_gateways(route, version)
        changes += [rtnetlink.remove_default_route(one) for one in present if not gateway or one != gateway.address]
        if gateway and gateway.address not in present:
            changes.append(rtnetlink.add_default_route(gateway.address, _index(gateway.interface)))
    return changes


def unplug(host_names: Sequence[str]) -> None:
    """Remove pairs by the names of their ends in the bridges; those that are gone are fine. Raises LogdError."""
    indices = [index for name in host_names if (index := _index(name))]
    if indices:
        with _netlink("interfaces") as route:
            route.do([rtnetlink.remove_link(index, errno.ENODEV) for index in indices])


def exists(name: str) -> bool:
    """Tell whether the host has a link of this name."""
    return (CLASS_NET / name).exists()


def bridges_of(prefix: str) -> dict[str, str]:
    """Return the host's links whose alias begins with `prefix`: name → alias."""
    found = {}
    for folder in CLASS_NET.iterdir():
        with contextlib.suppress(OSError):
            alias = (folder / "ifalias").read_text(encoding="utf-8", errors="replace").strip()
            if alias.startswith(prefix):
                found[folder.name] = alias
    return found


def ports_of(bridge: str) -> list[str]:
    """Return the links that are in a bridge of the host."""
    with contextlib.suppress(OSError):
        return [one.name for one in (CLASS_NET / bridge / "brif").iterdir()]
    return []


def set_forwarding(*, ipv6: bool) -> bool:
    """Have the host forward packets; true if it did not before. Raises OSError.

    A host that forwards IPv6 does not learn its own routes from routers any more, unless told to (accept_ra 2).
    """
    switches = [SYSCTL / "ipv4/ip_forward", *([SYSCTL / "ipv6/conf/all/forwarding"] if ipv6 else [])]
    changed = False
    for switch in switches:
        if switch.read_text(encoding="ascii").strip() == "0":
            if switch.parts[-3] == "conf":
                _keep_learning_routes()
            switch.write_text("1", encoding="ascii")
            changed = True
    return changed


def _keep_learning_routes() -> None:
    for switch in (SYSCTL / "ipv6/conf").glob("*/accept_ra"):
        if switch.read_text(encoding="ascii").strip() == "1":
            switch.write_text("2", encoding="ascii")


def _index(name: str) -> int:
    """Return a link's number in this thread's namespace, 0 for none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _set(family: str, interface: str, name: str, value: str) -> None:
    """Set a switch of an interface; a host without that family has none."""
    with contextlib.suppress(FileNotFoundError):
        (SYSCTL / family / "conf" / interface / name).write_text(value, encoding="ascii")


@contextlib.contextmanager
def _netlink(what: str) -> Iterator[Connection]:
    """Give a connection to the namespace of this thread. The kernel's refusals become LogdError."""
    try:
        with rtnetlink.connect() as route:
            yield route
    except NetlinkError as error:
        raise LogdError(f"{what}: {error.strerror}") from error
