"""Streams for protocols in which the receiver never says that it has got something.

The kernel knows what the peer's kernel has not acknowledged, or a local peer has not read: ioctl SIOCOUTQ, tcp(7) and
net/unix/af_unix.c. That is waited for, so that a reset loses nothing but what the peer had in its hands.
"""

import asyncio
import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

SHORTEST_POLL_S: Final = 0.0005
LONGEST_POLL_S: Final = 0.02
"""Half of the time by which Linux delays an acknowledgement that nothing else carries (TCP_DELACK_MIN)."""
CONNECT_TIMEOUT_S: Final = 10.0
PROBATION_S: Final = 0.1
"""So long, or two round trips if those are longer, a server has to turn a new connection down after it was accepted:
a proxy with nothing behind it, a server that refuses a client's certificate (TLS 1.3 says so after the handshake)."""
WRITE_BYTES: Final = 1 << 20
TLS_WRITE_BYTES: Final = 1 << 14
"""A TLS record."""
TCP_OPTIONS: Final = {
    socket.TCP_NODELAY: 1,
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 60_000,  # milliseconds; longer than delivery's deadline, which keeps what was confirmed
}
"""A dead peer is noticed after 35 seconds although nothing is sent."""
NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Link:
    """A connected socket. Whoever sends holds `turn` until all of a batch is sent."""

    def __init__(self, connected: socket.socket) -> None:
        self.turn = asyncio.Lock()
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self.error = ""
        """Why it is of no more use."""
        self._gone: asyncio.Future[None] = self._loop.create_future()

    def close(self) -> None:
        """Close, and have whoever waits for the socket fail."""
        if self._socket.fileno() >= 0:
            self._fail("closed")
            self._loop.remove_writer(self._socket)
            self._socket.close()

    async def _writable(self) -> None:
        waiter = self._loop.create_future()
        self._loop.add_writer(self._socket, settle, waiter)
        try:
            await asyncio.wait((waiter, self._gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            if self._socket.fileno() >= 0:
                self._loop.remove_writer(self._socket)

    def _fail(self, reason: str) -> None:
        self.error = self.error or reason
        settle(self._gone)

    def _check(self) -> None:
        if self.error:
            raise ConnectionResetError(self.error)


class Stream(Link):
    """A stream, over TLS or not. After an error, or a write that was cancelled, it is of no more use."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self._write_bytes = TLS_WRITE_BYTES if isinstance(connected, ssl.SSLSocket) else WRITE_BYTES
        self._is_torn = False
        self.written = 0
        """How many bytes were handed to the kernel."""
        self._loop.add_reader(connected, self._hear)

    async def probation(self, seconds: float) -> None:
        """Give the peer time to close a connection that it does not want. Raises ConnectionError if it did."""
        await asyncio.wait((self._gone,), timeout=seconds)
        if self.error:
            raise ConnectionResetError(f"{self.error}, right after the connection was made")

    async def write(self, data: bytes) -> None:
        """Hand all of it to the kernel."""
        self._check()
        if self._is_torn:
            raise ConnectionAbortedError("the connection ends in the middle of a message")
        self._is_torn = True
        view = memoryview(data)
        while view:
            try:
                sent = self._socket.send(view[: self._write_bytes])
            except NOT_NOW:
                await self._writable()
            except OSError as error:
                self._fail(words(error))
            else:
                self.written += sent
                view = view[sent:]
            self._check()
        self._is_torn = False

    async def confirm(self, end: int) -> None:
        """Wait until the peer has what was written up to `end`. Raises ConnectionError if it is gone before."""
        wait_s = 0.0
        while self.confirmed() < end:
            await asyncio.sleep(wait_s)
            wait_s = min(max(2 * wait_s, SHORTEST_POLL_S), LONGEST_POLL_S)

    def confirmed(self) -> int:
        """Return up to where the peer has what was written, at least. Raises ConnectionError if it is gone.

        Over TLS the kernel counts more bytes than were written, a unix socket counts the memory that they take: what it
        says is unconfirmed is never too little.
        """
        self._check()
        unconfirmed = queued(self._socket)
        self._hear()  # after the count: what a local peer had not read when it died counts for read
        self._check()
        return self.written - unconfirmed

    def close(self) -> None:
        """Close, and have whoever waits for the stream fail."""
        if not self.error and isinstance(self._socket, ssl.SSLSocket):
            self._hear()  # a kernel that is left with something unread sends a reset
            with suppress(OSError, ValueError):
                self._socket.unwrap()
        super().close()

    def _hear(self) -> None:
        """Learn of the peer's end. What it says is of no interest."""
        try:
            if not self._socket.recv(4096):
                self._fail("closed by the server")
        except NOT_NOW:
            pass
        except OSError as error:
            self._fail(words(error))

    def _fail(self, reason: str) -> None:
        if not self.error:
            self._loop.remove_reader(self._socket)
        super()._fail(reason)


async def resolve(host: str, port: int, kind: socket.SocketKind) -> list[tuple[socket.AddressFamily, Any]]:
    """Return the addresses of a host by their families."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)
    return [(family, address) for family, _, _, _, address in found]


async def connect_tcp(host: str, port: int, tls: ssl.SSLContext | None, server_name: str = "") -> Stream:
    """Return a connection to the first address of the host that takes it. Raises OSError, with words about TLS.

    A certificate must be for `server_name`, or else for the host.
    """
    error: OSError = ConnectionError("no address")
    for family, address in await resolve(host, port, socket.SOCK_STREAM):
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                began = time.monotonic()
                connected = await connect(family, socket.SOCK_STREAM, address)
                round_trip_s = time.monotonic() - began
                stream = Stream(await _handshake(connected, tls, server_name or host) if tls else connected)
        except TimeoutError:
            error = TimeoutError(f"no connection within {CONNECT_TIMEOUT_S:.0f} s")
        except OSError as failure:
            error = failure
        else:
            try:
                await stream.probation(max(PROBATION_S, 2 * round_trip_s))
            except BaseException:
                stream.close()
                raise
            return stream
    raise error


async def connect_unix(path: str) -> Stream:
    """Return a connection to a unix socket."""
    return Stream(await connect(socket.AF_UNIX, socket.SOCK_STREAM, path))


async def connect(family: socket.AddressFamily, kind: socket.SocketKind, address: Any) -> socket.socket:
    """Return a connected socket that does not block."""
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        if family != socket.AF_UNIX and kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in TCP_OPTIONS.items():
                made.setsockopt(socket.IPPROTO_TCP, option, value)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


async def _handshake(connected: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    loop = asyncio.get_running_loop()
    try:
        wrapped = tls.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        connected.close()
        raise
    try:
        while True:
            try:
                wrapped.do_handshake()
            except ssl.SSLWantReadError:
                await ready(wrapped, loop.add_reader, loop.remove_reader)
            except ssl.SSLWantWriteError:
                await ready(wrapped, loop.add_writer, loop.remove_writer)
            except OSError as error:
                raise ConnectionError(f"TLS handshake: {words(error)}") from error
            else:
                return wrapped
    except BaseException:
        wrapped.close()
        raise


async def ready(which: socket.socket, watch: Callable[..., None], unwatch: Callable[[socket.socket], object]) -> None:
    """Wait for a socket with the loop's add_reader and remove_reader, or those of a writer."""
    waiter = asyncio.get_running_loop().create_future()
    watch(which, settle, waiter)
    try:
        await waiter
    finally:
        if which.fileno() >= 0:
            unwatch(which)


def settle(future: "asyncio.Future[None]") -> None:
    """Have whoever awaits it go on."""
    if not future.done():
        future.set_result(None)


def queued(which: socket.socket) -> int:
    """Return how many bytes of a stream the peer has not acknowledged, or a local peer has not read."""
    count: int
    (count,) = struct.unpack("i", fcntl.ioctl(which, termios.TIOCOUTQ, b"\0" * 4))  # SIOCOUTQ is the same number
    return count


def words(error: OSError) -> str:
    """Say what went wrong, for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "closed by the server"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__
