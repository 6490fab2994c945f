"""What the host's own networks are, so that no subnet is chosen that would hide one of them.

Source: proc_pid_net(5), kernel documentation for the hexadecimal columns of /proc/net/route and /proc/net/ipv6_route.
"""

import socket
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from logd.network.ipam import IPNetwork

PROC_NET: Final = Path("/proc/self/net")
RTF_REJECT: Final = 0x0200


def host_networks(ignoring: Collection[str] = (), folder: Path = PROC_NET) -> list[IPNetwork]:
    """Return the destinations of the host's routes, but for those of the links in `ignoring` (blocks).

    A default route hides nothing and is left out. Routes cover the host's addresses too: each has the route of its
    subnet.
    """
    return [*_ipv4(_read(folder / "route"), ignoring), *_ipv6(_read(folder / "ipv6_route"), ignoring)]


def _ipv4(text: str, ignoring: Collection[str]) -> list[IPNetwork]:
    found: list[IPNetwork] = []
    for line in text.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 8 or columns[0] in ignoring or columns[7] == "00000000":
            continue
        address, mask = (socket.ntohl(int(columns[at], 16)) for at in (1, 7))
        found.append(IPv4Network((address, mask.bit_count())))
    return found


def _ipv6(text: str, ignoring: Collection[str]) -> list[IPNetwork]:
    found: list[IPNetwork] = []
    for line in text.splitlines():
        columns = line.split()
        if len(columns) < 10 or columns[9] in ignoring or columns[1] == "00" or int(columns[8], 16) & RTF_REJECT:
            continue
        network = IPv6Network((bytes.fromhex(columns[0]), int(columns[1], 16)))
        if not network.is_link_local and not network.is_multicast and not network.is_loopback:
            found.append(network)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:  # a host without IPv6
        return ""
