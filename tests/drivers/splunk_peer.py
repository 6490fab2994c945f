"""An HTTP Event Collector on a real socket, which is strict about what it is sent.

Splunk itself can't be had here. Source: Splunk's manuals on HEC: endpoints, status codes, indexer acknowledgement.
"""

import asyncio
import gzip
import json
import ssl
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

TOKEN = "5f1b3c2e-0000-4000-8000-00000000cafe"
FIELDS = {"event", "time", "host", "source", "sourcetype", "index", "fields"}
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class HecError(Exception):
    def __init__(self, status: int, code: int, text: str, event: int | None = None) -> None:
        super().__init__(text)
        self.answer = {"text": text, "code": code} | ({} if event is None else {"invalid-event-number": event})
        self.status = status


class Channel:
    def __init__(self) -> None:
        self.next_ack = 0
        self.indexed: dict[int, bool] = {}
        """By number; what was said to be indexed is forgotten."""


class Collector:
    """`events` has what was taken, in order; `faults` are asked first, one for each request to the event endpoint."""

    def __init__(self, *, acks: bool = False, indexes: set[str] | None = None, most_bytes: int = 0) -> None:
        self.acks = acks
        self.indexes = indexes
        self.most_bytes = most_bytes
        self.tokens = {TOKEN}
        self.events: list[dict[str, Any]] = []
        self.requests: list[web.Request] = []
        self.sizes: list[int] = []
        """Of bodies, unpacked."""
        self.faults: list[Fault] = []
        self.refuse: Callable[[dict[str, Any]], HecError | None] = lambda event: None
        self.takes_events_before_a_refused_one = False
        self.index_at_once = True
        self.channels: dict[str, Channel] = {}
        self.polls = 0
        self.held = asyncio.Event()
        """What a fault that never answers waits for."""
        self.port = 0
        self.scheme = "http"
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{'localhost' if self.scheme == 'https' else '127.0.0.1'}:{self.port}"

    @property
    def lines(self) -> list[Any]:
        return [one["event"]["line"] if isinstance(one["event"], dict) else one["event"] for one in self.events]

    async def start(self, certificate: Path | None = None) -> "Collector":
        app = web.Application()
        for path in ("/services/collector", "/services/collector/event", "/services/collector/event/1.0"):
            app.router.add_route("*", path, self._event)
        app.router.add_post("/services/collector/ack", self._ack)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        context = None
        if certificate:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        host = "localhost" if certificate else "127.0.0.1"
        site = web.TCPSite(self._runner, host, self.port, ssl_context=context, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        self.held.set()
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    async def restart(self) -> None:
        """Like a process that was killed: channels are forgotten, and so is what was not indexed."""
        await self.stop()
        self.channels.clear()
        self.held = asyncio.Event()
        await self.start()

    def index_all(self) -> None:
        for channel in self.channels.values():
            channel.indexed = dict.fromkeys(channel.indexed, True)

    # Faults.

    async def reset(self, request: web.Request) -> web.StreamResponse:
        await request.content.read(100)
        assert request.transport
        request.transport.abort()
        return web.Response()

    async def reset_after_taking(self, request: web.Request) -> web.StreamResponse:
        await self._take(request)
        assert request.transport
        request.transport.abort()
        return web.Response()

    async def never(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        await self.held.wait()
        return web.Response(status=500)

    async def reads_nothing(self, request: web.Request) -> web.StreamResponse:
        await self.held.wait()
        return web.Response(status=500)

    def says(self, status: int, code: int, text: str) -> Fault:
        async def fault(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.json_response({"text": text, "code": code}, status=status)

        return fault

    def says_text(self, status: int, text: str, **headers: str) -> Fault:
        async def fault(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=status, text=text, headers=headers, content_type="text/html")

        return fault

    # The protocol.

    async def _event(self, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.json_response({}, headers={"Allow": "GET, POST, OPTIONS"})
        self.requests.append(request)
        if self.faults:
            response = await self.faults.pop(0)(request)
            if response is not None:
                return response
        try:
            return web.json_response(await self._take(request))
        except HecError as error:
            return web.json_response(error.answer, status=error.status)

    def _authorize(self, request: web.Request) -> None:
        given = request.headers.get("Authorization")
        if given is None:
            raise HecError(401, 2, "Token is required")
        if not given.startswith("Splunk "):
            raise HecError(401, 3, "Invalid authorization")
        if given.removeprefix("Splunk ") not in self.tokens:
            raise HecError(403, 4, "Invalid token")

    def _channel(self, request: web.Request) -> str:
        name = request.headers.get("X-Splunk-Request-Channel") or request.query.get("channel")
        if not name:
            raise HecError(400, 10, "Data channel is missing")
        try:
            uuid.UUID(name)
        except ValueError:
            raise HecError(400, 11, "Invalid data channel") from None
        return name

    async def _take(self, request: web.Request) -> dict[str, Any]:
        assert request.method == "POST"
        assert request.path == "/services/collector/event/1.0"  # Docker's
        self._authorize(request)
        channel = self._channel(request) if self.acks else None
        if self.most_bytes and (request.content_length or 0) > self.most_bytes:
            raise HecError(413, 27, f"Content-Length of {request.content_length} too large")
        body = await self._body(request)
        self.sizes.append(len(body))
        events = self._parse(body)
        for number, event in enumerate(events):
            error = self._check(event) or self.refuse(event)
            if error:
                error.answer["invalid-event-number"] = number
                if self.takes_events_before_a_refused_one:
                    self.events += events[:number]
                raise error
        self.events += events
        answer: dict[str, Any] = {"text": "Success", "code": 0}
        if channel:
            known = self.channels.setdefault(channel, Channel())
            answer["ackId"] = known.next_ack
            known.indexed[known.next_ack] = self.index_at_once
            known.next_ack += 1
        return answer

    async def _body(self, request: web.Request) -> bytes:
        body = b"".join([part async for part in request.content.iter_any()])
        # aiohttp has unpacked what Content-Encoding says.
        return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body

    def _parse(self, body: bytes) -> list[dict[str, Any]]:
        if not body:
            raise HecError(400, 5, "No data")
        events, at, decoder = [], 0, json.JSONDecoder(strict=True)
        text = body.decode()  # strict
        while at < len(text):
            try:
                event, at = decoder.raw_decode(text, at)
            except ValueError:
                raise HecError(400, 6, "Invalid data format", len(events)) from None
            events.append(event)
        return events

    def _check(self, event: Any) -> HecError | None:
        if not isinstance(event, dict) or set(event) - FIELDS:
            return HecError(400, 6, "Invalid data format")
        if "event" not in event:
            return HecError(400, 12, "Event field is required")
        if event["event"] in ("", None) or (isinstance(event["event"], str) and not event["event"].strip()):
            return HecError(400, 13, "Event field cannot be blank")
        if not isinstance(event.get("time"), str) or not isinstance(event.get("host"), str):
            return HecError(400, 6, "Invalid data format")
        if any(isinstance(value, dict) for value in event.get("fields", {}).values()):
            return HecError(400, 15, "Error in handling indexed fields")
        if self.indexes is not None and event.get("index", "main") not in self.indexes:
            return HecError(400, 7, "Incorrect index")
        return None

    async def _ack(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authorize(request)
            name = self._channel(request)
            if not self.acks:
                raise HecError(400, 14, "ACK is disabled")
            self.polls += 1
            asked = json.loads(await request.read())
            assert set(asked) == {"acks"}
            assert all(type(one) is int for one in asked["acks"])
            channel = self.channels.get(name, Channel())
            answer = {str(one): channel.indexed.get(one, False) for one in asked["acks"]}
            channel.indexed = {one: done for one, done in channel.indexed.items() if not answer.get(str(one))}
        except HecError as error:
            return web.json_response(error.answer, status=error.status)
        return web.json_response({"acks": answer})
