"""One connection to a server of the Fluent forward protocol: handshake, messages on their way, acknowledgements.

Messages of several senders are on their way at a time; an acknowledgement belongs to the message whose chunk it names,
and one that names none has no effect. Servers answer in the order in which messages reach them, so the wait for an
answer is timed from when a message became the first unanswered one: many messages on a slow line are no failure.

Source: Fluent Forward Protocol Specification v1.5; tcp(7) and socket(7) for the options.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from typing import Any, Final, cast

from logd.drivers import forward_protocol as protocol
from logd.drivers.forward_address import Address

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
"""For the name, the connection, TLS and the handshake."""
CLOSE_TIMEOUT_S: Final = 1.0
"""How long a close may be under way (TLS says goodbye)."""
MAX_ANSWER_BYTES: Final = 64 * 1024
"""An acknowledgement has 50 bytes, a HELO 100."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""A server whose machine is gone is noticed after a minute without traffic."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class ForwardConnection(asyncio.Protocol):
    """Made by `connect`. All of it runs in one event loop."""

    def __init__(self, address: Address, answer_timeout_s: float, handshake: protocol.Handshake | None) -> None:
        self.address = address
        self.blamed = False
        """A mark for the owner: that it has drawn its conclusions from the failure."""
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.opened_at = self._loop.time()
        self._answer_timeout_s = answer_timeout_s
        self._handshake = handshake
        self._answers_expected = [self._helo, self._pong] if handshake else []
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._unpacker = protocol.unpacker(MAX_ANSWER_BYTES)
        self._writing = asyncio.Lock()
        self._drained = asyncio.Event()
        self._drained.set()
        self._unacknowledged: dict[bytes, asyncio.Future[None]] = {}
        self._sent: dict[bytes, None] = {}
        """Those of them that the kernel has taken whole, in their order."""
        self._silence: asyncio.TimerHandle | None = None
        self._failure: OSError | None = None
        self._retired = False
        self._strange = 0

    @property
    def lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._failure is not None

    @property
    def keepalive(self) -> bool:
        """Whether the server lets the connection be used for more than one message."""
        return self._handshake is None or self._handshake.keepalive

    async def ready(self) -> None:
        """Return once messages may be sent."""
        await self._ready

    async def send(self, message: bytes, chunk: str | None, timeout_s: float) -> "asyncio.Future[None] | None":
        """Give a message to the kernel; with a chunk's id return what is done when the chunk is acknowledged.

        Raises OSError, TimeoutError if the kernel does not take all of it within `timeout_s` (0: no limit).
        """
        async with self._writing:
            self._check()
            key, acknowledged = b"", None
            if chunk is not None:
                key, acknowledged = chunk.encode(), self._loop.create_future()
                while (same := self._unacknowledged.get(key)) is not None and not same.done():
                    await asyncio.wait([same])  # two routes of one container that lead here
                    self._check()
                acknowledged.add_done_callback(_look_at_exception)
                self._unacknowledged[key] = acknowledged  # before it is sent: the answer may come at once
            self._transport.write(message)
            try:
                async with asyncio.timeout(timeout_s or None):
                    await self._drained.wait()
                self._check()
            except TimeoutError:
                self._fail(TimeoutError(f"nothing was read for {timeout_s:g} s (fluentd-write-timeout)"))
                self._check()
            except BaseException:
                self._unacknowledged.pop(key, None)
                raise
            if key in self._unacknowledged:
                self._sent[key] = None
                if self._silence is None:
                    self._listen()
            return acknowledged

    def retire(self) -> None:
        """Close the connection as soon as nothing is unacknowledged. Nothing may be sent any more."""
        self._retired = True
        if not self._unacknowledged:
            self._transport.close()

    async def close(self) -> None:
        """Close the connection at once. Never raises OSError."""
        if self._unacknowledged:  # it will all be sent again: what the kernel still has of it is not worth sending
            self._fail(ConnectionAbortedError("the connection was given up"))
        else:
            self._fail(ConnectionAbortedError("the connection was closed"), abort=False)
            self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.closed.wait()
        except TimeoutError:
            log.debug("%s: the close took too long", self.address)
        finally:
            _abort(self._transport)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have `send` wait until the kernel has taken everything."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1, low=0)
        own = transport.get_extra_info("socket")
        if own is not None and own.family != socket.AF_UNIX:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                own.setsockopt(socket.IPPROTO_TCP, option, value)
        if self._handshake is None:
            self._ready.set_result(None)

    def pause_writing(self) -> None:
        """Note that the kernel has not taken everything."""
        self._drained.clear()

    def resume_writing(self) -> None:
        """Note that the kernel has taken everything."""
        self._drained.set()

    def data_received(self, data: bytes) -> None:
        """Take in what the server says."""
        if self._failure is not None:
            return
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                self._receive(message)
        except protocol.ProtocolError as error:
            self._fail(error)
        except protocol.UNPACK_ERRORS as error:
            self._fail(protocol.ProtocolError(f"what the server says is no msgpack ({type(error).__name__})"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, whoever has caused it."""
        if isinstance(exc, OSError):
            self._fail(exc)
        else:
            self._fail(ConnectionResetError("closed by the server"))
        self.closed.set()

    # What follows from it.

    def _receive(self, message: Any) -> None:
        if self._answers_expected:
            self._answers_expected.pop(0)(message)
            return
        chunk = protocol.acknowledged(message)
        if chunk is None:
            if protocol.is_helo(message):
                raise protocol.ProtocolError("the server asks for a shared key (fluentd-shared-key)")
            self._wonder("says what is no acknowledgement")
            return
        acknowledged = self._unacknowledged.pop(chunk, None)
        if acknowledged is None:
            self._wonder("acknowledges what is not on its way, or was acknowledged already")
            return
        if not acknowledged.done():
            acknowledged.set_result(None)
        was_first = chunk == next(iter(self._sent), None)
        self._sent.pop(chunk, None)
        if was_first:
            self._listen()
        if self._retired and not self._unacknowledged:
            self._transport.close()

    def _helo(self, message: Any) -> None:
        assert self._handshake is not None
        self._transport.write(self._handshake.ping(message))

    def _pong(self, message: Any) -> None:
        assert self._handshake is not None
        self._handshake.check_pong(message)
        if not self._ready.done():
            self._ready.set_result(None)

    def _wonder(self, what: str) -> None:
        """Tell once of a strange answer."""
        self._strange += 1
        if self._strange == 1:
            log.warning("%s %s; more of it is not told", self.address, what)

    def _listen(self) -> None:
        """Wait anew, for the first message that is not acknowledged."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if self._sent:
            self._silence = self._loop.call_later(self._answer_timeout_s, self._silent)

    def _silent(self) -> None:
        self._fail(TimeoutError(f"no acknowledgement for {self._answer_timeout_s:g} s"))

    def _fail(self, failure: OSError, *, abort: bool = True) -> None:
        """End the connection; whoever waits for something of it hears why. Only the first failure counts."""
        if self._failure is not None:
            return
        self._failure = failure
        if self._silence is not None:
            self._silence.cancel()
        for waiting in (self._ready, *self._unacknowledged.values()):
            if not waiting.done():
                waiting.set_exception(self._lost())
        _look_at_exception(self._ready)
        self._drained.set()
        if abort:
            self._reset()

    def _reset(self) -> None:
        """Let go of what the kernel still has to send, if it will be sent again anyway."""
        own = self._transport.get_extra_info("socket")
        if self._unacknowledged and own is not None and own.family != socket.AF_UNIX and own.fileno() >= 0:
            with contextlib.suppress(OSError):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._unacknowledged.clear()
        self._sent.clear()
        _abort(self._transport)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._lost()

    def _lost(self) -> OSError:
        kind = TimeoutError if isinstance(self._failure, TimeoutError) else ConnectionError
        error = kind(f"{self.address}: {self._failure}")
        error.__cause__ = self._failure
        return error


async def connect(
    address: Address,
    *,
    tls: ssl.SSLContext | None,
    server_name: str,
    answer_timeout_s: float,
    credentials: protocol.Credentials | None,
) -> ForwardConnection:
    """Return a connection over which messages may be sent. Raises OSError.

    `tls` is for addresses with that scheme; the certificate must be for `server_name`, or else for the address's host.
    """
    loop = asyncio.get_running_loop()
    connection = ForwardConnection(address, answer_timeout_s, protocol.Handshake(credentials) if credentials else None)
    transport: asyncio.BaseTransport | None = None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if address.scheme == "unix":
                transport, _ = await loop.create_unix_connection(lambda: connection, address.path)
            elif address.scheme == "tls":
                transport, _ = await loop.create_connection(
                    lambda: connection, address.host, address.port, ssl=tls, server_hostname=server_name or address.host
                )
            else:
                transport, _ = await loop.create_connection(lambda: connection, address.host, address.port)
            await connection.ready()
    except BaseException as error:
        if isinstance(transport, asyncio.Transport):
            _abort(transport)
        if isinstance(error, TimeoutError) and not str(error):
            what = "connection" if transport is None else "HELO and PONG (does the server ask for a shared key?)"
            raise TimeoutError(f"{address}: no {what} within {CONNECT_TIMEOUT_S:g} s") from error
        raise
    return connection


def _look_at_exception(future: "asyncio.Future[None]") -> None:
    """Keep asyncio from complaining that nobody has asked for a failure: whoever waited may have been cancelled."""
    if future.done() and not future.cancelled():
        future.exception()


def _abort(transport: asyncio.Transport) -> None:
    """Close a transport at once, or see that it is closed: for that CPython 3.11.2 has an AttributeError with TLS."""
    with contextlib.suppress(AttributeError):
        transport.abort()
