"""The name server of one container, at 127.0.0.11:53 in its network namespace, served by the daemon's event loop.

Its sockets have ports of their own, to which a rule in the namespace leads what goes to port 53: a name server in the
container itself can still listen there, at all addresses. While there is no daemon nobody answers.

A container that floods it has its questions wait in the kernel, and then lost, before those of others do.
Source: RFC 1035 section 4.2, RFC 7766; Docker's "Embedded DNS server".
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from logd.network import dns_wire, nft
from logd.network.dns_names import Names
from logd.network.dns_upstream import Upstream, forward
from logd.network.dns_wire import Malformed, Query

log = logging.getLogger(__name__)

ADDRESS: Final = "127.0.0.11"
"""Docker's."""
PORT: Final = 61053
"""Where it listens if that is free: the next daemon then answers what the kernel still leads to this one's port."""
TABLE: Final = "logd_dns"
AT_ONCE: Final = 16
"""Datagrams that are read before the event loop turns to others."""
RATE: Final = 1000
"""Questions a second of one container, over a while; each takes some 50 µs."""
PAUSE_S: Final = 0.05
IN_FLIGHT: Final = 64
"""Forwarded questions of one container that wait for an answer; those beyond are dropped, and asked again."""
CONNECTIONS: Final = 16
IDLE_S: Final = 10.0
TCP_BACKLOG: Final = 16


class Opened(NamedTuple):
    """The two sockets, bound in the namespace."""

    udp: socket.socket
    tcp: socket.socket


def open_sockets() -> Opened:
    """Bind the sockets and lead port 53 to them (blocks; call it in the namespace). Raises OSError and NftFailed."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (udp, tcp):
            _bind(one)
        tcp.listen(TCP_BACKLOG)
        nft.apply(redirect(udp.getsockname()[1], tcp.getsockname()[1]))
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return Opened(udp, tcp)


def _bind(one: socket.socket) -> None:
    try:
        one.bind((ADDRESS, PORT))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        one.bind((ADDRESS, 0))


def redirect(udp_port: int, tcp_port: int) -> str:
    """Return the rules in a container's namespace."""
    rules = [
        f"ip daddr {ADDRESS} {kind} dport 53 dnat to {ADDRESS}:{int(port)}"
        for kind, port in (("udp", udp_port), ("tcp", tcp_port))
    ]
    lines = [
        f"table ip {TABLE}",
        f"delete table ip {TABLE}",
        f"table ip {TABLE} {{",
        "\tchain output {",
        "\t\ttype nat hook output priority -100; policy accept;",
        *(f"\t\t{rule}" for rule in rules),
        "\t}",
        "}",
    ]
    return "".join(f"{line}\n" for line in lines)


class NameServer:
    """Answers on the sockets until it is closed. What it knows and whom it asks may be replaced at any time.

    `upstream` is None where the container is in internal networks only: it must not reach others by way of names
    either. `needs_dot`: an unknown name without a dot is not asked for elsewhere (an `ndots` option above 0).
    """

    def __init__(self, opened: Opened, names: Names, upstream: Callable[[], Upstream | None], *, needs_dot: bool):
        self.names = names
        self.upstream = upstream
        self._needs_dot = needs_dot
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self._allowance = float(RATE)
        self._counted = self._loop.time()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._forwarding: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop.add_reader(opened.udp, self._read)
        self._loop.add_reader(opened.tcp, self._accept)

    def close(self) -> None:
        """Stop answering."""
        for pause in self._pauses.values():
            pause.cancel()
        for one in self._opened:
            self._loop.remove_reader(one)
            one.close()
        for task in (*self._forwarding, *self._connections):
            task.cancel()

    def _pause(self, one: socket.socket, read: Callable[[], None]) -> None:
        """Leave what comes to the kernel for a while, which keeps some of it and drops the rest."""
        self._loop.remove_reader(one)
        self._pauses[one] = self._loop.call_later(PAUSE_S, self._loop.add_reader, one, read)

    # -- UDP -----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            if not self._may_ask():
                self._pause(self._opened.udp, self._read)
                return
            try:
                message, client = self._opened.udp.recvfrom(dns_wire.MAX_MESSAGE)
            except BlockingIOError:
                self._allowance += 1
                return
            except OSError as error:  # an ICMP error of an answer that nobody waited for
                log.debug("names over UDP: %s", error)
                continue
            self._answer_datagram(message, client)

    def _may_ask(self) -> bool:
        now = self._loop.time()
        self._allowance = min(float(RATE), self._allowance + (now - self._counted) * RATE)
        self._counted = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _answer_datagram(self, message: bytes, client: tuple[str, int]) -> None:
        try:
            query = dns_wire.parse_query(message)
        except Malformed:
            self._send(_refuse(message), client)
            return
        answer = self.known(query, query.udp_bytes)
        if answer is not None:
            self._send(answer, client)
        elif len(self._forwarding) < IN_FLIGHT:
            task = self._loop.create_task(self._forward_datagram(query, message, client), name="forwarded question")
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)

    async def _forward_datagram(self, query: Query, message: bytes, client: tuple[str, int]) -> None:
        self._send(await self._ask_others(query, message, tcp=False), client)

    def _send(self, message: bytes | None, client: tuple[str, int]) -> None:
        if message:
            with suppress(OSError):  # a client that is gone, or does not read
                self._opened.udp.sendto(message, client)

    # -- TCP -----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._opened.tcp.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors, perhaps
            log.warning("names over TCP: %s", error)
            self._pause(self._opened.tcp, self._accept)
            return
        if len(self._connections) >= CONNECTIONS:
            connection.close()
            return
        task = self._loop.create_task(self._serve(connection), name="names over TCP, a client")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    message = await reader.readexactly(length)
                if not self._may_ask():
                    await asyncio.sleep(PAUSE_S)
                if not (answer := await self._answer_by_tcp(message)):
                    return
                writer.write(struct.pack(">H", len(answer)) + answer)
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return
        finally:
            writer.close()

    async def _answer_by_tcp(self, message: bytes) -> bytes | None:
        try:
            query = dns_wire.parse_query(message)
        except Malformed:
            return _refuse(message)
        return self.known(query, dns_wire.MAX_MESSAGE) or await self._ask_others(query, message, tcp=True)

    # -- what is known -------------------------------------------------------------------------------------------

    def known(self, query: Query, limit: int) -> bytes | None:
        """Return the answer to a question that is answered here, None for others."""
        if query.kind == dns_wire.PTR:
            address = dns_wire.address_of_pointer(query.name)
            name = self.names.name_of(address) if address else None
            record = dns_wire.pointer_record(name) if name else None
            return dns_wire.reply(query, [record], limit=limit) if record else None
        found = self.names.find(query.name)
        if found is not None:
            addresses = {dns_wire.A: found.ipv4, dns_wire.AAAA: found.ipv6}.get(query.kind, [])
            return dns_wire.reply(query, [dns_wire.address_record(one) for one in addresses], limit=limit)
        if self._needs_dot and "." not in query.name and query.kind in {dns_wire.A, dns_wire.AAAA}:
            return dns_wire.reply(query, limit=limit)
        return None

    async def _ask_others(self, query: Query, message: bytes, *, tcp: bool) -> bytes:
        upstream = self.upstream()
        answer = await forward(upstream, query, message, tcp=tcp) if upstream else None
        return answer or dns_wire.reply(query, code=dns_wire.SERVER_FAILURE)


def _refuse(message: bytes) -> bytes | None:
    identifier = dns_wire.identify(message)
    return None if identifier is None else dns_wire.refusal(identifier, dns_wire.FORMAT_ERROR)
