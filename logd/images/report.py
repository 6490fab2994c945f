"""How a transfer goes on, as messages for Docker's client: what comes faster than it reads is left out, never queued.

Source: the shapes of progress lines, dockerd 27 (status, progressDetail, id).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any


class Report:
    """Takes messages at any rate; gives them out in order, of each id's progress the last one only."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._ended = False

    def tell(self, status: str, ident: str = "", current: int | None = None, total: int | None = None) -> None:
        """Add a message. With `current`, it is progress in bytes and takes the place of one that waits."""
        message: dict[str, Any] = {"status": status}
        if ident:
            message |= {"id": ident, "progressDetail": {}}
        if current is not None:
            message["progressDetail"] = {"current": current} | ({"total": total} if total else {})
            for waiting in reversed(self._messages):
                if waiting.get("id") == ident:
                    if waiting["status"] == status:
                        waiting["progressDetail"] = message["progressDetail"]
                        return
                    break
        self._messages.append(message)
        self._news.set()

    def about(self, status: str, ident: str) -> None:
        """Add a message about the image as a whole; `ident` is its tag or digest."""
        self._messages.append({"status": status, "id": ident})
        self._news.set()

    def result(self, aux: dict[str, Any]) -> None:
        """Add what has come of it, for programs."""
        self._messages.append({"progressDetail": {}, "aux": aux})
        self._news.set()

    def end(self) -> None:
        """There is no more to come."""
        self._ended = True
        self._news.set()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the messages up to the end."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._messages:
                yield self._messages.pop(0)
            if self._ended and not self._messages:
                return
