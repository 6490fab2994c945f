"""A driver of a small protocol that is right, and ones with one mistake each, under the conformance suite.

The protocol: a batch is its length as 4 bytes and JSON, `[container, [[stream, base64], …]]`; the answer is `ok\\n`.
"""

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from logd.driver import Batch, CommonOptions, LogDriver, opt, whole
from logd.record import STDOUT
from logd.testing.conformance import DriverConformance
from logd.testing.proxy import Address
from logd.testing.target import Received, Target

LENGTH = struct.Struct("!I")


@dataclass(frozen=True, kw_only=True)
class PlainOptions(CommonOptions):
    plain_port: int = opt(whole(1, 65535))


class Plain(LogDriver[PlainOptions]):
    name = "plain"
    options_type = PlainOptions
    writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.options.plain_port)

    async def send(self, batch: Batch) -> None:
        await self.post(batch, self.records(batch))
        await self.answer()

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None

    def records(self, batch: Batch) -> list[tuple[int, bytes]]:
        return [(one.stream, one.line) for one in batch.records()]

    async def post(self, batch: Batch, records: list[tuple[int, bytes]]) -> None:
        packed = [[stream, base64.b64encode(line).decode()] for stream, line in records]
        data = json.dumps([self.tag(batch.container), packed]).encode()
        assert self.writer is not None
        self.writer.write(LENGTH.pack(len(data)) + data)
        await self.writer.drain()

    async def answer(self) -> None:
        try:
            await self.reader.readexactly(3)
        except asyncio.IncompleteReadError as error:
            raise ValueError("a library's own word for a connection that is gone") from error


class Right(Plain):
    async def answer(self) -> None:
        await self.reader.readexactly(3)


class DoesNotWait(Right):
    async def answer(self) -> None:
        pass


class TakesHalfAnAnswer(Right):
    async def answer(self) -> None:
        if not await self.reader.read(3):
            raise ConnectionResetError("no answer")


class AcknowledgesTooSoon(Right):
    async def post(self, batch: Batch, records: list[tuple[int, bytes]]) -> None:
        await super().post(batch, records)
        batch.ack(len(batch))


class TakesACancellationForSuccess(Right):
    async def answer(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await super().answer()


class KeepsAConnectionThatIsBroken(Right):
    async def open(self) -> None:
        if self.writer is None:
            await super().open()

    async def close(self) -> None:
        pass


class LeavesOutEmptyLines(Right):
    def records(self, batch: Batch) -> list[tuple[int, bytes]]:
        return [one for one in super().records(batch) if one[1]]


class StripsLines(Right):
    def records(self, batch: Batch) -> list[tuple[int, bytes]]:
        return [(stream, line.rstrip()) for stream, line in super().records(batch)]


class CutsLongLines(Right):
    def records(self, batch: Batch) -> list[tuple[int, bytes]]:
        return [(stream, line[:65536]) for stream, line in super().records(batch)]


class SplitsJoinedRecords(Right):
    def records(self, batch: Batch) -> list[tuple[int, bytes]]:
        return [(stream, part) for stream, line in super().records(batch) for part in line.split(b"\n")]


class MixesTheStreams(Right):
    def records(self, batch: Batch) -> list[tuple[int, bytes]]:
        return [(STDOUT, line) for _, line in super().records(batch)]


class TurnsBatchesRound(Right):
    def records(self, batch: Batch) -> list[tuple[int, bytes]]:
        return super().records(batch)[::-1]


class SendsTwice(Right):
    async def send(self, batch: Batch) -> None:
        await super().send(batch)
        await super().send(batch)


class RemembersTheFirstContainer(Right):
    first = ""

    def tag(self, container: Any) -> str:
        self.first = self.first or super().tag(container)
        return self.first


class Peer(Target):
    """The server."""

    def __init__(self) -> None:
        self.got: list[Received] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                container, records = json.loads(await reader.readexactly(length))
                self.got += [Received(container, stream, base64.b64decode(line)) for stream, line in records]
                writer.write(b"ok\n")
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()

    def log_opts(self, address: Address | None) -> dict[str, str]:
        assert isinstance(address, tuple)
        return {"plain-port": str(address[1]), "tag": "{{.FullID}}"}

    async def received(self, container: str) -> list[Received]:
        return [one for one in self.got if one.container == container]


class Suite(DriverConformance):
    send_timeout_s = 0.3
    kills = 2

    @pytest_asyncio.fixture
    async def target(self) -> AsyncIterator[Target]:
        peer = Peer()
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, limit=1 << 24)
        peer.upstream = server.sockets[0].getsockname()[:2]
        yield peer
        server.close()


class TestRight(Suite):
    driver = Right


for mistaken in (Plain, *Right.__subclasses__()):
    globals()[f"Test{mistaken.__name__}"] = type(
        f"Test{mistaken.__name__}", (Suite,), {"driver": mistaken, "patience_s": 1.0}
    )
