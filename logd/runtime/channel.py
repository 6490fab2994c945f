"""A connection of the daemon to its keeper or to a shim: messages in packets, answers matched to questions."""

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any

from logd.runtime.protocol import receive, send


class ChannelClosed(ConnectionError):
    """The other side is gone."""


class Channel:
    """Asyncio side of one SOCK_SEQPACKET connection.

    `on_message` gets what is not an answer; `on_close` is called once, when the other side is gone.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_message: Callable[[dict[str, Any]], None],
        on_close: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._on_message = on_message
        self._on_close = on_close
        self._questions: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self.closed = False
        self.peer_closed = False
        """Whether the other side closed it, so that its process has ended or let go."""
        self._loop.add_reader(connection.fileno(), self._readable)

    async def ask(
        self, operation: str, handed: tuple[int, ...] = (), **fields: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a request and return its answer with the descriptors that came along (the caller's to close).

        Raises ChannelClosed.
        """
        if self.closed:
            raise ChannelClosed
        number = next(self._numbers)
        answer: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()
        try:
            send(self._connection, {"op": operation, "seq": number, **fields}, handed)
        except OSError as error:
            self._readable()  # what the other side said last
            self.close()
            raise ChannelClosed from error
        self._questions[number] = answer
        try:
            return await answer
        finally:
            self._questions.pop(number, None)

    def tell(self, operation: str, **fields: Any) -> None:
        """Send a request whose answer nobody waits for; without effect if the other side is gone."""
        if not self.closed:
            try:
                send(self._connection, {"op": operation, "seq": next(self._numbers), **fields})
            except OSError:
                self._readable()
                self.close()

    def _readable(self) -> None:
        """Take in all that has arrived."""
        while not self.closed:
            try:
                received = receive(self._connection)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self.peer_closed = True
                self.close()
                return
            message, descriptors = received
            answer = self._questions.get(message.get("re", 0))
            if answer is not None and not answer.done():
                answer.set_result((message, descriptors))
                continue
            for descriptor in descriptors:
                os.close(descriptor)
            if "event" in message:
                self._on_message(message)

    def close(self) -> None:
        """End the connection; questions that wait get ChannelClosed."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._connection.fileno())
        self._connection.close()
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(ChannelClosed())
        self._on_close()
