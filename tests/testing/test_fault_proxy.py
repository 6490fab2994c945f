"""The fault proxy between a client and an echoing server, on real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from logd.testing.faults import (
    BLACKHOLE,
    MUTE,
    PASS,
    REFUSE,
    STALL,
    half_answer,
    reset_at,
    restart_every,
    slow,
)
from logd.testing.proxy import FaultProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SHORT_S = 0.05


class Echo:
    """A server that says what it hears."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@pytest.fixture(params=["tcp", "unix"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[FaultProxy, Echo]]:
    echo = Echo()
    if request.param == "unix":
        server = await asyncio.start_unix_server(echo.serve, tmp_path / "echo")
        upstream: tuple[str, int] | str = str(tmp_path / "echo")
    else:
        server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
        upstream = server.sockets[0].getsockname()[:2]
    async with FaultProxy(upstream) as proxy:
        yield proxy, echo
    server.close()


@asynccontextmanager
async def client(proxy: FaultProxy) -> AsyncIterator[Streams]:
    if isinstance(proxy.address, str):
        reader, writer = await asyncio.open_unix_connection(proxy.address)
    else:
        reader, writer = await asyncio.open_connection(*proxy.address)
    yield reader, writer
    writer.transport.abort()


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), SHORT_S)
    except TimeoutError:
        return True
    return False


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, which may be a reset."""
    found = b""
    try:
        async with asyncio.timeout(5):
            while data := await reader.read(1 << 16):
                found += data
    except ConnectionResetError:
        pass
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.002)


async def test_it_passes_both_ways_and_each_end_on_its_own(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, echo = scene
    async with client(proxy) as (reader, writer):
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert await end_of(reader) == b"x" * 300_000
    assert len(echo.heard) == proxy.received == 300_000


async def test_nobody_listens_and_connections_are_reset_until_it_passes_again(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = scene
    async with client(proxy) as (reader, _):
        await proxy.until(lambda: proxy.accepted == 1)
        await proxy.become(REFUSE)
        assert await end_of(reader) == b""
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            async with client(proxy):
                pass
        await proxy.become(PASS)
        async with client(proxy) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
        await proxy.become(REFUSE)


async def test_a_stall_reads_nothing_of_what_is_there_and_of_what_comes(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, echo = scene
    await proxy.become(STALL)
    async with client(proxy) as (reader, writer):
        writer.write(b"x" * (8 << 20))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), SHORT_S)
        assert (proxy.received, echo.heard) == (0, b"")
        await proxy.become(PASS)
        assert await end_of(reader) == b""


async def test_a_connection_that_did_not_suffer_lives_through_a_fault(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = scene
    async with client(proxy) as (reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        await proxy.become(BLACKHOLE)
        await proxy.become(PASS)
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"


async def test_a_black_hole_reads_all_and_passes_nothing(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, echo = scene
    await proxy.become(BLACKHOLE)
    async with client(proxy) as (reader, writer):
        writer.write(b"x" * 1_000_000)
        await proxy.until(lambda: proxy.received == 1_000_000)
        assert await is_silent(reader)
    assert echo.heard == b""


async def test_a_mute_one_passes_all_and_answers_nothing(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, echo = scene
    await proxy.become(MUTE)
    async with client(proxy) as (reader, writer):
        writer.write(b"hello")
        await until(lambda: echo.heard == b"hello")
        assert await is_silent(reader)
        await proxy.become(PASS)
        assert await end_of(reader) == b""


@pytest.mark.parametrize("count", [1, 99_999])
async def test_a_connection_is_reset_at_the_byte_that_was_said(scene: tuple[FaultProxy, Echo], count: int) -> None:
    proxy, echo = scene
    await proxy.become(reset_at(count))
    async with client(proxy) as (reader, writer):
        writer.write(bytes(1_000_000))
        await end_of(reader)
        await until(lambda: len(echo.heard) == count)


async def test_half_of_an_answer_comes_after_as_many_whole_ones_as_was_said(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = scene
    await proxy.become(half_answer(1))
    async with client(proxy) as (reader, writer):
        writer.write(b"first")
        assert await reader.readexactly(5) == b"first"
        writer.write(b"second")
        assert await reader.read() == b"sec"  # and no reset


async def test_a_slow_one_reads_as_much_as_was_said(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = scene
    await proxy.become(slow(100_000))
    began = time.monotonic()
    async with client(proxy) as (reader, writer):
        writer.write(bytes(30_000))
        writer.write_eof()
        assert len(await end_of(reader)) == 30_000
    assert 0.2 < time.monotonic() - began < 3


async def test_one_that_is_slow_no_more_passes_at_once_what_it_has_read(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = scene
    async with client(proxy) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        await proxy.become(slow(10))
        writer.write(bytes(10_000))
        await proxy.until(lambda: proxy.received > 5)
        await proxy.become(PASS)
        async with asyncio.timeout(20):
            await reader.readexactly(10_000)


async def test_it_goes_away_again_and_again(scene: tuple[FaultProxy, Echo]) -> None:
    proxy, _ = scene
    await proxy.become(restart_every(0.03, away_s=0.01))
    async with client(proxy) as (reader, _):
        await proxy.until_restarted(3)
        assert await end_of(reader) == b""
    await proxy.become(PASS)
    async with client(proxy) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
