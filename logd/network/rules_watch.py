"""Notices that another program has taken rules of our table away: `nft flush ruleset`, a firewall that is reloaded.

The kernel tells of every change of nftables, in the order in which they happen, to whoever has joined a netlink group;
without changes there is nothing to do. A transaction of ours deletes the table before it makes it anew, so what counts
is whether the table was made after the last that was taken from it.

Source: netlink(7); linux/netfilter/nfnetlink.h, nf_tables.h: NFNLGRP_NFTABLES, nfgenmsg, nft_set_elem_list_attributes.
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from logd.network.netlink import MAX_BYTES, attributes, messages

log = logging.getLogger(__name__)

NETLINK_NETFILTER: Final = 12
GROUP: Final = 7
"""NFNLGRP_NFTABLES."""
SUBSYSTEM: Final = 10
"""NFNL_SUBSYS_NFTABLES, the upper byte of a message's type."""
NEW_TABLE: Final = 0
TAKEN: Final = frozenset((2, 5, 8, 11, 14))
"""DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM."""
FAMILY_INET: Final = 1
TABLE_NAME: Final = 1
"""The attribute of all of these messages that names the table."""
GENERIC: Final = struct.Struct("=BBH")
"""nfgenmsg: family, version, resource."""
AT_ONCE: Final = 64
CALM_S: Final = 0.2
"""A program that changes rules has mostly not done so with one transaction."""
PAUSE_S: Final = 1.0
"""Between two repairs: somebody may be determined."""


class RulesWatch:
    """Calls `taken` once rules of a table have gone, until it is closed. Raises OSError where the kernel refuses."""

    def __init__(self, table: str, taken: Callable[[], None]) -> None:
        self._table = table.encode()
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._told = -PAUSE_S
        self._whole = True
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << (GROUP - 1)))
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Watch no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data = self._socket.recv(MAX_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._whole = False  # some messages were lost, and nobody knows which
                continue
            self._whole = whole_after(data, self._table, whole=self._whole)
        if not self._whole and self._timer is None:
            now = self._loop.time()
            self._timer = self._loop.call_at(max(now + CALM_S, self._told + PAUSE_S), self._tell)

    def _tell(self) -> None:
        self._timer = None
        if not self._whole:
            self._whole, self._told = True, self._loop.time()
            self._taken()


def whole_after(data: bytes, table: bytes, *, whole: bool) -> bool:
    """Tell whether nothing was taken from a table of the family inet, after what the kernel says in `data`."""
    for kind, name in _messages(data):
        if name == table:
            if kind == NEW_TABLE:
                whole = True
            elif kind in TAKEN:
                whole = False
    return whole


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the kind of each message about the family inet, and the table that it names."""
    for kind, _, body in messages(data):
        if kind >> 8 == SUBSYSTEM and body[:1] == bytes((FAMILY_INET,)):
            yield kind & 0xFF, attributes(body[GENERIC.size :]).get(TABLE_NAME, b"").rstrip(b"\0")
