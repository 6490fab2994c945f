"""The rules for our bridges, in one nftables table of our own: masquerading, isolation, published ports.

The table is written as a whole from the view of all networks, and replaced in one transaction; connections go on, since
their translations are the kernel's connection tracking's. Nothing outside of it is touched. Its base chains accept what
they don't drop, and they drop only what would enter or leave our bridges; another table that drops what is forwarded
(`logd doctor` tells) can't be overruled from here.

- Published ports: destination translation of what comes to a local address, from outside, from containers, and from
  the host itself, its loopback included (IPv4: the bridge then routes 127.0.0.0/8, which `martians` closes to
  containers; the kernel can't do that for ::1).
- A bridge takes from outside what belongs to a connection of its containers, and what a published port leads there:
  networks don't reach each other, nor a container's ports that are not published. Internal ones take nothing.
- Replies have to come back this way: what leaves a bridge gets the host's address, and so does what a container sends
  to a published port that leads into its own network.

Source: nft(8); netfilter's hook priorities; the kernel's Documentation/networking/ip-sysctl (route_localnet).
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from logd.network.ports import Published

LINK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
TABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
MAP_TYPES: Final = {
    "published": "inet_proto . inet_service : ipv4_addr . inet_service",
    "published_at": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "published6": "inet_proto . inet_service : ipv6_addr . inet_service",
    "published6_at": "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
}
ANY: Final = frozenset(("0.0.0.0", "::"))  # noqa: S104 - what the wildcards look like


class Bridge(msgspec.Struct, kw_only=True, frozen=True):
    """What the rules have to know of a network: its link, its subnets in CIDR form, its switches."""

    link: str
    subnets: tuple[str, ...]
    internal: bool = False
    masquerade: bool = True
    icc: bool = True


class Forward(msgspec.Struct, kw_only=True, frozen=True):
    """A published port and the address of the container that it leads to."""

    published: Published
    address: str


def render(table: str, bridges: Sequence[Bridge], forwards: Sequence[Forward]) -> str:
    """Return nft's input that replaces the table, or removes it where there is no bridge.

    Raises ValueError for what is no link, subnet or address: nothing else gets into a rule.
    """
    if not TABLE.fullmatch(table):
        raise ValueError(f"{table!r} is no name of a table")
    gone = [f"table inet {table}", f"delete table inet {table}"]
    if not bridges:
        return _lines(gone)
    for bridge in bridges:
        _check(bridge)
    chains = [
        *_maps(forwards),
        *_chain("publish", "", _publish()),
        *_chain(
            "prerouting",
            "nat hook prerouting priority dstnat",
            ["ip daddr 127.0.0.0/8 return", "fib daddr type local jump publish"],
        ),
        *_chain(
            "output", "nat hook output priority -100", ["ip6 daddr ::1 return", "fib daddr type local jump publish"]
        ),
        *_chain("postrouting", "nat hook postrouting priority srcnat", _postrouting(bridges)),
        *_chain(
            "martians",
            "filter hook prerouting priority raw",
            [f'iifname "{one.link}" ip daddr 127.0.0.0/8 drop' for one in bridges],
        ),
        *_chain("forward", "filter hook forward priority filter", _forward(bridges)),
    ]
    return _lines([*gone, f"table inet {table} {{", *(f"\t{line}" for line in chains), "}"])


def _check(bridge: Bridge) -> None:
    if not LINK.fullmatch(bridge.link):
        raise ValueError(f"{bridge.link!r} is no name of a link")
    for subnet in bridge.subnets:
        ipaddress.ip_network(subnet)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _chain(name: str, hook: str, rules: Sequence[str]) -> list[str]:
    head = [f"\ttype {hook}; policy accept;"] if hook else []
    return [f"chain {name} {{", *head, *(f"\t{rule}" for rule in rules), "}"]


def _maps(forwards: Iterable[Forward]) -> list[str]:
    elements: dict[str, list[str]] = {name: [] for name in MAP_TYPES}
    for one in forwards:
        port, target = one.published, ipaddress.ip_address(one.address)
        host = ipaddress.ip_address(port.host_ip)
        if host.version != target.version:
            raise ValueError(f"{host} can't lead to {target}")
        is_any = str(host) in ANY
        name = f"published{'6' if target.version == 6 else ''}{'' if is_any else '_at'}"
        key = f"{port.protocol} . {int(port.host_port)}"
        elements[name].append(f"{key if is_any else f'{host} . {key}'} : {target} . {int(port.container_port)}")
    lines = []
    for name, kind in MAP_TYPES.items():
        lines += [f"map {name} {{", f"\ttype {kind}"]
        if elements[name]:
            lines += ["\telements = {", *(f"\t\t{one}," for one in sorted(elements[name])), "\t}"]
        lines.append("}")
    return lines


def _publish() -> list[str]:
    """An exact address goes before all addresses."""
    return [
        "dnat ip to ip daddr . meta l4proto . th dport map @published_at",
        "dnat ip to meta l4proto . th dport map @published",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at",
        "dnat ip6 to meta l4proto . th dport map @published6",
    ]


def _postrouting(bridges: Iterable[Bridge]) -> list[str]:
    rules = []
    for bridge in bridges:
        rules.append(f'oifname "{bridge.link}" ip saddr 127.0.0.0/8 masquerade')
        for subnet in bridge.subnets:
            family = "ip6" if ":" in subnet else "ip"
            rules.append(f'oifname "{bridge.link}" {family} saddr {subnet} ct status dnat masquerade')
            if bridge.masquerade and not bridge.internal:
                rules.append(f'oifname != "{bridge.link}" {family} saddr {subnet} masquerade')
    return rules


def _forward(bridges: Sequence[Bridge]) -> list[str]:
    internal = [one.link for one in bridges if one.internal]
    return [
        *(f'iifname "{link}" oifname != "{link}" drop' for link in internal),
        *(f'iifname != "{link}" oifname "{link}" drop' for link in internal),
        "ct state established,related accept",
        "ct status dnat accept",
        *(f'iifname != "{one.link}" oifname "{one.link}" drop' for one in bridges if not one.internal),
        *(f'iifname "{one.link}" oifname "{one.link}" drop' for one in bridges if not one.icc),
    ]
