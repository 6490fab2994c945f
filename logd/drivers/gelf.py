"""gelf log driver: to Graylog, or whatever takes the Graylog Extended Log Format, over UDP, TCP or TLS.

Source: moby daemon/logger/gelf (options, with which words they are refused; fields) and go-gelf (compression, chunks).
`tls://` and the `gelf-tls-…` options are our own.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field with names for its metadata)

import asyncio
import errno
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from logd.driver import Batch, CommonOptions, ContainerInfo, LogDriver, Reject, boolean, opt, text
from logd.drivers.gelf_format import GZIP, NONE, ZLIB, MessageFormat, Packing, TooLargeError
from logd.drivers.unacknowledged import Datagrams, Stream, connect_tcp, connect_udp, has_moved
from logd.hookspecs import hookimpl

log = logging.getLogger(__name__)

SCHEMES: Final = ("udp", "tcp", "tls")
BEST_SPEED: Final = 1
"""Go's flate.BestSpeed, go-gelf's default."""
UDP_RECORD_BYTES: Final = 16 << 10
"""Docker's largest line. Whatever is in it, and however it compresses, it fits 128 chunks with 80 kB of fields."""
TCP_RECORD_BYTES: Final = 256 << 10
"""Graylog's TCP input takes 2 MiB (max_message_size); as JSON a byte may become six."""
DATAGRAMS_AT_A_TIME: Final = 64
"""Then others in the event loop have their turn."""
RESOLVE_AGAIN_S: Final = 30.0


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


class GelfDriver(LogDriver[GelfOptions]):
    """One connection for all containers that send there.

    A batch sent over a stream is done with when the peer's kernel has it, one of datagrams when they are sent.
    """

    name = "gelf"
    options_type = GelfOptions
    max_in_flight = 16
    max_record_bytes = UDP_RECORD_BYTES
    confirms = False

    def __init__(self, options: GelfOptions) -> None:
        super().__init__(options)
        if options.gelf_address.scheme != "udp":
            self.max_record_bytes = TCP_RECORD_BYTES
        self._address = options.gelf_address
        self._packing = options.packing
        self._host = socket.gethostname()
        self._link: Stream | Datagrams | None = None
        self._formats: dict[str, MessageFormat] = {}
        self._resolve_at = 0.0
        self._has_warned = False

    async def open(self) -> None:
        """Connect. Raises OSError that names the address."""
        try:
            self._link = await self._connect()
        except ValueError as error:  # a file of certificates that was in order when the container was created
            raise ConnectionError(str(error)) from error
        except OSError as error:
            raise self._failure(error) from error

    async def send(self, batch: Batch) -> None:
        """Write all messages, over a stream wait for the peer to have them."""
        messages = self._format(batch.container)
        try:
            if isinstance(self._link, Stream):
                await self._send_stream(self._link, batch, messages)
            elif isinstance(self._link, Datagrams):
                await self._send_datagrams(self._link, batch, messages)
            else:
                raise ConnectionError("not connected")  # closed meanwhile, because another batch failed
        except OSError as error:
            raise self._failure(error) from error

    async def close(self) -> None:
        """Disconnect."""
        link, self._link = self._link, None
        if link:
            link.close()

    def forget(self, container: ContainerInfo) -> None:
        """Let go of what was kept for a container."""
        super().forget(container)
        self._formats.pop(container.id, None)

    def _format(self, container: ContainerInfo) -> MessageFormat:
        known = self._formats.get(container.id)
        if known is None:
            known = MessageFormat(container, self._host, self.tag(container), self.attributes(container))
            self._formats[container.id] = known
        return known

    async def _connect(self) -> Stream | Datagrams:
        address = self._address
        if address.scheme == "udp":
            self._resolve_at = time.monotonic() + RESOLVE_AGAIN_S
            return await connect_udp(address.host, address.port)
        if address.scheme == "tcp":
            return await connect_tcp(address.host, address.port, None)
        if self.options.gelf_tls_skip_verify and not self._has_warned:
            self._has_warned = True
            log.warning("gelf at %s: any certificate is accepted, as gelf-tls-skip-verify asks for", address)
        context = await asyncio.to_thread(tls_context, self.options)  # reads the system's certificates too
        return await connect_tcp(address.host, address.port, context, self.options.gelf_tls_server_name)

    async def _send_stream(self, stream: Stream, batch: Batch, messages: MessageFormat) -> None:
        begin = None
        try:
            async with stream.turn:
                begin = stream.written
                for block in messages.blocks(batch.groups):
                    await stream.write(block)
                end = stream.written
            await stream.confirm(end)
        except (OSError, asyncio.CancelledError):
            if begin is not None:  # what the peer has is not sent again, where that is known
                with suppress(OSError):
                    batch.ack(records_within(stream.confirmed() - begin, batch, messages))
            raise

    async def _send_datagrams(self, datagrams: Datagrams, batch: Batch, messages: MessageFormat) -> None:
        async with datagrams.turn:
            await self._follow_name(datagrams)
            sent = many = 0
            try:
                for group in batch.groups:
                    for message in messages.messages(group):
                        pieces = self._packing.datagrams(message) if message else []
                        for piece in pieces:
                            await datagrams.send(piece)
                        sent += 1
                        many += len(pieces)
                        if many >= DATAGRAMS_AT_A_TIME:
                            many = 0
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
                raise Reject(sent, "its datagram is larger than the network takes") from error

    async def _follow_name(self, datagrams: Datagrams) -> None:
        """Fail if the server has got another address: nothing else would ever tell."""
        if time.monotonic() < self._resolve_at:
            return
        self._resolve_at = time.monotonic() + RESOLVE_AGAIN_S
        if await has_moved(datagrams, self._address.host, self._address.port):
            self._resolve_at = 0.0
            raise ConnectionError("it has another address now")

    def _failure(self, error: OSError) -> OSError:
        """Return the error with the address in front."""
        reason = f"gelf at {self._address}: {error.strerror or error}"
        return TimeoutError(reason) if isinstance(error, TimeoutError) else ConnectionError(reason)


def records_within(size: int, batch: Batch, messages: MessageFormat) -> int:
    """Return how many of a batch's records the first `size` bytes of its messages hold whole."""
    count = 0
    for group in batch.groups:
        for message in messages.messages(group):
            size -= len(message) + 1 if message else 0
            if size < 0:
                return count
            count += 1
    return count


@hookimpl
def logd_log_drivers() -> list[type[GelfDriver]]:
    """The drivers of this module."""
    return [GelfDriver]
