"""The bridges of networks: made for the first container, and removed a moment after the last.

The moment is for the next one: containers that are run one after the other, by a script, find the bridge and its rules
in place, which take 10 ms and more to make and 60 ms to remove.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from logd.engine.networks import Networks
from logd.engine.tasks import Tasks
from logd.errors import LogdError
from logd.network import links
from logd.network.links import Bridge, NameTaken
from logd.network.state import DEFAULT_BRIDGE, OPTION_NAME, Network

log = logging.getLogger(__name__)

TRIES: Final = 100
LINGER_S: Final = 1.0
"""Longer than it takes from one container's end to the start of the next."""


class Bridges:
    """Changed while `Networks.lock` is held, but for `begin_lowering`."""

    def __init__(self, networks: Networks, tasks: Tasks) -> None:
        self._networks = networks
        self._tasks = tasks
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def have(self, network: Network) -> None:
        """Have the bridge of a network, and the host forward packets where they go on from there."""
        if (timer := self._timers.pop(network.id, None)) is not None:
            timer.cancel()
        if network.id in self._networks.raised and links.exists(network.bridge):
            return
        for number in range(TRIES):
            try:
                await asyncio.to_thread(links.ensure_bridge, self._bridge(network))
                break
            except NameTaken:
                if not network.is_default:
                    raise
                name = f"{DEFAULT_BRIDGE.rstrip('0')}{number}"
                options = {**network.options, OPTION_NAME: name}
                network = msgspec.structs.replace(network, bridge=name, options=options)
        else:
            raise LogdError(
                f"no name is free for the bridge of network {network.name}: all of {DEFAULT_BRIDGE}… are taken"
            )
        if network != self._networks.get(network.id):
            await self._networks.replace(network)
        if not network.internal and self._networks.forwards:
            await asyncio.to_thread(_forward, network)
        self._networks.raised.add(network.id)

    def begin_lowering(self, network_ids: Iterable[str]) -> None:
        """Have the bridges removed that nobody is in any more, if nobody comes for a moment."""
        loop = asyncio.get_running_loop()
        for network_id in network_ids:
            if network_id not in self._timers and self._is_idle(network_id):
                self._timers[network_id] = loop.call_later(LINGER_S, self._end_wait, network_id)

    def _end_wait(self, network_id: str) -> None:
        del self._timers[network_id]
        self._tasks.start(self._lower(network_id), f"removal of the bridge of network {network_id[:12]}")

    async def close(self) -> None:
        """Remove the bridges that nobody is in, without a wait."""
        for network_id, timer in tuple(self._timers.items()):
            timer.cancel()
            await self._lower(network_id)
        self._timers.clear()

    async def _lower(self, network_id: str) -> None:
        networks = self._networks
        try:
            async with networks.lock:
                network = networks.find(network_id)
                if network is None or network_id not in networks.raised or not self._is_idle(network_id):
                    return
                networks.raised.discard(network_id)
                await asyncio.to_thread(links.remove_bridge, network.bridge, networks.alias_of(network))
            await networks.changed()
        except (LogdError, OSError) as error:
            log.warning("networks: %s", error)

    def _is_idle(self, network_id: str) -> bool:
        network = self._networks.find(network_id)
        return network is not None and not self._networks.endpoints_in(network)

    def _bridge(self, network: Network) -> Bridge:
        addresses = tuple(f"{one.gateway}/{ipaddress.ip_network(one.subnet).prefixlen}" for one in network.subnets)
        return Bridge(network.bridge, self._networks.alias_of(network), addresses, network.mtu)


def _forward(network: Network) -> None:
    if links.set_forwarding(ipv6=network.enable_ipv6):
        log.info("the host forwards packets from now on: network %s has a way out", network.name)
