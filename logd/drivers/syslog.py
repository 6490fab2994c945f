"""syslog log driver: to the local system's log, or to a server over UDP, TCP or TLS.

Sources: Docker's syslog driver (options, addresses, wire format), RFC 5424, RFC 5425, RFC 5426, RFC 6587, RFC 3164.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field with names for its metadata)

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final
from urllib.parse import unquote, urlsplit

from logd import units
from logd.batch import Group
from logd.driver import Batch, CommonOptions, boolean, one_of, opt, text
from logd.drivers.datagrams import Datagrams, connect_unixgram
from logd.drivers.links import Stream, connect_tcp, connect_unix
from logd.drivers.syslog_format import FACILITIES, FORMATS, SMALLEST_MESSAGE, Formatter, Framing, word
from logd.drivers.unacknowledged import DEFAULT_RATE, UnacknowledgedDriver, parse_rate
from logd.hookspecs import hookimpl

SCHEMES: Final = ("unix", "unixgram", "udp", "tcp", "tcp+tls")
STREAMS: Final = ("unix", "tcp", "tcp+tls")
DEFAULT_PORT: Final = 514
LOCAL_PATHS: Final = ("/dev/log", "/var/run/syslog", "/var/run/log")
"""Where Docker looks for the local system's log, first for sockets of datagrams, then for streams."""
LONGEST_PATH: Final = 107
"""unix(7): sun_path."""
DEFAULT_MESSAGE_BYTES: Final = 8096
"""What rsyslog takes unless told otherwise (maxMessageSize; its manual says 8k). The rest of a longer message it cuts
off, or takes it for messages of their own, which the container then has forged."""
LARGEST_MESSAGE: Final = 64 << 20
LARGEST_DATAGRAM: Final = 65507
"""UDP over IPv4."""


@dataclass(frozen=True)
class Address:
    """Where the messages go."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """Return it as it is written in syslog-address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{self.path or f'{host}:{self.port}'}"


def parse_address(value: str) -> Address | None:
    """Parse `scheme://host:port` or `scheme:///path`; empty text is the local system's log."""
    if not value:
        return None
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(f"{value!r}: invalid control character in URL")
    url = urlsplit(value)
    if url.scheme in {"unix", "unixgram"}:
        path = unquote(url.path)
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise ValueError(f"{value!r}: a socket's path has at most {LONGEST_PATH} bytes")
        return Address(url.scheme, path=path)
    if url.scheme not in SCHEMES:
        raise ValueError(f"unsupported scheme: '{url.scheme}' (supported: {', '.join(SCHEMES)})")
    try:
        port = DEFAULT_PORT if url.port is None else url.port
    except ValueError as error:
        raise ValueError(f"{value!r}: invalid port ({error})") from error
    return Address(url.scheme, url.hostname or "localhost", port)


def parse_facility(value: str) -> int:
    """Parse a facility's name or number."""
    if value in FACILITIES:
        return FACILITIES[value]
    if value and not re.fullmatch(r"\+?0*(\d|1\d|2[0-3])", value, re.ASCII):
        raise ValueError(f"invalid syslog facility {value!r} (accepted: 0 to 23, {', '.join(FACILITIES)})")
    return int(value) if value else FACILITIES["daemon"]


def parse_format(value: str) -> str:
    """Parse the name of a format."""
    if value not in FORMATS:
        raise ValueError(
            f"invalid syslog format {value!r} (accepted: {', '.join(one or repr(one) for one in FORMATS)})"
        )
    return value


def parse_message_size(value: str) -> int:
    """Parse a size within bounds."""
    size = units.parse_ram_size(value)
    if not SMALLEST_MESSAGE <= size <= LARGEST_MESSAGE:
        raise ValueError(f"{value!r} is not from {SMALLEST_MESSAGE} bytes to 64m")
    return size


@dataclass(frozen=True, kw_only=True)
class SyslogOptions(CommonOptions):
    """The log-opts."""

    syslog_address: Address | None = opt(
        parse_address, default=None, help="unix, unixgram, udp, tcp or tcp+tls://…; without it the local system's log"
    )
    syslog_facility: int = opt(parse_facility, default=FACILITIES["daemon"], help="by name or number")
    syslog_format: str = opt(parse_format, default="", help="rfc3164, rfc5424 or rfc5424micro; else without host name")
    syslog_framing: str = opt(
        one_of("docker", "octet-counting", "newline"), default="docker", help="of a stream's messages (RFC 6587)"
    )
    syslog_max_message_size: int = opt(
        parse_message_size, default=DEFAULT_MESSAGE_BYTES, help="a line that does not fit is sent in several messages"
    )
    syslog_udp_rate: int = opt(
        parse_rate, default=DEFAULT_RATE, help="messages a second over UDP, so that a receiver keeps up; 0: no limit"
    )
    syslog_tls_ca_cert: str = opt(text, default="", help="file of certificates to trust besides the system's")
    syslog_tls_cert: str = opt(text, default="", help="file of the client's certificate")
    syslog_tls_key: str = opt(text, default="", help="file of its key")
    syslog_tls_skip_verify: bool = opt(boolean, default=False, help="trust any server; false means false")

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.syslog_framing != "docker" and self.scheme not in STREAMS:
            raise ValueError(
                f"syslog-framing: {self.syslog_framing!r} needs a syslog-address with one of {', '.join(STREAMS)}; "
                "a datagram is one message"
            )
        if self.scheme != "udp" and self.syslog_udp_rate != DEFAULT_RATE:
            raise ValueError(
                "syslog-udp-rate: needs a syslog-address with udp; elsewhere a receiver that is slow is waited for"
            )
        if self.scheme == "udp" and self.syslog_max_message_size > LARGEST_DATAGRAM:
            raise ValueError(f"syslog-max-message-size: a datagram takes {LARGEST_DATAGRAM} bytes")

    @property
    def scheme(self) -> str:
        """How the messages travel; empty for the local system's log."""
        return self.syslog_address.scheme if self.syslog_address else ""

    @property
    def framing(self) -> Framing:
        """Which framing is meant."""
        if self.syslog_framing == "docker":
            is_counted = self.scheme == "tcp+tls" and self.syslog_format.startswith("rfc5424")
            return Framing.COUNTED_NEWLINE if is_counted else Framing.NEWLINE
        return Framing(self.syslog_framing)

    def check_host(self) -> None:
        """Check that the socket is there, and the files of certificates are in order."""
        if self.syslog_address and self.scheme in {"unix", "unixgram"}:
            try:
                os.stat(self.syslog_address.path)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ValueError(f"syslog-address: stat {self.syslog_address.path}: {reason}") from error
        if self.scheme == "tcp+tls":
            tls_context(self)


