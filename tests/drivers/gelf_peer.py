"""A GELF input on real sockets: UDP with chunks and compression, TCP with NUL bytes, TLS. Strict, as Graylog is.

Graylog itself can't be had here. Sources: Graylog's manual, "GELF Payload Specification" and "GELF via UDP".
"""

import asyncio
import gzip
import json
import socket
import ssl
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK_TIMEOUT_S = 5.0
MOST_CHUNKS = 128
LARGEST_DATAGRAM = 8192
LARGEST_MESSAGE = 2 << 20
"""Graylog's max_message_size."""


def check(text: bytes) -> dict[str, Any]:
    """Parse a message; what Graylog would not take is an error."""
    message = json.loads(text.decode())  # strict in both
    assert isinstance(message, dict)
    assert message["version"] == "1.1"
    assert isinstance(message["host"], str)
    assert message["host"]
    assert isinstance(message["short_message"], str)
    assert message["short_message"], "Graylog wants a short_message"
    assert type(message["timestamp"]) in {int, float}
    assert message["level"] in range(8)
    for name, value in message.items():
        if name not in {"version", "host", "short_message", "full_message", "timestamp", "level"}:
            assert name.startswith("_"), name
            assert name != "_id"
            assert type(value) in {str, int, float}, (name, value)
    assert len(json.loads(text, object_pairs_hook=list)) == len(message), "a name comes twice"
    return message


class Reassembly:
    """Chunks of messages that are not whole yet."""

    def __init__(self) -> None:
        self._parts: dict[bytes, dict[int, bytes]] = {}
        self._begun: dict[bytes, float] = {}
        self.expired = 0

    def add(self, datagram: bytes, now: float) -> bytes | None:
        assert len(datagram) <= LARGEST_DATAGRAM
        for name in [name for name, begun in self._begun.items() if now - begun > CHUNK_TIMEOUT_S]:
            del self._begun[name], self._parts[name]
            self.expired += 1
        if not datagram.startswith(b"\x1e\x0f"):
            return datagram
        name, number, count = struct.unpack("8sBB", datagram[2:12])
        assert 0 < count <= MOST_CHUNKS
        assert number < count
        self._begun.setdefault(name, now)
        parts = self._parts.setdefault(name, {})
        assert number not in parts
        parts[number] = datagram[12:]
        if len(parts) < count:
            return None
        del self._begun[name], self._parts[name]
        return b"".join(parts[one] for one in range(count))


def unpack(message: bytes) -> tuple[str, bytes]:
    """Return how it was compressed, by its magic, and what is in it."""
    if message.startswith(b"\x1f\x8b"):
        return "gzip", gzip.decompress(message)
    if message[0] & 0x0F == 8 and int.from_bytes(message[:2]) % 31 == 0:
        return "zlib", zlib.decompress(message)
    return "none", message


class UdpInput:
    """Receives in the background until it is closed."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._socket.bind(("127.0.0.1", port))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.address = f"udp://127.0.0.1:{self.port}"
        self.reassembly = Reassembly()
        self.messages: list[dict[str, Any]] = []
        self.compressions: set[str] = set()
        self.datagrams: list[int] = []
        """Their sizes."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)

    def _receive(self) -> None:
        try:
            while True:
                datagram = self._socket.recv(1 << 16)
                self.datagrams.append(len(datagram))
                whole = self.reassembly.add(datagram, self._loop.time())
                if whole is not None:
                    how, text = unpack(whole)
                    self.compressions.add(how)
                    self.messages.append(check(text))
        except BlockingIOError:
            pass

    @property
    def lines(self) -> list[str]:
        return [one["short_message"] for one in self.messages]

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()


class TcpInput:
    """Messages that end with a NUL. A connection's last one without it is torn, and not taken."""

    def __init__(self) -> None:
        self.port = 0
        self.messages: list[dict[str, Any]] = []
        self.torn = 0
        self.connections: list[asyncio.StreamWriter] = []
        self.reading = asyncio.Event()
        """Cleared: connections are not read."""
        self.reading.set()
        self.reset_after: int | None = None
        """Reset a connection when so many more messages were taken."""
        self.scheme = "tcp"
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"{self.scheme}://{'localhost' if self.scheme == 'tls' else '127.0.0.1'}:{self.port}"

    @property
    def lines(self) -> list[str]:
        return [one["short_message"] for one in self.messages]

    async def start(self, certificate: Path | None = None, clients: Path | None = None) -> "TcpInput":
        context = None
        if certificate:
            self.scheme = "tls"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            if clients:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(clients)
        host = "localhost" if certificate else "127.0.0.1"
        self._server = await asyncio.start_server(
            self._serve, host, self.port, ssl=context, limit=LARGEST_MESSAGE, family=socket.AF_INET
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            for one in self.connections:
                with suppress(AttributeError):  # CPython 3.11.2's, for a TLS connection that is closed already
                    one.transport.abort()
            await self._server.wait_closed()
        self.connections.clear()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                await self.reading.wait()
                text = await reader.readuntil(b"\0")
                self.messages.append(check(text[:-1]))
                if self.reset_after is not None:
                    self.reset_after -= 1
                    if self.reset_after <= 0:
                        self.reset_after = None
                        reset(writer)
                        return
        except asyncio.IncompleteReadError as error:
            self.torn += bool(error.partial)
        except OSError:
            pass
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
