"""Which subnets networks get and which addresses their members get: pure functions on what is taken.

A member gets the lowest free address, so that what runs alone always has the same. Source: Docker's manual,
`default-address-pools`; its built-in pools; RFC 4193 for the IPv6 ones.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Final

from logd.config_kinds import Pool
from logd.errors import Forbidden, InvalidParameter, LogdError

IPNetwork = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address


DOCKERS_POOLS: Final = (
    *(Pool(ip_network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    Pool(ip_network("192.168.0.0/16"), 20),
)
MAX_TRIES: Final = 1 << 16
"""How many subnets of one pool are looked at; a pool of IPv6 has more than anybody looks at."""
NO_SUBNET: Final = "all predefined address pools have been fully subnetted"
OVERLAP: Final = "invalid pool request: Pool overlaps with other one on this address space"


def unique_local_pool(seed: bytes) -> Pool:
    """Return the pool of IPv6 subnets where none is set: a unique local prefix of this daemon's own, /48."""
    prefix = bytes([0xFD]) + hashlib.sha256(seed).digest()[:5] + bytes(10)
    return Pool(IPv6Network((prefix, 48)), 64)


def choose_subnet(pools: Iterable[Pool], version: int, taken: Collection[IPNetwork]) -> IPNetwork:
    """Return the first subnet of the pools that overlaps nothing in `taken`. Raises InvalidParameter."""
    in_use = [one for one in taken if one.version == version]
    for pool in pools:
        if pool.base.version != version:
            continue
        near = [one for one in in_use if overlap(one, pool.base)]
        candidates: Iterator[IPNetwork] = pool.base.subnets(new_prefix=pool.size)
        for candidate in islice(candidates, MAX_TRIES):
            if not any(overlap(one, candidate) for one in near):
                return candidate
    raise InvalidParameter(NO_SUBNET)


def check_free(subnet: IPNetwork, taken: Iterable[IPNetwork]) -> None:
    """Raise Forbidden, in Docker's words, if a subnet that was asked for overlaps another network's."""
    if any(overlap(one, subnet) for one in taken):
        raise Forbidden(OVERLAP)


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Tell whether two subnets have an address in common."""
    return one.version == other.version and one.overlaps(other)


def first_address(subnet: IPNetwork, auxiliary: Mapping[str, str] = {}) -> IPAddress:
    """Return the gateway where none is asked for: the first address that is not an auxiliary one."""
    taken = {ip_address(one) for one in auxiliary.values()}
    return next(_free(subnet, subnet, taken))


def choose_address(subnet: IPNetwork, ip_range: IPNetwork | None, taken: Collection[IPAddress]) -> IPAddress | None:
    """Return the lowest address of the range (or of the whole subnet) that is not taken; None if all are."""
    return next(_free(subnet, ip_range or subnet, taken), None)


def check_address(subnet: IPNetwork, address: IPAddress, taken: Collection[IPAddress]) -> None:
    """Raise InvalidParameter or Forbidden, in Docker's words, if an address that was asked for can't be given."""
    if address not in subnet or address in _reserved(subnet):
        raise InvalidParameter("Requested address is out of range")
    if address in taken:
        raise Forbidden("Address already in use")


def exhausted(version: int, name: str, network_id: str) -> LogdError:
    """Return the error of a network without a free address."""
    return LogdError(f"no available IPv{version} addresses on this network's address pools: {name} ({network_id})")


def _reserved(subnet: IPNetwork) -> set[IPAddress]:
    """Return what no interface can have: the network's own address, and in IPv4 the broadcast address."""
    if subnet.prefixlen >= subnet.max_prefixlen - 1:  # RFC 3021: two addresses, both usable
        return set()
    ends: set[IPAddress] = {subnet.network_address}
    if subnet.version == 4:
        ends.add(subnet.broadcast_address)
    return ends


def _free(subnet: IPNetwork, among: IPNetwork, taken: Collection[IPAddress]) -> Iterator[IPAddress]:
    reserved = _reserved(subnet)
    return (one for one in among if one not in taken and one not in reserved)
