"""fluentd log driver: Docker's options and records, sent in acknowledged chunks over the Fluent forward protocol.

One connection for all containers that have equal options; up to 16 of their batches are on their way at a time. A batch
goes in chunks (PackedForward), each with an id that is the same whenever the same records are sent again.

Source: Docker's manual, "Fluentd logging driver", and moby daemon/logger/fluentd/fluentd.go for what is validated, with
which words; but `fluentd-request-ack` is true unless said otherwise. `fluentd-tls-…`, `fluentd-shared-key`,
`fluentd-username`, `fluentd-password`, `fluentd-self-hostname`, `fluentd-compress` and several addresses are our own.
"""

import asyncio
import gzip
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from logd import units
from logd.driver import Batch, CommonOptions, ContainerInfo, LogDriver, boolean, one_of, opt, text, whole
from logd.drivers import forward_protocol as protocol
from logd.drivers.fluentd_records import Chunk, RecordFormat
from logd.drivers.forward_address import DEFAULT_ADDRESS, Address, parse_addresses, parse_host
from logd.drivers.forward_connection import ForwardConnection, connect
from logd.hookspecs import hookimpl

log = logging.getLogger(__name__)

MAX_RETRIES: Final = (1 << 31) - 1
RECONNECT_INTERVAL_S: Final = (0.1, 10.0)
BUFFER_LIMIT: Final = 1 << 20
ANSWER_TIMEOUT_S: Final = 10.0
"""How long a server that reads may not acknowledge, where fluentd-read-timeout says nothing."""
CHUNK_BYTES: Final = 1 << 20
"""Fluent Bit refuses messages of more than 6 MB, Fluentd's buffers take 8 MB, by default."""
SMALLEST_CHUNK_BYTES: Final = 4096
SHRINK: Final = 4
GROW_AFTER_S: Final = 60.0
WINDOW: Final = 4
"""So many chunks of a batch may be unacknowledged."""
TELL_EVERY_S: Final = 60.0
GZIP_LEVEL: Final = 6


def or_unset(parse: Callable[[str], Any], default: Any) -> Callable[[str], Any]:
    """Return a parser for which empty text is as if the option were not given, as with Docker."""
    return lambda value: parse(value) if value else default


def parse_reconnect_interval(value: str) -> float:
    """Parse how old a connection may become, 0 for any age."""
    name = "fluentd-async-reconnect-interval"
    try:
        seconds = units.parse_duration_s(value)
    except ValueError as error:
        raise ValueError(f"invalid value for {name}: {error}") from error
    least, most = RECONNECT_INTERVAL_S
    if seconds and not least <= seconds <= most:
        shown = units.format_duration(units.parse_duration(value))
        raise ValueError(f'invalid value for {name}: value ("{shown}") must be between 100ms and 10s')
    return seconds


def parse_timeout(name: str) -> Callable[[str], float]:
    """Return the parser of a duration that is not negative, with Docker's words."""

    def parse(value: str) -> float:
        try:
            seconds = units.parse_duration_s(value)
        except ValueError as error:
            raise ValueError(f"invalid value for {name}: value must be a duration: {error}") from error
        if seconds < 0:
            raise ValueError(f"invalid value for {name}: value must be a duration that is non-negative")
        return seconds

    return parse


def parse_max_retries(value: str) -> int:
    """Parse a count of retries."""
    if re.fullmatch(r"\d+", value, re.ASCII) and int(value[:20]) > MAX_RETRIES:
        raise ValueError(f"invalid fluentd-max-retries: value out of range (0 to {MAX_RETRIES})")
    number: int = whole(0, MAX_RETRIES)(value)
    return number


def parse_file(value: str) -> str:
    """Parse the path of a file of certificates or a key."""
    if not Path(value).is_absolute() or not Path(value).is_file():
        raise ValueError(f"{value!r} is not the absolute path of a file")
    return value


def secret(field: Any) -> Any:
    """Return the field such that it is not shown with the options."""
    field.repr = False
    return field


