"""gelf log driver: to Graylog, or whatever takes the Graylog Extended Log Format, over UDP, TCP or TLS.

Source: moby daemon/logger/gelf (options, with which words they are refused; fields) and go-gelf (compression, chunks).
`tls://` and the `gelf-tls-…` options are our own.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field with names for its metadata)

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from logd.batch import Group
from logd.driver import Batch, CommonOptions, ContainerInfo, boolean, opt, text
from logd.drivers.datagrams import Datagrams
from logd.drivers.gelf_format import END, GZIP, NONE, ZLIB, MessageFormat, Packing
from logd.drivers.links import Stream, connect_tcp
from logd.drivers.unacknowledged import DEFAULT_RATE, UnacknowledgedDriver, parse_rate
from logd.hookspecs import hookimpl

SCHEMES: Final = ("udp", "tcp", "tls")
BEST_SPEED: Final = 1
"""Go's flate.BestSpeed, go-gelf's default."""
UDP_RECORD_BYTES: Final = 16 << 10
"""Docker's largest line. Whatever is in it, and however it compresses, it fits 128 chunks with 80 kB of fields."""
TCP_RECORD_BYTES: Final = 256 << 10
"""Graylog's TCP input takes 2 MiB (max_message_size); as JSON a byte may become six."""
EMPTY: Final = "empty"
"""The reason by which lines are counted that are not sent."""


@dataclass(frozen=True)
class Address:
    """Where the messages go."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written in gelf-address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(value: str) -> Address:
    """Parse `udp://host:port`, `tcp://…` or `tls://…`."""
    if not value:
        raise ValueError("gelf-address is a required parameter")
    if re.search(r"[\x00-\x20\x7f]", value):
        raise ValueError(f"{value!r}: invalid character in URL")
    url = urlsplit(value)
    if url.scheme not in SCHEMES:
        raise ValueError(f"gelf: endpoint needs to be TCP or UDP (gelf-address {value!r}; {', '.join(SCHEMES)})")
    try:
        port = url.port
    except ValueError as error:
        raise ValueError(f"{value!r}: invalid port ({error})") from error
    if port is None:
        raise ValueError(f"gelf: please provide gelf-address as proto://host:port, not {value!r}")
    return Address(url.scheme, url.hostname or "localhost", port)


def parse_compression_type(value: str) -> str:
    """Parse the name of a compression."""
    if value not in {GZIP, ZLIB, NONE}:
        raise ValueError(
            f'unknown value "{value}" for log opt "gelf-compression-type" for gelf log driver '
            f"(accepted: {GZIP}, {ZLIB}, {NONE})"
        )
    return value


def parse_compression_level(value: str) -> int:
    """Parse a level of flate."""
    if not re.fullmatch(r"-0*1|[+-]?0+|\+?0*[1-9]", value, re.ASCII):
        raise ValueError(
            f'unknown value "{value}" for log opt "gelf-compression-level" for gelf log driver (accepted: -1 to 9)'
        )
    return int(value)


def parse_count(name: str) -> Callable[[str], int]:
    """Return the parser of a number that is not negative, with Docker's words."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"-0+|\+?\d{1,18}", value, re.ASCII):
            raise ValueError(f'"{name}" must be a positive integer, not {value!r}')
        return int(value)

    return parse


@dataclass(frozen=True, kw_only=True)
class GelfOptions(CommonOptions):
    """Docker's, then logd's own."""

    gelf_address: Address = opt(parse_address, help="udp://host:port, tcp://host:port or tls://host:port")
    gelf_compression_type: str | None = opt(
        parse_compression_type, default=None, help="with udp: gzip, zlib or none; unset: gzip"
    )
    gelf_compression_level: int | None = opt(
        parse_compression_level, default=None, help="with udp: -1 to 9, the larger the smaller; unset: 1"
    )
    gelf_udp_rate: int = opt(
        parse_rate, default=DEFAULT_RATE, help="datagrams a second over UDP, so that a receiver keeps up; 0: no limit"
    )
    gelf_tcp_max_reconnect: int | None = opt(
        parse_count("gelf-tcp-max-reconnect"), default=None, help="without effect: delivery never gives up"
    )
    gelf_tcp_reconnect_delay: int | None = opt(
        parse_count("gelf-tcp-reconnect-delay"), default=None, help="without effect: delivery waits by its own schedule"
    )
    gelf_tls_ca_cert: str = opt(text, default="", help="file of the authorities to trust; unset: the system's")
    gelf_tls_cert: str = opt(text, default="", help="file of the client's certificate")
    gelf_tls_key: str = opt(text, default="", help="file of its key, unless that is in it too")
    gelf_tls_server_name: str = opt(
        text, default="", help="whom the certificate must be for; unset: the address's host"
    )
    gelf_tls_skip_verify: bool = opt(boolean, default=False, help="take any certificate from anyone (unsafe)")

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        scheme = self.gelf_address.scheme
        if scheme != "udp" and (self.gelf_compression_type, self.gelf_compression_level) != (None, None):
            raise ValueError("gelf-compression-type, gelf-compression-level: compression is only supported on UDP")
        if scheme != "udp" and self.gelf_udp_rate != DEFAULT_RATE:
            raise ValueError("gelf-udp-rate is only valid for UDP")
        for name in ("gelf_tcp_max_reconnect", "gelf_tcp_reconnect_delay"):
            if scheme == "udp" and getattr(self, name) is not None:
                raise ValueError(f'"{name.replace("_", "-")}" is only valid for TCP')
        for name in ("ca_cert", "cert", "key", "server_name", "skip_verify"):
            if scheme != "tls" and getattr(self, f"gelf_tls_{name}"):
                raise ValueError(f"gelf-tls-{name.replace('_', '-')} is of use for a tls:// gelf-address only")
        if self.gelf_tls_key and not self.gelf_tls_cert:
            raise ValueError("gelf-tls-key needs gelf-tls-cert")

    @property
    def packing(self) -> Packing:
        """How a message becomes datagrams."""
        level = self.gelf_compression_level
        return Packing(self.gelf_compression_type or GZIP, BEST_SPEED if level is None else level)

    def check_host(self) -> None:
        """Check that the files of certificates are in order."""
        if self.gelf_address.scheme == "tls":
            tls_context(self)


