"""What the members of a network are called: names → addresses, and back, for each container as it sees them.

Docker's rules: a name of a container, its short id, host name or alias is known in the networks that asker and asked
share, with `.NETWORK` behind it in that network only; several containers may have one alias.
"""

import random
from collections.abc import Callable, MutableSequence
from typing import NamedTuple

from logd.network.state import Endpoint, Network, NetworkView


class Found(NamedTuple):
    """Addresses that a name has; a name may be known and have none of the kind that was asked for."""

    ipv4: list[str]
    ipv6: list[str]


class Zone:
    """The names of one network. They are compared in lower case."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.addresses: dict[str, Found] = {}
        self.names: dict[str, str] = {}

    def add(self, endpoint: Endpoint, name: str) -> None:
        """Enter a container by all its names; `name` is that which its addresses lead back to."""
        ipv4, ipv6 = endpoint.ipv4.partition("/")[0], endpoint.ipv6.partition("/")[0]
        for one in endpoint.dns_names:
            found = self.addresses.setdefault(one.lower(), Found([], []))
            found.ipv4.extend([ipv4] if ipv4 and ipv4 not in found.ipv4 else [])
            found.ipv6.extend([ipv6] if ipv6 and ipv6 not in found.ipv6 else [])
        self.names.update({address: name for address in (ipv4, ipv6) if address})


def zones_of(view: NetworkView) -> dict[str, Zone]:
    """Return the zones of all networks in which containers have names, by the network's id."""
    zones: dict[str, Zone] = {}
    for network, member, endpoint in view.endpoints():
        if endpoint.dns_names:
            zones.setdefault(network.id, Zone(network)).add(endpoint, member.name)
    return zones


class Names:
    """What one container sees: the zones of the networks that it is in."""

    def __init__(self, zones: list[Zone], shuffle: Callable[[MutableSequence[str]], None] = random.shuffle) -> None:
        self.zones = zones
        self._shuffle = shuffle

    def find(self, name: str) -> Found | None:
        """Return the addresses of a name, in changing order; None where it is not known."""
        for zone in self.zones:
            found = zone.addresses.get(name)
            if found is None:
                short = name.removesuffix(f".{zone.network.name.lower()}")
                found = zone.addresses.get(short)
            if found is not None:
                shuffled = Found(list(found.ipv4), list(found.ipv6))
                self._shuffle(shuffled.ipv4)
                self._shuffle(shuffled.ipv6)
                return shuffled
        return None

    def name_of(self, address: str) -> str | None:
        """Return `NAME.NETWORK` of an address, as Docker does; None where it is nobody's here."""
        for zone in self.zones:
            if name := zone.names.get(address):
                return f"{name}.{zone.network.name}"
        return None
