"""A container's place in one network, while it has a namespace of its own: its addresses and its names there.

It stands in container.json too: a restarted daemon finds the addresses of what runs there, and gives none twice.
"""

import msgspec


class Endpoint(msgspec.Struct, kw_only=True, frozen=True):
    """One interface of a container. Addresses are text; with `/prefix` where it says so, "" where there is none."""

    id: str
    """64 hexadecimal digits, new at every start."""
    network_id: str
    container_id: str
    mac: str
    """Six pairs of lower-case hexadecimal digits with colons between them."""
    ipv4: str = ""
    """As `10.213.0.2/24`."""
    ipv6: str = ""
    """As `fd00::2/64`."""
    gateway: str = ""
    """"" where the network has no way out through this endpoint (internal networks)."""
    gateway6: str = ""
    aliases: tuple[str, ...] = ()
    """What the container is called in this network only, as asked for (--network-alias)."""
    dns_names: tuple[str, ...] = ()
    """All that it is found by in this network: name, aliases, short id, host name. Empty on the default bridge."""
    links: tuple[str, ...] = ()
    """As `NAME:ALIAS` or `NAME`: what this container calls others in this network (--link)."""
    interface: str = ""
    """Its name in the container (eth0)."""
    host_interface: str = ""
    """The name of the pair's other end, which is in the bridge."""


def split_link(link: str) -> tuple[str, str]:
    """Return the name and the alias of a link; one without an alias has the name itself as such."""
    name, _, alias = link.partition(":")
    return name, alias or name
