"""Clients that send little by little: their connection ends at a deadline, and what streams goes on."""

import asyncio
from types import SimpleNamespace

import pytest
from aiohttp import web

from logd.api import call, server
from logd.api.access import Access
from logd.api.call import Call, Version
from logd.errors import TooSlow


@pytest.fixture
async def served(tmp_path):
    """A server with deadlines of a fraction of a second, that answers a body's length, or for as long as it is read."""

    async def answer(request):
        if request.path == "/stream":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(8):
                await response.write(b"x")
                await asyncio.sleep(0.1)
            return response
        try:
            body = await Call(SimpleNamespace(engine=None), request, Version(1, 47), {}).body()
        except TooSlow as error:
            return call.failure(str(error), error.status)
        return web.Response(text=str(len(body)))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = server.Runner(app, Access())
    await runner.setup()
    runner.server.head_s = 0.3
    path = str(tmp_path / "sock")
    await web.UnixSite(runner, path).start()
    yield path
    runner.give(0.1)
    await runner.cleanup()


async def until_closed(reader):
    """Return what comes until the connection is closed or cut."""
    answer = b""
    try:
        while data := await asyncio.wait_for(reader.read(65536), 20):
            answer += data
    except (ConnectionResetError, BrokenPipeError):
        pass
    return answer


async def test_the_head_of_a_request_that_comes_byte_by_byte_is_not_waited_for(served):
    reader, writer = await asyncio.open_unix_connection(served)

    async def trickle():
        for byte in b"GET /_ping HTTP/1.1\r\n" + b"X: y\r\n" * 10_000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)

    sending = asyncio.create_task(trickle())
    assert await until_closed(reader) == b""
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.wait_for(sending, 20)
    writer.close()


async def test_the_head_of_a_second_request_has_a_deadline_too(served):
    reader, writer = await asyncio.open_unix_connection(served)
    writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET /b HT")
    await until_closed(reader)
    writer.close()


async def test_an_idle_connection_and_an_answer_that_lasts_outlive_the_deadline_of_a_head(served):
    reader, writer = await asyncio.open_unix_connection(served)
    await asyncio.sleep(0.6)  # twice the deadline, with nothing asked
    writer.write(b"GET /str")
    writer.write(b"eam HTTP/1.0\r\n\r\n")
    assert (await until_closed(reader)).endswith(b"xxxxxxxx")
    writer.close()


async def test_a_client_that_sends_no_more_has_its_answer_and_one_that_hangs_up_ends_it(served):
    reader, writer = await asyncio.open_unix_connection(served)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.write_eof()
    assert (await until_closed(reader)).endswith(b"1\r\nx\r\n0\r\n\r\n")
    writer.close()


async def test_a_json_body_that_does_not_come_is_answered_408(served, monkeypatch):
    monkeypatch.setattr(call, "BODY_S", 0.3)
    reader, writer = await asyncio.open_unix_connection(served)
    writer.write(b"POST /a HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.0 408")
    assert b"did not come within" in answer
    writer.close()
