"""What the daemon and its forwarders say to each other, over a stream socket: JSON objects, each behind its length.

Daemon → forwarder:
    {"op": "attach", "key", "route", "container", "folder", "line_bytes", "ended"}   in place of what has this key
    {"op": "end", "key"}              nothing more will come; "done" follows once all is delivered
    {"op": "stop"}                    finish what is being sent, for a few seconds, and end
    {"op": "detach", "seq", "key"}    stop delivering; {"re": seq} once the cursor is free
    {"op": "status", "seq", "keys"}   {"re": seq, "routes": {key: Health and more}}
    {"op": "health", "seq"}           {"re": seq, "busy": {key: [state, oldest_ns]}}   of those that are not idle
Forwarder → daemon:
    {"event": "ready", "broken": […]}  {"event": "beat", "lag": seconds}  {"event": "done", "key"}
"""

import asyncio
import itertools
import struct
from collections.abc import Callable
from typing import Any, Final

import orjson

_LENGTH: Final = struct.Struct("<I")


class Closed(ConnectionError):
    """The other side is gone."""


class Line:
    """One side of such a connection. `listen` returns when the other side is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._is_closed = False

    def say(self, message: dict[str, Any]) -> None:
        """Send a message; one that can't be sent any more is lost."""
        if not self._is_closed:
            raw = orjson.dumps(message)
            self._writer.write(_LENGTH.pack(len(raw)) + raw)

    async def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Send a request and return its answer. Raises Closed."""
        if self._is_closed:
            raise Closed
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        self.say({"op": operation, "seq": number, **fields})
        try:
            return await answer
        finally:
            self._questions.pop(number, None)

    async def listen(self, hear: Callable[[dict[str, Any]], None]) -> None:
        """Hand what is said to `hear`, answers to whoever asked."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                message = orjson.loads(await self._reader.readexactly(length))
                answer = self._questions.get(message.get("re", 0))
                if answer is None:
                    hear(message)
                elif not answer.done():
                    answer.set_result(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.close()

    def close(self) -> None:
        """End the connection; questions that wait get Closed."""
        if self._is_closed:
            return
        self._is_closed = True
        self._writer.close()
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(Closed())