@dataclass(frozen=True, kw_only=True)
class FluentdOptions(CommonOptions):
    """Docker's, then logd's own."""

    fluentd_address: tuple[Address, ...] = opt(
        or_unset(parse_addresses, (DEFAULT_ADDRESS,)),
        default=(DEFAULT_ADDRESS,),
        help="servers: [tcp://|tls://]host[:port] or unix:///path; of several, the next is taken when one fails",
    )
    fluentd_async: bool = opt(
        or_unset(boolean, False), default=False, help="without effect: a container never waits for its destination"
    )
    fluentd_async_reconnect_interval: float = opt(
        or_unset(parse_reconnect_interval, 0.0),
        default=0.0,
        help="age at which a connection is made anew, 100ms to 10s; 0: never",
    )
    fluentd_buffer_limit: int = opt(
        or_unset(units.parse_ram_size, BUFFER_LIMIT),
        default=BUFFER_LIMIT,
        help="without effect: the store is the buffer (undelivered-max-size)",
    )
    fluentd_max_retries: int = opt(
        or_unset(parse_max_retries, MAX_RETRIES), default=MAX_RETRIES, help="without effect: delivery never gives up"
    )
    fluentd_retry_wait: float = opt(
        or_unset(units.parse_duration_s, 1.0), default=1.0, help="without effect: delivery waits by its own schedule"
    )
    fluentd_request_ack: bool = opt(
        or_unset(boolean, True), default=True, help="whether servers acknowledge each chunk (Docker's default is false)"
    )
    fluentd_sub_second_precision: bool = opt(
        or_unset(boolean, False), default=False, help="send times with nanoseconds (EventTime)"
    )
    fluentd_write_timeout: float = opt(
        or_unset(parse_timeout("fluentd-write-timeout"), 0.0), default=0.0, help="for sending one chunk; 0: none"
    )
    fluentd_read_timeout: float = opt(
        or_unset(parse_timeout("fluentd-read-timeout"), 0.0), default=0.0, help="for an acknowledgement; 0: 10s"
    )
    fluentd_compress: str = opt(one_of("", protocol.GZIP), default="", help="gzip: compress each chunk")
    fluentd_tls_ca_cert: str = opt(
        or_unset(parse_file, ""), default="", help="file of the authorities to trust; unset: the system's"
    )
    fluentd_tls_cert: str = opt(or_unset(parse_file, ""), default="", help="file of our own certificate")
    fluentd_tls_key: str = opt(or_unset(parse_file, ""), default="", help="file of its key, unless that is in it too")
    fluentd_tls_server_name: str = opt(
        or_unset(parse_host, ""), default="", help="whom the certificate must be for; unset: the address's host"
    )
    fluentd_tls_skip_verify: bool = opt(
        or_unset(boolean, False), default=False, help="take any certificate from anyone (unsafe)"
    )
    fluentd_shared_key: str = secret(opt(text, default="", help="shared key of the handshake"))
    fluentd_username: str = opt(
        text, default="", help="user of the handshake; without a shared key an empty one is used"
    )
    fluentd_password: str = secret(opt(text, default="", help="the user's password"))
    fluentd_self_hostname: str = opt(text, default="", help="our name in the handshake; unset: the host's name")

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        given = [
            name
            for name in ("ca_cert", "cert", "key", "server_name", "skip_verify")
            if getattr(self, f"fluentd_tls_{name}")
        ]
        if given and not any(address.scheme == "tls" for address in self.fluentd_address):
            raise ValueError(f"fluentd-tls-{given[0].replace('_', '-')} is of use for a tls:// fluentd-address only")
        if self.fluentd_tls_key and not self.fluentd_tls_cert:
            raise ValueError("fluentd-tls-key needs fluentd-tls-cert")
        if bool(self.fluentd_username) != bool(self.fluentd_password):
            raise ValueError("fluentd-username and fluentd-password are given together or not at all")
        if self.fluentd_self_hostname and self.credentials is None:
            raise ValueError("fluentd-self-hostname is of use with fluentd-shared-key only")

    @property
    def credentials(self) -> protocol.Credentials | None:
        """What the handshake proves to know, None without a handshake."""
        if not self.fluentd_shared_key and not self.fluentd_username:
            return None
        return protocol.Credentials(
            self.fluentd_self_hostname or socket.gethostname(),
            self.fluentd_shared_key,
            self.fluentd_username,
            self.fluentd_password,
        )