def tls_context(options: SyslogOptions) -> ssl.SSLContext:
    """Return what a TLS connection needs. Raises ValueError about a file that can't be used."""
    context = ssl.create_default_context()
    if options.syslog_tls_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif options.syslog_tls_ca_cert:
        try:
            context.load_verify_locations(options.syslog_tls_ca_cert)
        except OSError as error:
            raise ValueError(
                f"syslog-tls-ca-cert: could not read CA certificate {options.syslog_tls_ca_cert!r}: {error}"
            ) from error
    cert, key = options.syslog_tls_cert, options.syslog_tls_key
    if cert or key:
        try:
            context.load_cert_chain(cert, key, password=b"")  # else it is asked for at the terminal
        except OSError as error:
            raise ValueError(
                f"syslog-tls-cert, syslog-tls-key: could not load X509 key pair {cert!r}, {key!r}: {error} "
                "(make sure the key is not encrypted)"
            ) from error
    return context


@dataclass(frozen=True)
class SyslogMessages:
    """A batch as syslog messages: see unacknowledged.Messages."""

    formatter: Formatter
    groups: Sequence[Group]
    tag: bytes

    def blocks(self) -> Iterator[bytes]:
        """Give the framed messages, many at a time."""
        return self.formatter.chunks(self.groups, self.tag)

    def sizes(self) -> Iterator[int]:
        """Give for each record the size of its messages."""
        return (sum(map(len, messages)) for messages in self.datagrams())

    def datagrams(self) -> Iterator[Sequence[bytes]]:
        """Give for each record its messages: one, more of an over-long line."""
        return chain.from_iterable(self.formatter.messages(group, self.tag) for group in self.groups)


class SyslogDriver(UnacknowledgedDriver[SyslogOptions]):
    """One connection for all containers that send there."""

    name = "syslog"
    options_type = SyslogOptions

    def __init__(self, options: SyslogOptions) -> None:
        where = f"syslog at {options.syslog_address or 'the local socket'}"
        super().__init__(options, where, options.syslog_udp_rate if options.scheme == "udp" else 0)
        self._formatter: Formatter | None = None

    async def open(self) -> None:
        """Connect. Raises OSError that names the address."""
        options = self.options
        hostname = word(socket.gethostname(), "localhost")
        self._formatter = Formatter(
            options.syslog_format,
            options.framing,
            options.syslog_facility,
            hostname,
            os.getpid(),
            options.syslog_max_message_size,
        )
        await super().open()

    def _encode(self, batch: Batch) -> SyslogMessages:
        assert self._formatter
        return SyslogMessages(self._formatter, batch.groups, word(self.tag(batch.container), "logd"))

    async def _connect(self) -> Stream | Datagrams:
        address, options = self.options.syslog_address, self.options
        if address is None:
            return await _connect_local()
        if address.scheme == "udp":
            return await self._connect_udp(address.host, address.port)
        if address.scheme == "tcp":
            return await connect_tcp(address.host, address.port, None)
        if address.scheme == "tcp+tls":
            unsafe = "syslog-tls-skip-verify" if options.syslog_tls_skip_verify else ""
            return await self._connect_tls(address.host, address.port, partial(tls_context, options), unsafe=unsafe)
        try:
            return await (connect_unixgram if address.scheme == "unixgram" else connect_unix)(address.path)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            raise ConnectionError(f"{error.strerror} (unix:// is for streams, unixgram:// for datagrams)") from error


async def _connect_local() -> Stream | Datagrams:
    for connect in (connect_unixgram, connect_unix):
        for path in LOCAL_PATHS:
            with suppress(OSError):
                return await connect(path)
    raise ConnectionError(f"Unix syslog delivery error: nobody listens at {', '.join(LOCAL_PATHS)}")


@hookimpl
def logd_log_drivers() -> list[type[SyslogDriver]]:
    """The drivers of this module."""
    return [SyslogDriver]
