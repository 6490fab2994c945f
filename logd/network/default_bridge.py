"""The network "bridge", which the daemon's settings describe: bip, fixed-cidr, mtu, ipv6 and their like.

Source: dockerd's reference, "Daemon configuration file"; Docker's manual, "Use the default bridge network".
"""

import ipaddress
from collections.abc import Callable, Collection

import msgspec

from logd.config import DaemonConfig
from logd.network.ipam import IPNetwork, overlap
from logd.network.requests import IPAMConfig, complete_subnet
from logd.network.state import (
    DEFAULT_BRIDGE,
    OPTION_DEFAULT,
    OPTION_HOST_BINDING,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MTU,
    OPTION_NAME,
    Network,
    Subnet,
)


def default_bridge(
    config: DaemonConfig, known: Network | None, choose: Callable[[int], Subnet], host: Collection[IPNetwork]
) -> Network:
    """Return the network as it is to be; `known` is what it was, whose subnet it keeps if nothing speaks against it.

    `choose` gives a free subnet of a version. Raises InvalidParameter for settings that don't fit together.
    """
    subnets = [_subnet(config.bip, config.fixed_cidr, _known(known, 4), choose, host)]
    if config.ipv6:
        subnets.append(_subnet(config.bip6, config.fixed_cidr_v6, _known(known, 6), choose, host, version=6))
    bridge = known.bridge if known and known.bridge else DEFAULT_BRIDGE
    base = known or Network(id="", name="bridge", driver="bridge", created_ns=0)
    return msgspec.structs.replace(
        base,
        subnets=tuple(subnets),
        enable_ipv6=config.ipv6,
        bridge=bridge,
        options={
            OPTION_DEFAULT: "true",
            OPTION_ICC: str(config.icc).lower(),
            OPTION_MASQUERADE: str(config.ip_masq).lower(),
            OPTION_HOST_BINDING: config.ip,
            OPTION_NAME: bridge,
            OPTION_MTU: str(config.mtu),
        },
    )


def _subnet(
    address: str,
    fixed: str,
    known: Subnet | None,
    choose: Callable[[int], Subnet],
    host: Collection[IPNetwork],
    version: int = 4,
) -> Subnet:
    """Return one subnet: that of `address` (the bridge's own, with prefix), or `fixed`, or `known`, or a new one."""
    if address:
        own = ipaddress.ip_interface(address)
        return complete_subnet(IPAMConfig(subnet=str(own.network), gateway=str(own.ip), ip_range=fixed))
    if known is not None and any(overlap(ipaddress.ip_network(known.subnet), one) for one in host):
        known = None
    if fixed and version == 6:  # without bip6 it is the whole subnet, as in dockerd
        return complete_subnet(IPAMConfig(subnet=fixed))
    found = known or choose(version)
    return complete_subnet(IPAMConfig(subnet=found.subnet, gateway=found.gateway, ip_range=fixed))


def _known(network: Network | None, version: int) -> Subnet | None:
    subnets = network.subnets if network else ()
    return next((one for one in subnets if ipaddress.ip_network(one.subnet).version == version), None)