class FluentdDriver(LogDriver[FluentdOptions]):
    """The server that answers, for all containers that send there.

    Chunks have 1 MiB. When connections fail one after the other without a chunk acknowledged in between, they become
    smaller: so a slow line or a server with a low limit lets something through. Once all is well they grow again.
    """

    name = "fluentd"
    options_type = FluentdOptions
    max_in_flight = 16

    def __init__(self, options: FluentdOptions) -> None:
        super().__init__(options)
        self.confirms = options.fluentd_request_ack
        self._formats: dict[str, RecordFormat] = {}
        self._connecting = asyncio.Lock()
        self._connection: ForwardConnection | None = None
        self._open: set[ForwardConnection] = set()
        self._closes = 0
        self._first = 0
        """Which of the addresses is tried first."""
        self._serving = options.fluentd_address[0]
        self._tell_at = 0.0
        self._chunk_bytes = CHUNK_BYTES
        self._grow_at = 0.0
        self._failed_in_a_row = 0

    async def open(self) -> None:
        """Connect to the first server that lets us."""
        async with self._connecting:
            await self._connected()

    async def send(self, batch: Batch) -> None:
        """Send the batch chunk by chunk and wait until each is acknowledged."""
        records, tag = self._format(batch.container), self.tag(batch.container)
        unacknowledged: deque[tuple[asyncio.Future[None], int]] = deque()
        window = WINDOW if self._chunk_bytes == CHUNK_BYTES else 1
        connection: ForwardConnection | None = None
        try:
            for chunk in records.chunks(batch, self._chunk_bytes):
                message = await self._message(tag, chunk)
                connection = await self._usable()
                acknowledged = await connection.send(
                    message, chunk.id if self.confirms else None, self.options.fluentd_write_timeout
                )
                if not connection.keepalive:
                    connection.retire()
                if acknowledged is None:
                    self._taken(batch, chunk.end)
                else:
                    unacknowledged.append((acknowledged, chunk.end))
                if len(unacknowledged) == window:
                    await self._await_first(batch, unacknowledged)
            while unacknowledged:
                await self._await_first(batch, unacknowledged)
        except (OSError, asyncio.CancelledError):
            if connection is not None:
                self._blame(connection)
            raise

    async def close(self) -> None:
        """Close all connections; a send that is under way fails."""
        self._closes += 1
        connections, self._open, self._connection = self._open, set(), None
        await asyncio.gather(*(connection.close() for connection in connections))

    def forget(self, container: ContainerInfo) -> None:
        """Let go of what was kept for a container."""
        super().forget(container)
        self._formats.pop(container.id, None)

    def _format(self, container: ContainerInfo) -> RecordFormat:
        known = self._formats.get(container.id)
        if known is None:
            sub_second = self.options.fluentd_sub_second_precision
            known = RecordFormat(container, self.attributes(container), sub_second=sub_second)
            self._formats[container.id] = known
        return known

    async def _message(self, tag: str, chunk: Chunk) -> bytes:
        entries, compressed = chunk.entries, self.options.fluentd_compress
        if compressed:
            entries = await asyncio.to_thread(gzip.compress, entries, GZIP_LEVEL, mtime=0)
        return protocol.packed_forward(tag, entries, chunk.size, chunk.id if self.confirms else None, compressed)

    async def _await_first(self, batch: Batch, unacknowledged: "deque[tuple[asyncio.Future[None], int]]") -> None:
        acknowledged, end = unacknowledged.popleft()
        await acknowledged
        self._taken(batch, end)

    def _taken(self, batch: Batch, end: int) -> None:
        batch.ack(end)
        self._failed_in_a_row = 0
        if self._chunk_bytes < CHUNK_BYTES and asyncio.get_running_loop().time() >= self._grow_at:
            self._size_chunks(self._chunk_bytes * SHRINK)

    def _blame(self, connection: ForwardConnection) -> None:
        """Learn from a failure, once for each connection however many batches were on their way."""
        if connection.blamed:
            return
        connection.blamed = True
        self._failed_in_a_row += 1
        addresses = self.options.fluentd_address
        self._first = (addresses.index(connection.address) + 1) % len(addresses)
        if self._failed_in_a_row > 1:  # the first time the same chunks go again: the server may know their ids
            self._size_chunks(self._chunk_bytes // SHRINK)

    def _size_chunks(self, size: int) -> None:
        before, self._chunk_bytes = self._chunk_bytes, min(max(size, SMALLEST_CHUNK_BYTES), CHUNK_BYTES)
        self._grow_at = asyncio.get_running_loop().time() + GROW_AFTER_S
        if self._chunk_bytes != before:
            server = self.options.fluentd_address[self._first]
            log.info("a chunk for %s has %d bytes from now on", server, self._chunk_bytes)

    async def _usable(self) -> ForwardConnection:
        """Return a connection for one chunk. One that the server closed while nothing was on its way is made anew."""
        async with self._connecting:
            connection = await self._connected()
            if not connection.keepalive:
                self._connection = None
            return connection

    async def _connected(self) -> ForwardConnection:
        interval, now = self.options.fluentd_async_reconnect_interval, asyncio.get_running_loop().time()
        connection = self._connection
        if connection is not None and not connection.lost and interval and now - connection.opened_at > interval:
            connection.retire()
        elif connection is not None and not connection.lost:
            return connection
        self._open = {one for one in self._open if not one.closed.is_set()}
        closes, self._connection = self._closes, None
        connection = await self._connect()
        if closes != self._closes:
            await connection.close()
            raise ConnectionAbortedError(f"{connection.address}: closed while it was being connected to")
        self._open.add(connection)
        self._connection = connection
        return connection

    async def _connect(self) -> ForwardConnection:
        """Try the servers in turn, beginning with the one that served last."""
        addresses, failures = self.options.fluentd_address, []
        cause: OSError | None = None
        for offset in range(len(addresses)):
            number = (self._first + offset) % len(addresses)
            address = addresses[number]
            try:
                connection = await connect(
                    address,
                    tls=await asyncio.to_thread(self._tls) if address.scheme == "tls" else None,
                    server_name=self.options.fluentd_tls_server_name,
                    answer_timeout_s=self.options.fluentd_read_timeout or ANSWER_TIMEOUT_S,
                    credentials=self.options.credentials,
                )
            except OSError as error:
                cause, words = error, str(error)
                failures.append(words if words.startswith(str(address)) else f"{address}: {words}")
                continue
            self._first = number
            self._tell_of(address, failures)
            return connection
        raise ConnectionError("; ".join(failures)) from cause

    def _tell_of(self, address: Address, failures: list[str]) -> None:
        """Write to the log when another server serves than before, not too often."""
        now = asyncio.get_running_loop().time()
        if address != self._serving and now >= self._tell_at:
            self._tell_at = now + TELL_EVERY_S
            log.warning("%s takes over from %s: %s", address, self._serving, "; ".join(failures) or "it has failed")
        self._serving = address

    def _tls(self) -> ssl.SSLContext:
        """Read the files, each time anew: certificates are renewed."""
        options = self.options
        context = ssl.create_default_context(cafile=options.fluentd_tls_ca_cert or None)
        if options.fluentd_tls_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.fluentd_tls_cert:
            # With a password, though it is empty, OpenSSL doesn't ask the terminal for that of an encrypted key.
            context.load_cert_chain(options.fluentd_tls_cert, options.fluentd_tls_key or None, password="")
        return context


@hookimpl
def logd_log_drivers() -> list[type[FluentdDriver]]:
    """Return the driver of this module."""
    return [FluentdDriver]
