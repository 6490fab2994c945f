"""Routing, versions and errors over real HTTP, with handlers of the test's own."""

import asyncio
import io
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient, TestServer
from own_metrics import own_metrics

from logd.api import absent
from logd.api.access import Access
from logd.api.app import HEADERS, Router, Service, _sign
from logd.api.call import Call, Route, answer, done
from logd.errors import Conflict, LogdError, NotModified


class Handlers:
    """What the routes of these tests do."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.changed = asyncio.Event()

    async def names(self, call: Call) -> web.Response:
        return answer({"version": str(call.version), "names": dict(call.names), "flag": call.flag("flag")})

    async def number(self, call: Call) -> web.Response:
        return answer(call.number("n"))

    async def body(self, call: Call) -> web.Response:
        return answer(await call.json())

    async def conflict(self, call: Call) -> web.Response:
        raise Conflict("it is busy")

    async def unmodified(self, call: Call) -> web.Response:
        raise NotModified("already")

    async def failing(self, call: Call) -> web.Response:
        raise LogdError("the disk is full")

    async def bug(self, call: Call) -> web.Response:
        raise KeyError("oops")

    async def half(self, call: Call) -> web.StreamResponse:
        response = await call.stream("application/json")
        await response.write(b"half")
        raise LogdError("and then")

    async def change(self, call: Call) -> web.Response:
        await self.release.wait()
        self.changed.set()
        return done()

    async def endless(self, call: Call) -> web.StreamResponse:
        response = await call.stream("application/json")
        await self.release.wait()
        return response

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/things/{name}/json", self.names),
            Route("GET", "/images/{name:slashes}/json", self.names),
            Route("GET", "/number", self.number),
            Route("POST", "/body", self.body),
            Route("GET", "/conflict", self.conflict),
            Route("GET", "/unmodified", self.unmodified),
            Route("GET", "/failing", self.failing),
            Route("GET", "/bug", self.bug),
            Route("GET", "/half", self.half),
            Route("POST", "/change", self.change, lasting=True),
            Route("GET", "/endless", self.endless),
            *absent.ROUTES,
        ]


@pytest.fixture
async def handlers():
    return Handlers()


@pytest.fixture
async def client(handlers):
    parts: Any = SimpleNamespace(
        engine=None,
        streams=set(),
        config=SimpleNamespace(shutdown_timeout=5),
        images=None,
        events=None,
        metrics=own_metrics(),
        access=Access(),
    )
    service = Service(parts, handlers.routes())
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    app.on_response_prepare.append(_sign)
    app.on_shutdown.append(service.stop)
    async with TestClient(TestServer(app, handler_cancellation=True)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "version"),
    [("", "1.47"), ("/v1.24", "1.24"), ("/v1.47", "1.47"), ("/v1.41", "1.41"), ("/v1.40.9", "1.40")],
)
async def test_a_path_is_served_with_and_without_a_version(client, path, version):
    answer = await client.get(f"{path}/things/web/json")
    assert await answer.json() == {"version": version, "names": {"name": "web"}, "flag": False}
    assert answer.headers["Content-Type"] == "application/json"
    assert (await answer.read()).endswith(b"\n")


async def test_a_version_that_is_too_old_or_too_new_is_refused_in_dockers_words(client):
    old, new = await client.get("/v1.23/number"), await client.get("/v1.48/number")
    assert (old.status, new.status) == (400, 400)
    assert (await old.json())["message"] == (
        "client version 1.23 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )
    assert (await new.json())["message"] == ("client version 1.48 is too new. Maximum supported API version is 1.47")


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1.41/things/a/b/json", "/things//json", "/v1.41", "/vx/number"])
async def test_an_unknown_path_is_answered_as_dockerd_does(client, path):
    answer = await client.get(path)
    assert (answer.status, await answer.json()) == (404, {"message": "page not found"})
    assert (await client.delete("/number")).status == 404


async def test_every_answer_carries_the_headers_by_which_clients_negotiate(client):
    for path in ("/number", "/nothing", "/bug", "/conflict"):
        headers = (await client.get(path)).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
    assert HEADERS["Api-Version"] == "1.47"
    assert HEADERS["Server"].startswith("logd/")


async def test_an_image_name_may_have_slashes(client):
    answer = await client.get("/v1.41/images/registry:5000/a/b:c/json")
    assert (await answer.json())["names"] == {"name": "registry:5000/a/b:c"}


async def test_errors_have_the_status_of_their_class_and_dockers_shape(client):
    assert (await client.get("/conflict")).status == 409
    assert await (await client.get("/conflict")).json() == {"message": "it is busy"}
    assert (await client.get("/failing")).status == 500
    unmodified = await client.get("/unmodified")
    assert (unmodified.status, await unmodified.read()) == (304, b"")


async def test_a_bug_is_logged_with_its_traceback_and_is_an_error_500(client, caplog):
    answer = await client.get("/bug")
    assert (answer.status, await answer.json()) == (500, {"message": "internal error: KeyError: 'oops'"})
    assert "Traceback" in caplog.text


async def test_an_error_after_the_head_cuts_the_answer_short_instead_of_ending_it(client):
    answer = await client.get("/half")
    with pytest.raises(ClientError):
        await answer.read()


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("", False), ("no", False), ("None", False), ("x", True)])
async def test_a_flag_is_read_as_dockerd_does(client, value, expected):
    answer = await client.get("/things/a/json", params={"flag": value})
    assert (await answer.json())["flag"] is expected


async def test_a_number_that_is_none_is_refused(client):
    assert await (await client.get("/number?n=-3")).json() == -3
    answer = await client.get("/number?n=1.5")
    assert (answer.status, await answer.json()) == (
        400,
        {"message": 'invalid value for "n": parsing "1.5": invalid syntax'},
    )


async def test_a_body_has_to_be_json_and_to_say_so(client):
    assert await (await client.post("/body", json={"a": 1})).json() == {"a": 1}
    assert await (await client.post("/body", skip_auto_headers={"Content-Type"})).json() == {}
    answer = await client.post("/body", data=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status == 400
    assert (await answer.json())["message"] == (
        "unsupported Content-Type header (text/plain): must be 'application/json'"
    )
    headers = {"Content-Type": "application/json; charset=utf-8"}
    for data in (b"{", b"[1]", b'{"a": NaN}'):
        answer = await client.post("/body", data=data, headers=headers)
        assert answer.status == 400
        assert (await answer.json())["message"].startswith("invalid JSON: ")


async def test_a_body_that_is_huge_or_nested_deeply_is_refused(client):
    headers = {"Content-Type": "application/json"}
    huge = await client.post("/body", data=io.BytesIO(b'{"a":"' + b"x" * (5 << 20) + b'"}'), headers=headers)
    assert (huge.status, (await huge.json())["message"]) == (
        400,
        "the request's body is too large (at most 4194304 bytes)",
    )
    deep = await client.post("/body", data=b'{"a":' * 100_000, headers=headers)
    assert deep.status == 400


async def test_a_change_goes_on_when_its_client_has_gone(client, handlers):
    request = asyncio.create_task(client.post("/change"))
    await asyncio.sleep(0.05)
    request.cancel()
    await asyncio.wait([request])
    handlers.release.set()
    await asyncio.wait_for(handlers.changed.wait(), 5)


async def test_a_daemon_that_stops_ends_its_streams(client, handlers):
    answer = await client.get("/endless")
    assert answer.status == 200
    await asyncio.wait_for(client.server.close(), 5)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/swarm", 503, "This node is not a swarm manager"),
        ("GET", "/services/a", 503, "This node is not a swarm manager"),
        ("POST", "/swarm/init", 501, "swarm mode is not supported"),
        ("POST", "/session", 501, "BuildKit is not supported"),
    ],
)
async def test_what_docker_has_and_this_daemon_does_not_is_refused_with_words(client, method, path, status, words):
    answer = await client.request(method, f"/v1.41{path}")
    assert answer.status == status
    assert words in (await answer.json())["message"]


def test_the_first_route_that_fits_is_taken():
    async def handler(call: Call) -> web.Response:
        raise NotImplementedError

    router = Router([Route("GET", "/a/json", handler), Route("GET", "/a/{name}", handler)])
    found = router.find("GET", "/a/json")
    assert found is not None
    assert found[0].path == "/a/json"
    assert router.find("GET", "/a/b.c") == (Route("GET", "/a/{name}", handler), {"name": "b.c"})
    assert router.find("POST", "/a/json") is None
