"""What is asked of the kernel about links, addresses and routes: the messages of rtnetlink that `links` needs.

pyroute2 has them all, and takes 12 MB and 0.2 s to be imported, and several round trips for what is one here.
Source: rtnetlink(7); linux/rtnetlink.h, if_link.h, if_addr.h, veth.h.
"""

import errno
import ipaddress
import socket
import struct
from typing import Final, NamedTuple

from logd.network.netlink import CREATE, DUMP, EXCL, Connection, Request, attribute, attributes

LINK: Final = struct.Struct("=BxHiII")
"""ifinfomsg: family, type, index, flags, which of the flags change."""
ADDRESS: Final = struct.Struct("=BBBBI")
"""ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE: Final = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, prefix lengths of destination and source, TOS, table, protocol, scope, type, flags."""
NUMBER: Final = struct.Struct("=I")

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR: Final = 20
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26

IFF_UP: Final = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 20, 28
INFO_KIND, INFO_DATA = 1, 2
VETH_INFO_PEER: Final = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD: Final = 0x02
"""An address that we gave out is nobody else's, and is usable at once."""
RTA_OIF, RTA_GATEWAY = 4, 5
TABLE_MAIN, PROTOCOL_STATIC, SCOPE_UNIVERSE, TYPE_UNICAST = 254, 4, 0, 1
FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class Link(NamedTuple):
    """What a link says of itself; `alias` is "" where it has none."""

    ifindex: int
    mac: str
    alias: str


def connect() -> Connection:
    """Return a connection to the namespace of this thread."""
    return Connection(socket.NETLINK_ROUTE)


def find_link(route: Connection, name: str) -> Link | None:
    """Return the link of a name, None where there is none."""
    asked = Request(GETLINK, LINK.pack(0, 0, 0, 0, 0) + _name(name), tolerated=(errno.ENODEV,))
    for body in route.get(asked):
        _, _, index, _, _ = LINK.unpack_from(body)
        found = attributes(body[LINK.size :])
        mac = ":".join(f"{byte:02x}" for byte in found.get(IFLA_ADDRESS, b""))
        return Link(index, mac, found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"))
    return None


def make_bridge(name: str, mac: str, mtu: int) -> Request:
    """Make a bridge, which is down; `mtu` 0 is the kernel's default."""
    info = attribute(IFLA_LINKINFO, attribute(INFO_KIND, b"bridge"))
    return Request(NEWLINK, LINK.pack(0, 0, 0, 0, 0) + _name(name) + _mac(mac) + _mtu(mtu) + info, CREATE | EXCL)


def make_pair(host_name: str, master: int, name: str, namespace: int, mac: str, mtu: int) -> Request:
    """Make a pair: `host_name`, up in the bridge with the index `master`, and `name` in a namespace, by descriptor."""
    peer = LINK.pack(0, 0, 0, 0, 0) + _name(name) + _number(IFLA_NET_NS_FD, namespace) + _mac(mac) + _mtu(mtu)
    kind = attribute(INFO_KIND, b"veth") + attribute(INFO_DATA, attribute(VETH_INFO_PEER, peer))
    own = _name(host_name) + _mtu(mtu) + _number(IFLA_MASTER, master) + attribute(IFLA_LINKINFO, kind)
    return Request(NEWLINK, LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + own, CREATE | EXCL)


def set_alias(index: int, alias: str) -> Request:
    """Mark a link."""
    return Request(NEWLINK, LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_IFALIAS, alias.encode()))


def set_up(index: int) -> Request:
    """Have a link up."""
    return Request(NEWLINK, LINK.pack(0, 0, index, IFF_UP, IFF_UP))


def remove_link(index: int, *tolerated: int) -> Request:
    """Remove a link."""
    return Request(DELLINK, LINK.pack(0, 0, index, 0, 0), tolerated=tolerated)


def add_address(index: int, address: str, *tolerated: int) -> Request:
    """Give a link an address with its prefix length."""
    parsed = ipaddress.ip_interface(address)
    version, length = parsed.version, parsed.network.prefixlen
    body = ADDRESS.pack(FAMILIES[version], length, IFA_F_NODAD if version == 6 else 0, SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, parsed.ip.packed) + attribute(IFA_ADDRESS, parsed.ip.packed)
    if version == 4 and length < 31:
        body += attribute(IFA_BROADCAST, parsed.network.broadcast_address.packed)
    return Request(NEWADDR, body, CREATE | EXCL, tolerated)


def default_gateways(route: Connection, version: int) -> list[str]:
    """Return where the default routes of the main table lead to that have a gateway."""
    found = []
    for body in route.get(Request(GETROUTE, _route(version), DUMP)):
        _, length, _, _, table, _, _, _, _ = ROUTE.unpack_from(body)
        gateway = attributes(body[ROUTE.size :]).get(RTA_GATEWAY)
        if not length and table == TABLE_MAIN and gateway:
            found.append(str(ipaddress.ip_address(gateway)))
    return found


def add_default_route(address: str, index: int) -> Request:
    """Send what is for no other network to this address, which is behind a link."""
    gateway = ipaddress.ip_address(address)
    body = _route(gateway.version) + attribute(RTA_GATEWAY, gateway.packed) + _number(RTA_OIF, index)
    return Request(NEWROUTE, body, CREATE | EXCL)


def remove_default_route(address: str) -> Request:
    """Do so no more."""
    gateway = ipaddress.ip_address(address)
    return Request(DELROUTE, _route(gateway.version) + attribute(RTA_GATEWAY, gateway.packed))


def _route(version: int) -> bytes:
    return ROUTE.pack(FAMILIES[version], 0, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, SCOPE_UNIVERSE, TYPE_UNICAST, 0)


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, name.encode() + b"\0")


def _mac(mac: str) -> bytes:
    return attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def _mtu(mtu: int) -> bytes:
    return _number(IFLA_MTU, mtu) if mtu else b""


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, NUMBER.pack(value))
