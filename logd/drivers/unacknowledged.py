"""What drivers share whose protocol has no acknowledgement, over a stream or as datagrams.

A batch that goes over a stream is done with when the peer's kernel has it (TCP) or the peer has read it (unix); one of
datagrams when all are sent. Both count as unconfirmed.
"""

import asyncio
import errno
import logging
import ssl
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from logd.driver import Batch, CommonOptions, LogDriver, Reject, whole
from logd.drivers.datagrams import DEFAULT_RATE, Datagrams, connect_udp
from logd.drivers.links import Stream, connect_tcp

__all__ = ["DEFAULT_RATE", "Messages", "TooLargeError", "UnacknowledgedDriver", "parse_rate"]

log = logging.getLogger(__name__)

RESOLVE_AGAIN_S: Final = 30.0
YIELD_BYTES: Final = 1 << 16
"""Of datagrams; then others in the event loop have their turn."""
PACED_BATCH_S: Final = 0.25
"""So long may the datagrams of a batch take: all that wait for their turn are to be sent by delivery's deadline."""
O = TypeVar("O", bound=CommonOptions)  # noqa: E741 - options

parse_rate: Final = whole(0, 10_000_000)


class TooLargeError(ValueError):
    """A record's message does not fit what carries it."""


class Messages(Protocol):
    """A batch, encoded anew by each call."""

    def blocks(self) -> Iterator[bytes]:
        """Give the messages as they go over a stream, many at a time."""

    def sizes(self) -> Iterator[int]:
        """Give for each record how many bytes of the blocks are its own."""

    def datagrams(self) -> Iterator[Sequence[bytes]]:
        """Give for each record its datagrams. Raises TooLargeError."""


class UnacknowledgedDriver(LogDriver[O]):
    """One connection for all containers that send there. A driver adds where it goes and how messages look."""

    max_in_flight = 16
    confirms = False

    def __init__(self, options: O, where: str, udp_rate: int) -> None:
        """`where`: driver and address, for messages. `udp_rate`: see connect_udp; 0 if it isn't used either."""
        super().__init__(options)
        self.max_batch_records = max(1, int(udp_rate * PACED_BATCH_S)) if udp_rate else 0
        self._where = where
        self._udp_rate = udp_rate
        self._udp: tuple[str, int] | None = None
        self._link: Stream | Datagrams | None = None
        self._resolve_at = 0.0
        self._has_warned = False

    @abstractmethod
    async def _connect(self) -> Stream | Datagrams:
        """Connect. Raises OSError, or ValueError about a file that was in order when the container was created."""

    @abstractmethod
    def _encode(self, batch: Batch) -> Messages:
        """Return a batch's messages."""

    async def open(self) -> None:
        """Connect. Raises OSError that names the address."""
        try:
            self._link = await self._connect()
        except ValueError as error:
            raise ConnectionError(str(error)) from error
        except OSError as error:
            raise self._failure(error) from error

    async def send(self, batch: Batch) -> None:
        """Send all messages, over a stream wait for the peer to have them."""
        messages = self._encode(batch)
        try:
            if isinstance(self._link, Stream):
                await _send_stream(self._link, batch, messages)
            elif isinstance(self._link, Datagrams):
                async with self._link.turn:
                    await self._follow_name(self._link)
                    await _send_datagrams(self._link, batch, messages)
            else:
                raise ConnectionError("not connected")  # closed meanwhile, because another batch failed
        except OSError as error:
            raise self._failure(error) from error

    async def close(self) -> None:
        """Disconnect."""
        link, self._link = self._link, None
        if link:
            link.close()

    async def _connect_udp(self, host: str, port: int) -> Datagrams:
        self._udp = host, port
        self._resolve_at = time.monotonic() + RESOLVE_AGAIN_S
        return await connect_udp(host, port, self._udp_rate)

    async def _connect_tls(
        self, host: str, port: int, context: Callable[[], ssl.SSLContext], *, server_name: str = "", unsafe: str = ""
    ) -> Stream:
        """Connect with what `context` returns. `unsafe`: the option by which any certificate is taken, if it is."""
        if unsafe and not self._has_warned:
            self._has_warned = True
            log.warning("%s: any certificate is accepted, as %s asks for", self._where, unsafe)
        made = await asyncio.to_thread(context)  # reads the system's certificates too
        return await connect_tcp(host, port, made, server_name)

    async def _follow_name(self, datagrams: Datagrams) -> None:
        """Fail if the server has got another address: nothing else would ever tell."""
        if self._udp is None or time.monotonic() < self._resolve_at:
            return
        self._resolve_at = time.monotonic() + RESOLVE_AGAIN_S
        if await datagrams.has_moved(*self._udp):
            self._resolve_at = 0.0
            raise ConnectionError("it has another address now")

    def _failure(self, error: OSError) -> OSError:
        """Return the error with the address in front."""
        reason = f"{self._where}: {error.strerror or error}"
        return TimeoutError(reason) if isinstance(error, TimeoutError) else ConnectionError(reason)


async def _send_stream(stream: Stream, batch: Batch, messages: Messages) -> None:
    begin = None
    try:
        async with stream.turn:
            begin = stream.written
            for block in messages.blocks():
                await stream.write(block)
            end = stream.written
        await stream.confirm(end)
    except (OSError, asyncio.CancelledError):
        if begin is not None:  # what the peer has is not sent again, where that is known
            with suppress(OSError):
                batch.ack(records_within(stream.confirmed() - begin, messages))
        raise


async def _send_datagrams(datagrams: Datagrams, batch: Batch, messages: Messages) -> None:
    sent = size = 0
    try:
        for pieces in messages.datagrams():
            for piece in pieces:
                await datagrams.send(piece)
                size += len(piece)
            sent += 1
            if size >= YIELD_BYTES:
                size = 0
                await asyncio.sleep(0)
        datagrams.check()
    except asyncio.CancelledError:
        batch.ack(sent)
        raise
    except TooLargeError as error:
        batch.ack(sent)
        raise Reject(sent, str(error)) from error
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        batch.ack(sent)
        raise Reject(sent, f"its message of {len(piece)} bytes is larger than the socket takes") from error


def records_within(size: int, messages: Messages) -> int:
    """Return how many of a batch's records the first `size` bytes of its blocks hold whole."""
    count = 0
    for one in messages.sizes():
        size -= one
        if size < 0:
            return count
        count += 1
    return count
