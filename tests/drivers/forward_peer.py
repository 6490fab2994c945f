"""Servers of the Fluent forward protocol for tests: one that is not ours, in node, and one that does what it is told.

The second speaks the whole protocol with msgpack's own Unpacker, over raw sockets on loopback.
"""

import asyncio
import gzip
import hashlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

ROOT = Path(__file__).parent.parent.parent
NODE_MODULES = ROOT / ".make" / "npm" / "node_modules"
PATIENCE_S = 20.0


class FluentServer:
    """The server of the npm package @fluent-org/logger, in a process of its own."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.port = 0
        self.received: list[dict[str, Any]] = []

    async def __aenter__(self) -> "FluentServer":
        node = shutil.which("node")
        assert node, "the tests need node (Debian's nodejs)"
        assert (NODE_MODULES / "@fluent-org" / "logger").is_dir(), "scripts/npm_packages.sh .make/npm fetches it"
        self._process = await asyncio.create_subprocess_exec(
            node,
            str(Path(__file__).with_name("fluent_server.js")),
            json.dumps({"listenOptions": {"host": "127.0.0.1", "port": self.port}, **self.options}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
            limit=1 << 25,
        )
        self.port = (await self._said())["listening"]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.kill()
        self._process.stdin.close()
        await self._process.communicate()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def records(self, count: int) -> list[dict[str, Any]]:
        """Wait until `count` records have come in all; return them."""
        while len(self.received) < count:
            self.received.append(await self._said())
        return self.received

    async def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        assert line, "the server ended"
        said: dict[str, Any] = json.loads(line)
        return said


class Message(NamedTuple):
    """What a peer received."""

    connection: int
    tag: bytes
    entries: list[Any]
    """[time, record] each, as msgpack gives them."""
    option: dict[bytes, Any]

    @property
    def chunk(self) -> bytes:
        chunk: bytes = self.option[b"chunk"]
        return chunk

    @property
    def lines(self) -> list[bytes]:
        return [record[b"log"] for _, record in self.entries]


class Connection:
    """A client, as a peer sees it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    def say(self, *what: Any) -> None:
        for one in what:
            self.writer.write(msgpack.packb(one))

    def ack(self, *chunks: bytes) -> None:
        self.say(*({"ack": chunk.decode()} for chunk in chunks))

    def reset(self) -> None:
        """End the connection as a crash does."""
        self.writer.transport.abort()


Answer = Callable[["ForwardPeer", Connection, Message], Awaitable[None]]


async def acknowledge(peer: "ForwardPeer", connection: Connection, message: Message) -> None:
    connection.ack(message.chunk)


async def say_nothing(peer: "ForwardPeer", connection: Connection, message: Message) -> None:
    pass


class ForwardPeer:
    """A server that calls `answer` for each message, in their order. `greet` may speak first."""

    def __init__(
        self,
        answer: Answer = acknowledge,
        greet: Callable[[Connection], Awaitable[None]] | None = None,
        *,
        reads: bool = True,
        reset_after: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.greet = greet
        self.reads = reads
        self.reset_after = reset_after
        """Reset each connection after so many bytes; 0: none."""
        self.port = 0
        self.messages: list[Message] = []
        self.connections: list[Connection] = []
        self._tls = tls
        self._change = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "ForwardPeer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self.connections:
            connection.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[bytes]:
        return [line for message in self.messages for line in message.lines]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is true, which only messages and connections change."""
        async with asyncio.timeout(PATIENCE_S), self._change:
            await self._change.wait_for(holds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(len(self.connections), reader, writer)
        self.connections.append(connection)
        try:
            await self._changed()
            if not self.reads:
                writer.transport.pause_reading()
                await asyncio.Event().wait()
            if self.greet:
                await self.greet(connection)
            await self._read(connection)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            with suppress(AttributeError):  # CPython 3.11.2's, for a TLS connection that is closed already
                writer.transport.abort()
            await self._changed()

    async def _read(self, connection: Connection) -> None:
        unpacker = msgpack.Unpacker(raw=True, max_buffer_size=1 << 30)
        count = 0
        while data := await connection.reader.read(1 << 20):
            if self.reset_after and count + len(data) > self.reset_after:
                connection.reset()
                return
            count += len(data)
            unpacker.feed(data)
            for message in unpacker:
                self.messages.append(take_apart(connection.number, message))
                await self.answer(self, connection, self.messages[-1])
                await self._changed()

    async def _changed(self) -> None:
        async with self._change:
            self._change.notify_all()


def take_apart(connection: int, message: Any) -> Message:
    """Check a PackedForward message and unpack its entries."""
    tag, packed, option = message
    assert isinstance(packed, bytes)
    if option.get(b"compressed"):
        assert option[b"compressed"] == b"gzip"
        packed = gzip.decompress(packed)
    entries = unpack_entries(packed)
    assert option[b"size"] == len(entries)
    assert all(isinstance(time, int | msgpack.ExtType) and isinstance(record, dict) for time, record in entries)
    return Message(connection, tag, entries, option)


def unpack_entries(packed: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=1 << 30)
    unpacker.feed(packed)
    return list(unpacker)


class Guard:
    """The server's side of the handshake, from the specification: what `greet` of a peer may be."""

    def __init__(self, shared_key: str, hostname: str = "server", *, keepalive: bool = True) -> None:
        self.shared_key = shared_key
        self.hostname = hostname
        self.keepalive = keepalive
        self.pings: list[list[bytes]] = []

    async def __call__(self, connection: Connection) -> None:
        nonce = os.urandom(16)
        connection.say(["HELO", {"nonce": nonce, "auth": b"", "keepalive": self.keepalive}])
        unpacker = msgpack.Unpacker(raw=True)
        while True:
            data = await connection.reader.read(4096)
            if not data:
                raise ConnectionResetError("the client has left")
            unpacker.feed(data)
            for ping in unpacker:
                self.pings.append(ping)
                digest = hashlib.sha512(ping[2] + self.hostname.encode() + nonce + self.shared_key.encode()).hexdigest()
                connection.say(["PONG", True, "", self.hostname, digest])
                return


class Certificates:
    """Files that openssl has made: authorities, a server's certificate, one that has expired, and a client's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for authority in ("ca", "other-ca"):
            self._openssl("req", "-x509", *self._new_key(authority), "-out", f"{authority}.crt", "-days", "30")
        self._sign("server", days=30)
        self._sign("expired", days=-1)
        self._sign("client", days=30)

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def server(self, name: str = "server") -> dict[str, str]:
        """Return node's options for TLS."""
        return {"key": self[f"{name}.key"], "cert": self[f"{name}.crt"]}

    def _sign(self, name: str, days: int) -> None:
        (self.folder / "names").write_text("subjectAltName=DNS:localhost,DNS:fluentd.test,IP:127.0.0.1\n")
        self._openssl("req", *self._new_key(name), "-out", f"{name}.csr")
        authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *authority, "-days", str(days), "-out", f"{name}.crt")

    @staticmethod
    def _new_key(name: str) -> tuple[str, ...]:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")
        return (*key, "-subj", f"/CN={name}")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
