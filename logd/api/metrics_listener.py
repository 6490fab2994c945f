"""The listener of metrics-addr: /metrics and nothing else, for anybody who can connect.

So little is taken of each client: a connection is for one request, which has to come within REQUEST_S and be answered
within CONNECTION_S, and there are at most MAX_CONNECTIONS, of which one that asks nothing gives way.
Whether a page may be read is up to who may connect; but where that is this host alone, a web page that has a name of
its own resolve to 127.0.0.1 must not pass for it: such a name is refused.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from logd.api.metrics import answer
from logd.metrics.scrape import Scraper

REQUEST_S: Final = 5.0
CONNECTION_S: Final = 30.0
"""Prometheus gives up after 10 s, unless it is told otherwise."""
MAX_CONNECTIONS: Final = 64
MAX_HEADER_BYTES: Final = 8190
BACKLOG: Final = 64
PATH: Final = "/metrics"
METHODS: Final = ("GET", "HEAD")


class Connection(web.RequestHandler):
    """One client's connection."""

    _deadline: asyncio.TimerHandle | None = None
    asked = False
    """Whether its request has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many that are being answered."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        others: list[Any] = self._manager.connections if self._manager else []
        if len(others) > MAX_CONNECTIONS:
            idle = next((one for one in others if not one.asked), self)
            idle.cut()
        self._set_deadline(REQUEST_S)

    def begin(self) -> None:
        """Note that the request has come."""
        self.asked = True
        self._set_deadline(CONNECTION_S)

    def cut(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.cut)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request in one line, without aiohttp's traceback in our log."""
        return _refusal(status, "bad request" if status < 500 else "internal error")


class Server(web.Server):
    """Makes the connections to one socket."""

    def __init__(self, scraper: Scraper, *, host_only: bool) -> None:
        self._scraper = scraper
        self._host_only = host_only
        limits: Any = {"max_line_size": MAX_HEADER_BYTES, "max_field_size": MAX_HEADER_BYTES, "lingering_time": 0}
        super().__init__(self._handle, access_log=None, **limits)

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer, and close: a scraper comes back in a quarter of a minute."""
        connection: Any = request.protocol
        connection.begin()
        if self._host_only and not _names_this_host(request.headers.get("Host", "")):
            return self._refuse(request, "", 403, "this listener has no such name: use localhost or an address")
        if request.path != PATH:
            return self._refuse(request, "", 404, "page not found")
        if request.method not in METHODS:
            return self._refuse(request, PATH, 405, "method not allowed", Allow=", ".join(METHODS))
        response = await answer(self._scraper, request, last=True)
        self._scraper.daemon.answered(request.method, PATH, response.status)
        return response

    def _refuse(self, request: web.BaseRequest, route: str, code: int, text: str, **headers: str) -> web.Response:
        self._scraper.daemon.answered(request.method, route, code)
        return _refusal(code, text, headers)


class MetricsListener:
    """Serves on bound sockets. Close it."""

    def __init__(self, scraper: Scraper) -> None:
        self._scraper = scraper
        self._serving: list[tuple[asyncio.Server, Server]] = []

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to serve."""
        for one in sockets:
            address = ipaddress.ip_address(one.getsockname()[0].partition("%")[0])
            server = Server(self._scraper, host_only=address.is_loopback)
            listening = await asyncio.get_running_loop().create_server(server, sock=one, backlog=BACKLOG)
            self._serving.append((listening, server))

    async def close(self) -> None:
        """Stop; connections are cut."""
        for listening, server in self._serving:
            listening.close()
            await server.shutdown(0)


def _refusal(code: int, text: str, headers: Mapping[str, str] = {}) -> web.Response:
    response = web.Response(text=f"{text}\n", status=code, headers=headers)
    response.force_close()
    return response


def _names_this_host(host: str) -> bool:
    """Tell whether a Host header is an address or localhost, which no web page can have for its own name."""
    name = re.sub(r":[0-9]*$", "", host) if not host.endswith("]") else host
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name.lower() in {"", "localhost"}
    return True
