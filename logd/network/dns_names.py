"""What the members of a network are called: names → addresses, and back, for each container as it sees them.

Docker's rules: a name of a container, its short id, host name or alias is known in the networks that asker and asked
share, with `.NETWORK` behind it in that network only; several containers may have one alias. The asker's own links come
before all of these, and the alias of one that leads to nobody is not looked for further in its network.
"""

import random
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from typing import NamedTuple

from logd.endpoint import split_link
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
    """What one container sees: the zones of the networks that it is in, and its links: network → alias → name."""

    def __init__(
        self,
        zones: list[Zone],
        links: Mapping[str, Mapping[str, str]] | None = None,
        shuffle: Callable[[MutableSequence[str]], None] = random.shuffle,
    ) -> None:
        self.zones = zones
        self._links = links or {}
        self._shuffle = shuffle

    def find(self, name: str) -> Found | None:
        """Return the addresses of a name, in changing order; None where it is not known."""
        for lookup in (self._linked, self._called):
            for zone in self.zones:
                found = lookup(zone, name)
                if found is None:
                    found = lookup(zone, name.removesuffix(f".{zone.network.name.lower()}"))
                if found is not None:
                    shuffled = Found(list(found.ipv4), list(found.ipv6))
                    self._shuffle(shuffled.ipv4)
                    self._shuffle(shuffled.ipv6)
                    return shuffled
        return None

    def _linked(self, zone: Zone, name: str) -> Found | None:
        return zone.addresses.get(self._links.get(zone.network.id, {}).get(name, ""))

    def _called(self, zone: Zone, name: str) -> Found | None:
        return None if name in self._links.get(zone.network.id, {}) else zone.addresses.get(name)

    def name_of(self, address: str) -> str | None:
        """Return `NAME.NETWORK` of an address, as Docker does; None where it is nobody's here."""
        for zone in self.zones:
            if name := zone.names.get(address):
                return f"{name}.{zone.network.name}"
        return None


def names_for(endpoints: Iterable[Endpoint], zones: Mapping[str, Zone]) -> Names:
    """Return what the container sees whose endpoints these are, each in one of the zones."""
    theirs = list(endpoints)
    links = {
        one.network_id: {alias.lower(): name.lower() for name, alias in map(split_link, one.links)} for one in theirs
    }
    return Names([zones[one.network_id] for one in theirs], links)
