"""Lines of JSON that tell a client how long work goes on: loads, imports, pulls.

Source: the shapes of progress lines, dockerd 27.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from logd.api.call import Call, json_line
from logd.errors import LogdError
from logd.images.report import Report

T = TypeVar("T")


class Progress:
    """The lines; the answer's head is sent with the first."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._response: web.StreamResponse | None = None

    async def send(self, message: dict[str, Any]) -> None:
        """Send one line."""
        if self._response is None:
            self._response = await self._call.stream("application/json")
        await self._response.write(json_line(message)[:-1] + b"\r\n")

    async def fail(self, error: LogdError, *, code: int | None = None) -> None:
        """Send an error: as the answer's status if that is still possible, else as a line, with an exit code."""
        if self._response is None:
            raise error
        detail: dict[str, Any] = {"message": str(error)} if code is None else {"code": code, "message": str(error)}
        await self.send({"errorDetail": detail, "error": str(error)})

    async def end(self) -> web.StreamResponse:
        """Return the answer."""
        return self._response or await self._call.stream("application/json")

    async def follow(self, work: Callable[[Report], Awaitable[T]]) -> T:
        """Do the work, and send what it reports while it goes on; it ends with the client. Raises its error."""
        report = Report()
        working = asyncio.ensure_future(work(report))
        working.add_done_callback(lambda _: report.end())
        try:
            async for message in report.messages():
                await self.send(message)
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