def tls_context(options: GelfOptions) -> ssl.SSLContext:
    """Return what a TLS connection needs. Raises ValueError about a file that can't be used."""
    ca, cert, key = options.gelf_tls_ca_cert, options.gelf_tls_cert, options.gelf_tls_key
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise ValueError(f"gelf-tls-ca-cert: could not read CA certificate {ca!r}: {error}") from error
    if options.gelf_tls_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert:
        try:
            context.load_cert_chain(cert, key or None, password=b"")  # else it is asked for at the terminal
        except OSError as error:
            raise ValueError(
                f"gelf-tls-cert, gelf-tls-key: could not load X509 key pair {cert!r}, {key!r}: {error} "
                "(make sure the key is not encrypted)"
            ) from error
    return context


@dataclass(frozen=True)
class GelfMessages:
    """A batch as GELF messages: see unacknowledged.Messages. Of an empty line there is none."""

    form: MessageFormat
    packing: Packing
    groups: Sequence[Group]

    def blocks(self) -> Iterator[bytes]:
        """Give the messages, each with its end, many at a time."""
        return self.form.blocks(self.groups)

    def sizes(self) -> Iterator[int]:
        """Give for each record the size of its message."""
        return (len(message) + len(END) if message else 0 for message in self._messages())

    def datagrams(self) -> Iterator[Sequence[bytes]]:
        """Give for each record its datagram, or the chunks of a long message."""
        return (self.packing.datagrams(message) if message else () for message in self._messages())

    def _messages(self) -> Iterator[bytes]:
        return chain.from_iterable(map(self.form.messages, self.groups))


class GelfDriver(UnacknowledgedDriver[GelfOptions]):
    """One connection for all containers that send there."""

    name = "gelf"
    options_type = GelfOptions
    max_record_bytes = UDP_RECORD_BYTES

    def __init__(self, options: GelfOptions) -> None:
        address = options.gelf_address
        super().__init__(options, f"gelf at {address}", options.gelf_udp_rate if address.scheme == "udp" else 0)
        if address.scheme != "udp":
            self.max_record_bytes = TCP_RECORD_BYTES
        self._host = socket.gethostname()
        self._formats: dict[str, MessageFormat] = {}

    def forget(self, container: ContainerInfo) -> None:
        """Let go of what was kept for a container."""
        super().forget(container)
        self._formats.pop(container.id, None)

    def _encode(self, batch: Batch) -> GelfMessages:
        container = batch.container
        known = self._formats.get(container.id)
        if known is None:
            known = MessageFormat(container, self._host, self.tag(container), self.attributes(container))
            self._formats[container.id] = known
        leave_out_empty(batch)
        return GelfMessages(known, self.options.packing, batch.groups)

    async def _connect(self) -> Stream | Datagrams:
        address, options = self.options.gelf_address, self.options
        if address.scheme == "udp":
            return await self._connect_udp(address.host, address.port)
        if address.scheme == "tcp":
            return await connect_tcp(address.host, address.port, None)
        unsafe = "gelf-tls-skip-verify" if options.gelf_tls_skip_verify else ""
        name = options.gelf_tls_server_name
        return await self._connect_tls(
            address.host, address.port, partial(tls_context, options), server_name=name, unsafe=unsafe
        )


def leave_out_empty(batch: Batch) -> None:
    """Note the empty lines of a batch, of which there is no message."""
    first = 0
    for group in batch.groups:
        if not all(group.lines):
            for number, line in enumerate(group.lines, first):
                if not line:
                    batch.leave_out(number, EMPTY)
        first += len(group.lines)


@hookimpl
def logd_log_drivers() -> list[type[GelfDriver]]:
    """The drivers of this module."""
    return [GelfDriver]
