"""Netlink's framing: messages of a header and attributes, several in one datagram, each answered by itself.

Source: netlink(7); linux/netlink.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
ATTRIBUTE: Final = struct.Struct("=HH")
"""nlattr: length, type."""
ERROR_CODE: Final = struct.Struct("=i")
ALIGNMENT: Final = 4
TYPE_MASK: Final = 0x3FFF
"""Of an attribute's type; the two bits above are flags."""
MAX_BYTES: Final = 1 << 16
TIMEOUT_S: Final = 30
"""The kernel answers as soon as it has done what was asked; on a loaded host that takes a while."""

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
EXCL: Final = 0x200
CREATE: Final = 0x400


class NetlinkError(OSError):
    """The kernel refuses what was asked."""


class Request(NamedTuple):
    """A message to the kernel. `body` is the family's own header and attributes; `tolerated` error numbers are fine."""

    kind: int
    body: bytes
    flags: int = 0
    tolerated: tuple[int, ...] = ()


class Connection:
    """A socket in the namespace that its maker's thread is in; not for several threads at once."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(TIMEOUT_S)
        self._sequence = 0

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def do(self, requests: Sequence[Request]) -> None:
        """Have all done, in this order, with one call; the first refusal is raised once all were answered."""
        if not requests:
            return
        asked: dict[int, Request] = {}
        for one in requests:
            self._sequence += 1
            asked[self._sequence] = one
        self._socket.send(
            b"".join(message(one.kind, one.flags | REQUEST | ACK, number, one.body) for number, one in asked.items())
        )
        refusals = []
        while asked:
            for kind, number, body in messages(self._receive()):
                if kind == NLMSG_ERROR and number in asked:
                    code, tolerated = -ERROR_CODE.unpack_from(body)[0], asked.pop(number).tolerated
                    if code and code not in tolerated:
                        refusals.append(code)
        if refusals:
            raise NetlinkError(refusals[0], os.strerror(refusals[0]))

    def get(self, request: Request) -> list[bytes]:
        """Return the bodies of the answers, of all objects with the flag DUMP. Raises NetlinkError."""
        self._sequence += 1
        self._socket.send(message(request.kind, request.flags | REQUEST | ACK, self._sequence, request.body))
        found = []
        while True:
            for kind, number, body in messages(self._receive()):
                if number != self._sequence:
                    continue
                if kind not in {NLMSG_ERROR, NLMSG_DONE}:
                    found.append(body)
                    continue
                code = -ERROR_CODE.unpack_from(body)[0] if kind == NLMSG_ERROR else 0
                if code and code not in request.tolerated:
                    raise NetlinkError(code, os.strerror(code))
                return found

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(MAX_BYTES)
        except TimeoutError as error:
            raise NetlinkError(errno.ETIMEDOUT, "the kernel does not answer") from error


def message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    """Return one message of a datagram."""
    return _padded(HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Give the messages of a datagram: type, sequence number, what follows the header."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, number, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield kind, number, data[at + HEADER.size : at + length]
        at += _aligned(length)


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute."""
    return _padded(ATTRIBUTE.pack(ATTRIBUTE.size + len(payload), kind) + payload)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes that follow each other in `data`, by type."""
    at, found = 0, {}
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & TYPE_MASK] = data[at + ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")


def _aligned(length: int) -> int:
    return (length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
