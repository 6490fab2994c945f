"""Datagrams, of which nothing is known once they are sent: spaced, so that a receiver has the room for them.

A receiver's socket holds net.core.rmem_default bytes (212,992) unless it asked for more, and drops what comes beyond
them without a word: socket(7), udp(7). Unix sockets have a sender wait instead: unix(7).
"""

import asyncio
import errno
import os
import socket
import time
from contextlib import suppress
from typing import Final

from logd.drivers.links import Link, connect, resolve

RESOLVE_TIMEOUT_S: Final = 2.0
NO_BUFFERS_WAIT_S: Final = 0.005
DEFAULT_RATE: Final = 10_000
"""Datagrams a second, of which a long one counts as several. A default buffer holds all that comes while its reader is
away for 10 ms, bursts included. rsyslogd with one loses up to four fifths of what is sent as fast as can be."""
UNIT_BYTES: Final = 1024
"""Of a receiver's buffer: so much of it counts as one datagram, and a smaller one counts as one, too."""
LARGEST_BURST: Final = 48
"""A quarter of a receiver's default buffer. Bursts of half of it lost some datagrams of 8 kB."""
BURST_S: Final = 0.01
"""A burst has at most what may be sent in this time."""
SHORTEST_PAUSE_S: Final = 0.0005


class Pace:
    """Says how long to wait before each datagram: after a burst, as long as the rate asks for and a moment at least."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._most = min(rate * BURST_S, LARGEST_BURST)
        self._burst = 0.0
        self._due = 0.0
        """When what was sent so far may have been sent; what a pause was too long is made up for."""

    def pause(self, size: int) -> float:
        """Return the seconds to wait before a datagram of `size` bytes."""
        weight = max(1.0, kernel_bytes(size) / UNIT_BYTES)
        if self._burst + weight <= self._most:
            self._burst += weight
            return 0.0
        now = time.monotonic()
        self._due = max(self._due + self._burst / self._rate, now)
        self._burst = weight
        return max(self._due - now, SHORTEST_PAUSE_S)


def kernel_bytes(size: int) -> int:
    """Return about how much of a receiver's buffer a datagram takes, by what Linux allocates (skbuff.h, SKB_TRUESIZE).

    Headers and data, with notes of their own behind them, in a power of two; and a struct sk_buff.
    """
    return (1 << (size + 400).bit_length()) + 256


class Datagrams(Link):
    """A way to send datagrams."""

    def __init__(self, connected: socket.socket, pace: Pace | None = None) -> None:
        super().__init__(connected)
        self.peer: object = connected.getpeername()
        self._pace = pace

    async def send(self, data: bytes) -> None:
        """Send, as soon as there is room for it in the kernel. Raises OSError, with EMSGSIZE of what is too large."""
        if self._pace and (pause_s := self._pace.pause(len(data))):
            await asyncio.sleep(pause_s)
        while True:
            self._check()
            try:
                self._socket.send(data)
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                await asyncio.sleep(NO_BUFFERS_WAIT_S)  # nobody tells when there are some again
            else:
                return

    def check(self) -> None:
        """Raise what has become known of datagrams sent before: that nobody listens there."""
        self._check()
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    async def has_moved(self, host: str, port: int) -> bool:
        """Tell whether a host has other addresses now. One that can't be resolved at present may have been right."""
        with suppress(OSError):
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                found = await resolve(host, port, socket.SOCK_DGRAM)
            return self.peer not in [address for _, address in found]
        return False


async def connect_udp(host: str, port: int, rate: int) -> Datagrams:
    """Return a socket to the first address of the host that there is a way to. `rate` a second, 0 for any number."""
    error: OSError = ConnectionError("no address")
    for family, address in await resolve(host, port, socket.SOCK_DGRAM):
        try:
            return Datagrams(await connect(family, socket.SOCK_DGRAM, address), Pace(rate) if rate else None)
        except OSError as failure:
            error = failure
    raise error


async def connect_unixgram(path: str) -> Datagrams:
    """Return a connection to a unix socket for datagrams."""
    return Datagrams(await connect(socket.AF_UNIX, socket.SOCK_DGRAM, path))
