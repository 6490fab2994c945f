"""Questions that are not about our containers, handed on to other name servers, as bytes.

The host's servers are asked from the host, those that a container was given (--dns) from the container's network. The
answer goes back as it came, a truncated one too: the client then asks by TCP, and so do we.
"""

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from logd.network import dns_wire, namespaces
from logd.network.dns_wire import Query

log = logging.getLogger(__name__)

MAX_SERVERS: Final = 3
"""resolv.conf(5) has no more, and Docker neither."""
ANSWER_WAIT_S: Final = 3.0
"""For each server; a client's own patience is 5 s (resolv.conf(5), `timeout`)."""
DNS_PORT: Final = 53
MAX_DATAGRAM: Final = 65535
RESOLV_CONF: Final = Path("/etc/resolv.conf")
GIVE_WAY: Final = frozenset((dns_wire.SERVER_FAILURE, dns_wire.REFUSED, dns_wire.NOT_IMPLEMENTED))
"""Answers after which the next server is asked."""


class Upstream(NamedTuple):
    """Where a container's questions go. `sandbox`: None to ask from the host."""

    servers: tuple[str, ...]
    sandbox: Path | None


async def forward(upstream: Upstream, query: Query, message: bytes, *, tcp: bool) -> bytes | None:
    """Ask one server after the other and return the first good answer, else the last one, or None without any."""
    last: bytes | None = None
    sent_id = secrets.randbelow(1 << 16)
    asked = dns_wire.with_id(message, sent_id)
    for server in upstream.servers[:MAX_SERVERS]:
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                answer = await _ask(server, upstream.sandbox, query, asked, tcp=tcp)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            log.debug("name server %s: %s", server, error or "no answer")
            continue
        last = dns_wire.with_id(answer, query.id)
        if dns_wire.code_of(answer) not in GIVE_WAY:
            return last
    return last


async def _ask(server: str, sandbox: Path | None, query: Query, message: bytes, *, tcp: bool) -> bytes:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = (socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK

    def make() -> socket.socket:
        return socket.socket(family, kind)

    connection = make() if sandbox is None else await asyncio.to_thread(namespaces.inside, sandbox, make)
    loop = asyncio.get_running_loop()
    with contextlib.closing(connection):
        await loop.sock_connect(connection, (server, DNS_PORT))
        if not tcp:
            await loop.sock_sendall(connection, message)
            while not dns_wire.answers(
                answer := await loop.sock_recv(connection, MAX_DATAGRAM), query, int.from_bytes(message[:2], "big")
            ):
                pass  # somebody else's, or forged
            return answer
        await loop.sock_sendall(connection, struct.pack(">H", len(message)) + message)
        (length,) = struct.unpack(">H", await _exactly(connection, 2))
        answer = await _exactly(connection, length)
        if not dns_wire.answers(answer, query, int.from_bytes(message[:2], "big")):
            raise ConnectionError("the answer is to another question")
        return answer


async def _exactly(connection: socket.socket, count: int) -> bytes:
    loop, parts = asyncio.get_running_loop(), bytearray()
    while len(parts) < count:
        part = await loop.sock_recv(connection, count - len(parts))
        if not part:
            raise ConnectionError("the connection ended early")
        parts += part
    return bytes(parts)


def servers_of(resolv_conf: str) -> tuple[str, ...]:
    """Return the name servers in the text of a resolv.conf that are addresses."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1 and is_address(words[1]):
            found.append(words[1])
    return tuple(found)


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def upstream_of(given: Sequence[str], sandbox: Path) -> Upstream:
    """Return the servers that a container was given, or else those of the host as they are now (blocks shortly)."""
    if given:
        return Upstream(tuple(given), sandbox)
    try:
        return Upstream(servers_of(RESOLV_CONF.read_text(encoding="utf-8", errors="replace")), None)
    except OSError as error:
        log.warning("no name servers: %s", error)
        return Upstream((), None)
