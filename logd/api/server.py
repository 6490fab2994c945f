"""The HTTP server: what is no request is refused in Docker's shape, and who is slow or too many does not hold it up.

What is no request costs one line of the log; aiohttp logs it as an error of the program, with a traceback, and answers
in plain text. The head of a request has to come within HEAD_S of its first byte, and a connection that asks nothing is
closed after IDLE_S. Answers may take as long as they like, and so do connections that were taken over.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from logd.api.access import Access, Entry, is_unix, peer_of
from logd.api.app import HEADERS
from logd.api.call import failure
from logd.api.hangup import watch_hang_up

log = logging.getLogger(__name__)
SHOWN_CHARACTERS: Final = 200
"""Of what aiohttp says; it may quote the request."""
HEAD_S: Final = 20.0
"""A client that has begun to ask sends the rest at once; dockerd waits 5 minutes."""
IDLE_S: Final = 120.0
"""Go's clients keep a connection for 90 s."""


class Connection(web.RequestHandler):
    """One client's connection."""

    _deadline: asyncio.TimerHandle | None = None
    _end_watch: Callable[[], None] | None = None
    _peer = ""
    refused = ""
    """Why its request is not answered: its peer has too many connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and count it."""
        super().connection_made(transport)
        access = self._access()
        if access is None:
            return
        self._peer = peer_of(transport)
        entry = access.enter(self._peer)
        if entry is Entry.OPEN:
            return
        self.refused = f"too many connections from {self._peer} (at most {access.most_connections}): close some"
        if entry is Entry.CUT:
            access.tell_cut("too-many")
            self._cut()
        else:
            self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and no longer than HEAD_S for the head of a request."""
        waiting = len(self._messages)
        is_head = self._waits_for_request()
        super().data_received(data)
        if len(self._messages) > waiting:
            self._clear_deadline()
        elif is_head and self._deadline is None:
            self._set_deadline()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp closes the connection in any case
        """Let a client that sends no more have its answer, where a hang-up can be told from that (unix(7))."""
        transport: Any = self.transport
        if transport is None or not is_unix(transport) or self._waits_for_request():
            return None
        self._end_watch = watch_hang_up(transport)
        self.close()  # after this request
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._clear_deadline()
        if self._end_watch is not None:
            self._end_watch()
        access = self._access()
        if access is not None and self._peer:
            access.leave(self._peer)
            self._peer = ""
        super().connection_lost(exc)

    def _waits_for_request(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _access(self) -> Access | None:
        manager: Any = self._manager
        return manager.access if manager is not None else None

    def _set_deadline(self) -> None:
        manager: Any = self._manager
        self._deadline = asyncio.get_running_loop().call_later(manager.head_s, self._give_up)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        log.info("the head of a request did not come in time", extra={"remote": self._peer})
        if (access := self._access()) is not None:
            access.tell_cut("slow-head")
        self._cut()

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; the connection ends with that. Any other error is aiohttp's to handle."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason, status = self._refusal(exc)
        log.info("request refused: %s", reason, extra={"status": status, "remote": request.remote or "unix socket"})
        answer = failure(reason, status)
        answer.headers.update(HEADERS)
        answer.force_close()
        return answer

    def _refusal(self, error: HttpProcessingError) -> tuple[str, int]:
        """Return why, and the status: for what is too long that of dockerd."""
        if isinstance(error, LineTooLong):
            return f"the request's line or a header is longer than {self.max_line_size} bytes", 431
        return error.message.partition("\n")[0].rstrip(" :")[:SHOWN_CHARACTERS], 400


class Server(web.Server):
    """Makes the connections."""

    access: Access | None = None
    head_s = HEAD_S

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on such a server."""

    def __init__(self, app: web.Application, access: Access, **options: Any) -> None:
        super().__init__(app, keepalive_timeout=IDLE_S, **options)
        self._access = access

    def give(self, seconds: float) -> None:
        """Let requests have so long to end in `cleanup`."""
        self._shutdown_timeout = seconds

    async def _make_server(self) -> Server:
        made: Any = await super()._make_server()
        server = Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001, RUF100 - Application has no other way to a server of one's own
        )
        server.access = self._access
        return server
