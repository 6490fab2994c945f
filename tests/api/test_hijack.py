"""A connection taken over from HTTP, with a client that knows nothing but sockets."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from own_metrics import own_metrics

from logd.api.access import Access
from logd.api.app import Service
from logd.api.call import Call, Route
from logd.api.hijack import Hijacked, take_over

HEAD = b"POST /take HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
PLAIN_HEAD = b"POST /take HTTP/1.1\r\nHost: x\r\n\r\n"


class Peer:
    """Runs one `behaviour` for each connection."""

    def __init__(self) -> None:
        self.behaviour: Any = None
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def take(self, call: Call) -> web.StreamResponse:
        error: BaseException | None = None
        try:
            connection = take_over(call, "application/vnd.docker.multiplexed-stream")
            await self.behaviour(connection)
            await connection.farewell()
            return Hijacked()
        except BaseException as caught:
            error = caught
            raise
        finally:
            self.ended.set_result(error)


@pytest.fixture
async def peer():
    return Peer()


@pytest.fixture
async def open_client(peer, tmp_path):
    config = SimpleNamespace(shutdown_timeout=5)
    parts: Any = SimpleNamespace(engine=None, streams=set(), config=config, metrics=own_metrics(), access=Access())
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", Service(parts, [Route("POST", "/take", peer.take)]).handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    path = str(tmp_path / "s")
    await web.UnixSite(runner, path).start()
    writers = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(path)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    await runner.cleanup()


async def echo(connection):
    while data := await connection.read():
        await connection.write(data)


async def test_an_upgrade_is_answered_101_and_the_half_close_is_the_end_of_input(peer, open_client):
    peer.behaviour = echo
    reader, writer = await open_client()
    writer.write(HEAD)
    assert await reader.readuntil(b"\r\n\r\n") == (
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    writer.write(b"two")
    writer.write_eof()
    assert await reader.read() == b"two"
    writer.close()
    assert await asyncio.wait_for(peer.ended, 5) is None


async def test_without_an_upgrade_the_answer_is_200(peer, open_client):
    peer.behaviour = echo
    reader, writer = await open_client()
    writer.write(PLAIN_HEAD)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    writer.write(b"in")
    writer.write_eof()
    assert await reader.read() == b"in"


async def test_much_input_at_once_arrives_whole_and_a_slow_taker_makes_the_client_wait(peer, open_client):
    data = bytes(range(256)) * 40_000
    release = asyncio.Event()
    got = bytearray()

    async def take_late(connection):
        await release.wait()
        assert connection._input_size <= 1 << 20
        while piece := await connection.read():
            got.extend(piece)

    peer.behaviour = take_late
    reader, writer = await open_client()
    writer.write(HEAD)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(data)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.3)
    release.set()
    await writer.drain()
    writer.write_eof()
    assert await reader.read() == b""
    assert bytes(got) == data


async def test_a_client_that_does_not_read_costs_no_memory(peer, open_client):
    written = 0

    async def flood(connection):
        nonlocal written
        while True:
            await connection.write(b"x" * 65536)
            written += 65536

    peer.behaviour = flood
    reader, writer = await open_client()
    reader._limit = 1
    writer.write(HEAD)
    await asyncio.sleep(0.3)
    before = written
    await asyncio.sleep(0.1)
    assert written == before < 4 << 20
    writer.transport.abort()
    assert isinstance(await asyncio.wait_for(peer.ended, 5), (asyncio.CancelledError, ConnectionError))


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_client_that_goes_is_noticed_though_nothing_is_written(peer, open_client, half_closed):
    lost = asyncio.Event()

    async def wait(connection):
        while await connection.read():
            pass
        await connection.wait_lost()
        lost.set()
        await asyncio.sleep(60)

    peer.behaviour = wait
    reader, writer = await open_client()
    writer.write(HEAD)
    await reader.readuntil(b"\r\n\r\n")
    if half_closed:
        writer.write_eof()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lost.wait(), 0.2)
    writer.transport.abort()
    assert isinstance(await asyncio.wait_for(peer.ended, 5), asyncio.CancelledError)


async def test_the_end_is_clean_for_a_client_that_is_still_sending(peer, open_client):
    async def say_goodbye(connection):
        await connection.write(b"bye")

    peer.behaviour = say_goodbye
    reader, writer = await open_client()
    writer.write(HEAD)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"z" * 100_000)
    assert await reader.read() == b"bye"
    writer.write(b"z" * 100_000)
    await writer.drain()
    writer.close()
    assert await asyncio.wait_for(peer.ended, 5) is None


async def test_no_descriptor_is_left_after_many_connections(peer, open_client):
    import os

    peer.behaviour = echo
    counts = []
    for _ in range(30):
        peer.ended = asyncio.get_running_loop().create_future()
        reader, writer = await open_client()
        writer.write(HEAD)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(peer.ended, 5)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] <= counts[5] + 1
