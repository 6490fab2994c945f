"""The host's ports that our containers have: chosen at a start, held by a bound socket, remembered over a restart.

A port is held so that no other process of the host takes it unnoticed. The socket is bound and does not listen (but
for ::1, see `relay`): the firewall leads what comes for the port to the container before the socket would see it, and
should the rules be gone a client is refused at once. The daemon holds it. While there is no daemon nobody does, but the
rules go on; a port that somebody else has bound by the time of the next daemon stays the container's, and the log says
so.

`ports.json` in the exec-root has what runs, so that a restarted daemon finds the random ports; a boot empties it.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from logd.errors import LogdError
from logd.network.ports import Binding, Published, random_range
from logd.network.relay import LOOPBACK, is_relayed

log = logging.getLogger(__name__)

FILE_NAME: Final = "ports.json"
KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
ALL_IPV4: Final = "0.0.0.0"  # noqa: S104 - what Docker publishes at, unless it is told otherwise
ALL_IPV6: Final = "::"


class PortTaken(LogdError):
    """A port that a container wants is not to be had; in Docker's words."""


class Claim:
    """The ports of one container and the sockets that hold them; of one that was found taken there is none."""

    def __init__(self, published: Sequence[Published], sockets: Mapping[Published, socket.socket]) -> None:
        self.published = tuple(published)
        self.sockets = dict(sockets)

    def close(self) -> None:
        """Let the ports go."""
        for one in self.sockets.values():
            one.close()


class PortClaims:
    """All claims, by container id. `default_ip` is where ports are published that name no address."""

    def __init__(self, folder: Path, default_ip: str = ALL_IPV4, ports: Callable[[], tuple[int, int]] = random_range):
        self._file = folder / FILE_NAME
        self._default_ip = default_ip
        self._range = ports
        self._last = 0
        self._claims: dict[str, Claim] = {}

    def of(self, container_id: str) -> tuple[Published, ...]:
        """Return the ports of a container, () where it has none."""
        claim = self._claims.get(container_id)
        return claim.published if claim else ()

    def sockets_of(self, container_id: str) -> Mapping[Published, socket.socket]:
        """Return the sockets that hold a container's ports; those that are relayed listen."""
        claim = self._claims.get(container_id)
        return claim.sockets if claim else {}

    def ids(self) -> tuple[str, ...]:
        """Return the containers that have claims, empty ones too."""
        return tuple(self._claims)

    def claim(self, container_id: str, bindings: Iterable[Binding], *, ipv6: bool, default_ip: str = "") -> None:
        """Take all ports that a container wants, or none. Raises PortTaken.

        `ipv6`: whether it has such an address; without, what is asked for at no address is published at IPv4's only.
        """
        sockets: dict[Published, socket.socket] = {}
        with ExitStack() as undo:
            for binding in bindings:
                addresses = _addresses(binding, default_ip or self._default_ip, ipv6=ipv6)
                for published, held in self._take(binding, addresses).items():
                    sockets[published] = undo.enter_context(held)
            undo.pop_all()
        self._claims[container_id] = Claim(tuple(sockets), sockets)

    def release(self, container_id: str) -> None:
        """Let a container's ports go; once is enough, more is no harm."""
        if claim := self._claims.pop(container_id, None):
            claim.close()

    def close(self) -> None:
        """Close the sockets of all; what is saved stays."""
        for container_id in tuple(self._claims):
            self.release(container_id)

    def _take(self, binding: Binding, addresses: Sequence[str]) -> dict[Published, socket.socket]:
        """Take the first port of the wish that is free at all addresses."""
        refusal = PortTaken("all ports are allocated")
        for port in self._candidates(binding):
            wanted = [
                Published(
                    protocol=binding.protocol,
                    container_port=binding.container_port,
                    host_ip=address,
                    host_port=port,
                )
                for address in addresses
            ]
            with ExitStack() as undo:
                try:
                    held = {one: undo.enter_context(self._hold(one)) for one in wanted}
                except PortTaken as error:
                    refusal = error
                    continue
                undo.pop_all()
                return held
        if not binding.first:
            raise PortTaken("all ports are allocated")
        raise refusal

    def _candidates(self, binding: Binding) -> Iterable[int]:
        """Give the ports to try. Random ones go round, so that one that was let go is not given anew at once."""
        if binding.first:
            yield from range(binding.first, binding.last + 1)
            return
        first, last = self._range()
        begin = self._last + 1 if first <= self._last < last else first
        for port in chain(range(begin, last + 1), range(first, begin)):
            self._last = port
            yield port

    def _hold(self, one: Published) -> socket.socket:
        try:
            return bind(one)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and self._is_ours(one):
                raise PortTaken(f"Bind for {one.place} failed: port is already allocated") from error
            words = os.strerror(error.errno or 0).lower()
            raise PortTaken(f"failed to bind host port {one.place}/{one.protocol}: {words}") from error

    def _is_ours(self, wanted: Published) -> bool:
        return any(
            (one.protocol, one.host_port, one.is_ipv6) == (wanted.protocol, wanted.host_port, wanted.is_ipv6)
            and (one.host_ip == wanted.host_ip or {one.host_ip, wanted.host_ip} & {ALL_IPV4, ALL_IPV6})
            for claim in self._claims.values()
            for one in claim.published
        )

    def save(self) -> None:
        """Write down what is claimed (blocks; the exec-root is memory). Raises OSError."""
        content = {container_id: claim.published for container_id, claim in self._claims.items() if claim.published}
        temporary = self._file.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(content))
        temporary.replace(self._file)

    def load(self) -> None:
        """Claim again what the last daemon had written down; what is not readable is as if it had not been."""
        try:
            known = msgspec.json.decode(self._file.read_bytes(), type=dict[str, list[Published]])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s: %s; ports are chosen anew", self._file, error)
            return
        for container_id, published in known.items():
            self._last = max(self._last, *(one.host_port for one in published))
            self._claims[container_id] = Claim(published, self._hold_again(container_id, published))

    def _hold_again(self, container_id: str, published: Iterable[Published]) -> dict[Published, socket.socket]:
        sockets = {}
        for one in published:
            try:
                sockets[one] = bind(one)
            except OSError as error:
                words = "port %s/%s is a container's, but another process has bound it meanwhile: %s"
                log.warning(words, one.place, one.protocol, error, extra={"container": container_id})
        return sockets


def _addresses(binding: Binding, default_ip: str, *, ipv6: bool) -> list[str]:
    """Return where a wish is to be published. Raises PortTaken for what can't lead to the container."""
    if not binding.host_ip and default_ip == ALL_IPV4:
        return [ALL_IPV4, ALL_IPV6] if ipv6 else [ALL_IPV4]
    address = binding.host_ip or default_ip
    if ":" in address and not ipv6 and not (binding.protocol == "tcp" and address == LOOPBACK):
        raise PortTaken(
            f"port {binding.container_port}/{binding.protocol} can't be published at [{address}]: "
            "the container has no IPv6 address (only TCP at [::1] needs none)"
        )
    return [address]


def bind(one: Published) -> socket.socket:
    """Return a socket that holds a port: see `relay` for one that listens. Raises OSError."""
    family = socket.AF_INET6 if one.is_ipv6 else socket.AF_INET
    held = socket.socket(family, KINDS[one.protocol] | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if one.is_ipv6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if one.protocol == "udp":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        if is_relayed(one):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may linger
        held.bind((one.host_ip, one.host_port))
        if is_relayed(one):
            held.listen()
    except OSError:
        with suppress(OSError):
            held.close()
        raise
    return held
