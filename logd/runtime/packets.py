"""A packet of bytes with descriptors beside it, on a SOCK_SEQPACKET unix socket (unix(7), SCM_RIGHTS).

`socket.SocketType` is the socket of the C module: what `socket.socket` adds to it in Python costs every shim memory.
"""

from _socket import MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET, SocketType  # socket's constants are enums
from array import array
from collections.abc import Sequence
from typing import Final

MAX_BYTES: Final = 256 << 10
MAX_DESCRIPTORS: Final = 16
ROOM: Final = 16 + 4 * MAX_DESCRIPTORS
"""CMSG_SPACE of that many."""


def send(connection: SocketType, raw: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a packet. Raises OSError (BlockingIOError where the socket is non-blocking and full)."""
    if descriptors:
        connection.sendmsg([raw], [(SOL_SOCKET, SCM_RIGHTS, array("i", descriptors))])
    else:
        connection.send(raw)


def receive(connection: SocketType, max_bytes: int = MAX_BYTES) -> tuple[bytes, list[int]]:
    """Receive a packet and its descriptors (close-on-exec, the caller's to close); b"" at the connection's end.

    A peer that ends with a packet of ours unread is told of first, once, as a reset; what it sent before lies behind.
    """
    try:
        raw, ancillary, _, _ = connection.recvmsg(max_bytes, ROOM, MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        raw, ancillary, _, _ = connection.recvmsg(max_bytes, ROOM, MSG_CMSG_CLOEXEC)
    if not ancillary:
        return raw, []
    descriptors = array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    return raw, descriptors.tolist()
