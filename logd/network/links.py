"""Bridges, and the pairs of interfaces between them and the containers' namespaces, by rtnetlink.

Everything blocks, and works in the namespace of the calling thread. What is there already stays as it is, so that a
call that was interrupted is repeated. A bridge of ours says in its alias whose it is; of links that do not, none is
ever changed. pyroute2 takes 11 MB and is not imported before the first bridge is made.

Source: rtnetlink(7), veth(4), kernel documentation networking/ip-sysctl.rst.
"""

import contextlib
import errno
import hashlib
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from logd.errors import LogdError
from logd.network import namespaces

if TYPE_CHECKING:
    from pyroute2 import IPRoute

NO_DAD: Final = 0x02
"""IFA_F_NODAD: an address that we gave out is nobody else's, and is usable at once."""
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
        index = _index(route, bridge.name)
        if index is None:
            index = _make_bridge(route, bridge)
        elif not _is_ours(route, index, bridge.alias):
            raise NameTaken(f"there is a link {bridge.name} that is not ours")
        route.link("set", index=index, ifalias=bridge.alias)
        six = any(":" in one for one in bridge.addresses)
        _set("ipv6", bridge.name, "disable_ipv6", "0" if six else "1")
        _set("ipv6", bridge.name, "accept_ra", "0")
        present = {f"{one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}" for one in route.get_addr(index=index)}
        for address in bridge.addresses:
            if address not in present:
                _add_address(route, index, address)
        route.link("set", index=index, state="up")


def _make_bridge(route: "IPRoute", bridge: Bridge) -> int:
    options = {"mtu": bridge.mtu} if bridge.mtu else {}
    try:
        route.link("add", ifname=bridge.name, kind="bridge", address=_mac(bridge.alias), **options)
    except Exception as error:
        if getattr(error, "code", 0) == errno.EEXIST:
            raise NameTaken(f"there is a link {bridge.name} that is not ours") from error
        raise
    index = _index(route, bridge.name)
    assert index is not None
    return index


def _mac(alias: str) -> str:
    """Return a bridge's own address: without one it would change with the interfaces that come and go."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in hashlib.sha256(alias.encode()).digest()[:4])


def _is_ours(route: "IPRoute", index: int, alias: str) -> bool:
    """Tell whose a link is; one that was made and not yet given its alias is known by its address."""
    for link in route.get_links(index):
        has = link.get_attr("IFLA_IFALIAS") or ""
        return has == alias or (not has and link.get_attr("IFLA_ADDRESS") == _mac(alias))
    return False


def remove_bridge(name: str, alias: str) -> None:
    """Remove a bridge of ours; none is fine."""
    with _netlink(f"bridge {name}") as route:
        index = _index(route, name)
        if index is not None and _is_ours(route, index, alias):
            route.link("del", index=index)


def plug(sandbox: Path, interfaces: Sequence[Interface], gateways: Sequence[Gateway]) -> None:
    """Make pairs of interfaces between a namespace and bridges, with addresses, up; and the default routes.

    Raises LogdError, OSError.
    """
    with _netlink("interfaces") as route, sandbox.open("rb") as namespace:
        for interface in interfaces:
            if _index(route, interface.host_name) is None:
                _make_pair(route, namespace.fileno(), interface)
                _set("ipv6", interface.host_name, "disable_ipv6", "1")  # it is a port of the bridge and no more
    namespaces.inside(sandbox, lambda: _set_up(interfaces, gateways))


def _make_pair(route: "IPRoute", namespace: int, interface: Interface) -> None:
    master = _index(route, interface.bridge)
    if master is None:
        raise LogdError(f"there is no bridge {interface.bridge}")
    options = {"mtu": interface.mtu} if interface.mtu else {}
    peer = {"ifname": interface.name, "net_ns_fd": namespace, "address": interface.mac, **options}
    route.link("add", ifname=interface.host_name, kind="veth", master=master, state="up", peer=peer, **options)


def _set_up(interfaces: Sequence[Interface], gateways: Sequence[Gateway]) -> None:
    with _netlink("interfaces") as route:
        route.link("set", index=1, state="up")
        for interface in interfaces:
            index = _index(route, interface.name)
            if index is None:
                raise LogdError(f"interface {interface.name} is not in its namespace")
            _set("ipv6", interface.name, "disable_ipv6", "0" if interface.ipv6 else "1")
            _set("ipv6", interface.name, "accept_dad", "0")
            _set("ipv6", interface.name, "accept_ra", "0")
            for address in (interface.ipv4, interface.ipv6):
                if address:
                    with _tolerated(errno.EEXIST):
                        _add_address(route, index, address)
            route.link("set", index=index, state="up")
        _set_gateways(route, gateways)


def set_gateways(sandbox: Path, gateways: Sequence[Gateway]) -> None:
    """Have these default routes in a namespace, at most one of each kind, and no others. Raises LogdError, OSError."""

    def work() -> None:
        with _netlink("default route") as route:
            _set_gateways(route, gateways)

    namespaces.inside(sandbox, work)


def _set_gateways(route: "IPRoute", gateways: Sequence[Gateway]) -> None:
    wanted: dict[int, Gateway] = {ipaddress.ip_address(one.address).version: one for one in gateways}
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        gateway = wanted.get(version)
        present = [one.get_attr("RTA_GATEWAY") for one in route.get_default_routes(family=family)]
        for address in present:
            if address and (gateway is None or address != gateway.address):
                route.route("del", dst="default", gateway=address, family=family)
        if gateway is not None and gateway.address not in present:
            index = _index(route, gateway.interface)
            route.route("add", dst="default", gateway=gateway.address, oif=index, family=family)


def unplug(host_names: Sequence[str]) -> None:
    """Remove pairs by the names of their ends in the bridges; those that are gone are fine. Raises LogdError."""
    if not host_names:
        return
    with _netlink("interfaces") as route:
        for name in host_names:
            index = _index(route, name)
            if index is not None:
                with _tolerated(errno.ENODEV):
                    route.link("del", index=index)


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


def _add_address(route: "IPRoute", index: int, address: str) -> None:
    parsed = ipaddress.ip_interface(address)
    options: dict[str, Any] = {"flags": NO_DAD} if parsed.version == 6 else {}
    if parsed.version == 4 and parsed.network.prefixlen < 31:
        options["broadcast"] = str(parsed.network.broadcast_address)
    route.addr("add", index=index, address=str(parsed.ip), prefixlen=parsed.network.prefixlen, **options)


def _index(route: "IPRoute", name: str) -> int | None:
    found: list[int] = route.link_lookup(ifname=name)
    return found[0] if found else None


def _set(family: str, interface: str, name: str, value: str) -> None:
    """Set a switch of an interface; a host without that family has none."""
    with contextlib.suppress(FileNotFoundError):
        (SYSCTL / family / "conf" / interface / name).write_text(value, encoding="ascii")


@contextlib.contextmanager
def _netlink(what: str) -> Iterator["IPRoute"]:
    """Give a connection to the namespace of this thread. The kernel's refusals become LogdError."""
    from pyroute2 import IPRoute  # noqa: PLC0415 - not before it is needed: see above
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise LogdError(f"{what}: {error.args[1] if len(error.args) > 1 else error}") from error


@contextlib.contextmanager
def _tolerated(number: int) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        yield
    except NetlinkError as error:
        if error.code != number:
            raise
