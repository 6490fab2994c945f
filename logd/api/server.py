"""The HTTP server: what is no request is refused in Docker's shape, and costs one line of the log.

aiohttp logs it as an error of the program, with a traceback, and answers in plain text.
"""

import asyncio
import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from logd.api.app import HEADERS
from logd.api.call import failure

log = logging.getLogger(__name__)
SHOWN_CHARACTERS: Final = 200
"""Of what aiohttp says; it may quote the request."""


class Connection(web.RequestHandler):
    """One client's connection."""

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

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on such a server."""

    def give(self, seconds: float) -> None:
        """Let requests have so long to end in `cleanup`."""
        self._shutdown_timeout = seconds

    async def _make_server(self) -> Server:
        made: Any = await super()._make_server()
        return Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001, RUF100 - Application has no other way to a server of one's own
        )
