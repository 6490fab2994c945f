"""Who may ask what: web pages nothing, the read-only socket what viewers may, each peer so many connections.

- A browser says so, by Origin or Sec-Fetch-Site, when a page of another site asks: refused on every socket. No other
  client sends them.
- Over TCP the Host has to be an address, or a name of this host: a page whose name is made to resolve to this host
  (DNS rebinding) has another one. A unix socket can't be reached so, and clients write there what they like.
- A peer is a user (of a unix socket's other end) or an address. One that opens connections without end gets in nobody
  else's way: beyond its share each connection is answered 503, and beyond twice that cut at once.

Source: unix(7), SO_PEERCRED; Fetch standard (Origin, Sec-Fetch-Site); RFC 9110 section 7.2 (Host).
"""

import asyncio
import ipaddress
import logging
import re
import resource
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from logd.config import DaemonConfig

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 4000
"""Of a peer, unless the setting says otherwise or half of the daemon's descriptors are fewer."""
OTHER_SITES: Final = frozenset(("cross-site", "same-site"))
CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""
SUBJECT_ALT_NAME: Final = bytes.fromhex("0603551d11")
"""The object identifier 2.5.29.17 in DER."""
DNS_NAME: Final = 0x82
"""GeneralName's [2], RFC 5280 section 4.2.1.6."""


class Entry(Enum):
    """What becomes of a new connection."""

    OPEN = "open"
    REFUSED = "refused"
    CUT = "cut"


class Access:
    """The rules of one daemon, and the connections that its peers have. Used in the event loop."""

    def __init__(self, config: "DaemonConfig | None" = None, viewer_sockets: Iterable[str] = ()) -> None:
        self._config = config
        self._viewer_sockets = frozenset(viewer_sockets)
        self._names: frozenset[str] = frozenset()
        self._peers: Counter[str] = Counter()
        self.tell_cut: Callable[[str], None] = lambda reason: None
        """Called with the reason when a connection is ended without an answer: too-many or slow-head."""
        self.renew()

    def renew(self) -> None:
        """Take the names of this host from the settings and the certificate, which were read anew (blocks)."""
        config = self._config
        names = {"localhost", socket.gethostname().lower()}
        if config is not None:
            names |= {host.removeprefix("tcp://").rpartition(":")[0].lower() for host in config.hosts}
            if config.tlscert:
                names |= certificate_names(config.tlscert)
        self._names = frozenset(names)

    @property
    def most_connections(self) -> int:
        """How many connections a peer may have."""
        if self._config is not None and self._config.max_connections:
            return self._config.max_connections
        return min(MOST_CONNECTIONS, max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))

    def enter(self, peer: str) -> Entry:
        """Count a new connection; `leave` has to follow in any case."""
        self._peers[peer] += 1
        count, most = self._peers[peer], self.most_connections
        if count <= most:
            return Entry.OPEN
        if count == most + 1:
            log.warning("%s has more than %d connections; further ones are refused", peer, most)
        return Entry.REFUSED if count <= 2 * most else Entry.CUT

    def leave(self, peer: str) -> None:
        """Forget a connection."""
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def is_viewer(self, transport: asyncio.BaseTransport | None) -> bool:
        """Tell whether a connection came by the read-only socket."""
        return transport is not None and transport.get_extra_info("sockname") in self._viewer_sockets

    def refusal(self, request: web.BaseRequest) -> str:
        """Return why a request is not answered, "" if it is: a web page has no business here."""
        if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site") in OTHER_SITES:
            return "requests of web pages are refused (Origin, Sec-Fetch-Site)"
        over_tcp = request.transport is not None and not is_unix(request.transport)
        host = request.headers.get("Host", "")
        if over_tcp and not self.names_this_host(host):
            return f"this daemon has no such name: {host[:200]!r} (use its address, or a name in its certificate)"
        return ""

    def names_this_host(self, host: str) -> bool:
        """Tell whether a Host header is an address, which no web page can have for its own name, or a name of ours."""
        name = (re.sub(r":[0-9]*$", "", host) if not host.endswith("]") else host).lower()
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return not name or name in self._names or f"*.{name.partition('.')[2]}" in self._names
        return True


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return who is at the other end: `uid 1000`, or an address."""
    if is_unix(transport):
        credentials = transport.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size
        )
        return f"uid {CREDENTIALS.unpack(credentials)[1]}"
    return str((transport.get_extra_info("peername") or ("a peer that has gone",))[0])


def is_unix(transport: asyncio.BaseTransport) -> bool:
    """Tell whether a connection is a unix socket's."""
    connection = transport.get_extra_info("socket")
    return connection is not None and connection.family == socket.AF_UNIX


def certificate_names(path: str) -> frozenset[str]:
    """Return the DNS names of the first certificate in a PEM file, none where it can't be read."""
    try:
        pem = re.search(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", Path(path).read_text("ascii"), re.S)
        der = ssl.PEM_cert_to_DER_cert(pem[0]) if pem else b""
        _, _, rest = der.partition(SUBJECT_ALT_NAME)
        kind, value, after = _take(rest)
        if kind == 0x01:  # whether it is critical
            kind, value, after = _take(after)
        _, names, _ = _take(value)
        found = set()
        while names:
            kind, value, names = _take(names)
            if kind == DNS_NAME:
                found.add(value.decode("ascii").lower())
        return frozenset(found)
    except (OSError, ValueError, IndexError) as error:
        log.debug("%s: no names: %s", path, error)
        return frozenset()


def _take(der: bytes) -> tuple[int, bytes, bytes]:
    """Split DER after its first element: (tag, value, what follows). Raises IndexError at the end."""
    tag, length, start = der[0], der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return tag, der[start : start + length], der[start + length :]
