"""splunk log driver: to Splunk's HTTP Event Collector, or whatever else speaks its protocol.

Source: moby daemon/logger/splunk/splunk.go for options, with which words they are refused, and the shape of events.
With splunk-index-acknowledgment logd asks for the acknowledgements, which Docker does not.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field with names for its metadata)

import asyncio
import logging
import re
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from logd.driver import Batch, CommonOptions, ContainerInfo, LogDriver, Reject, boolean, opt, text
from logd.drivers.splunk_acks import Acknowledgements, Channel, Posted
from logd.drivers.splunk_collector import Answer, Collector, RefusedError, TooLargeError
from logd.drivers.splunk_records import FORMATS, INLINE, EventFormat, Key, Metadata, Request
from logd.hookspecs import hookimpl
from logd.logtag import Tag

log = logging.getLogger(__name__)

REQUEST_BYTES: Final = 800_000
"""Splunk Cloud's advice, and the limit of many a proxy, is 1 MB."""
SMALLEST_REQUEST_BYTES: Final = 4096
SHRINK: Final = 4
GROW_AFTER_S: Final = 60.0
IN_THREAD_BYTES: Final = 1 << 16
"""What takes longer to compress than to hand to a thread."""
BLANK: Final = "blank"
"""The reason by which lines are counted that are not sent."""
GZIP_WINDOW: Final = 31
"""zlib's wbits."""


def parse_url(value: str) -> str:
    """Parse `scheme://host:port`."""
    expected = f"splunk: expected format scheme://dns_name_or_ip:port for splunk-url, not {value!r}"
    if re.search(r"[\x00-\x20\x7f]", value):
        raise ValueError(expected)
    try:
        url = urlsplit(value)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ValueError(f"splunk: failed to parse {value} as url value in splunk-url ({error})") from error
    if url.scheme not in {"http", "https"} or url.path not in {"", "/"} or _has_more(url) or not host:
        raise ValueError(expected)
    shown = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{shown}" if port is None else f"{url.scheme}://{shown}:{port}"


def _has_more(url: SplitResult) -> bool:
    return bool(url.query or url.fragment or url.username is not None)


def parse_token(value: str) -> str:
    """Parse a token, which is not shown."""
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("splunk: splunk-token is expected to be printable ASCII without spaces")
    return value


def parse_format(value: str) -> str:
    """Parse the name of a format."""
    if value not in FORMATS:
        raise ValueError(f"splunk-format: unknown format specified {value}, supported formats are inline, json and raw")
    return value


def parse_gzip_level(value: str) -> int:
    """Parse a level of gzip."""
    if not re.fullmatch(r"-0*1|[+-]?0+|\+?0*[1-9]", value, re.ASCII):
        raise ValueError(f"not supported level '{value}' for splunk-gzip-level (supported values between -1 and 9)")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class SplunkOptions(CommonOptions):
    """Docker's; an empty tag is none."""

    tag: Tag | None = opt(Tag, default=None, help="template of the tag (Docker's log tags); empty: no tag")
    splunk_token: str = opt(parse_token, default="", help="of the HTTP Event Collector; required", is_secret=True)
    splunk_url: str = opt(parse_url, default="", help="scheme://host:port of the collector; required")
    splunk_source: str = opt(text, default="", help="source of the events")
    splunk_sourcetype: str = opt(text, default="", help="sourcetype of the events")
    splunk_index: str = opt(text, default="", help="index for the events")
    splunk_capath: str = opt(text, default="", help="file of the authorities to trust; unset: the system's")
    splunk_caname: str = opt(text, default="", help="whom the certificate must be for; unset: the url's host")
    splunk_insecureskipverify: bool = opt(boolean, default=False, help="take any certificate from anyone (unsafe)")
    splunk_format: str = opt(parse_format, default=INLINE, help="inline, json or raw")
    splunk_verify_connection: bool = opt(
        boolean, default=True, help="ask whether a collector is there before anything is sent; never holds up a start"
    )
    splunk_gzip: bool = opt(boolean, default=False, help="compress requests")
    splunk_gzip_level: int = opt(parse_gzip_level, default=-1, help="-1 to 9, the larger the smaller")
    splunk_index_acknowledgment: bool = opt(
        boolean, default=False, help="wait until the indexer acknowledges the events"
    )

    def __post_init__(self) -> None:
        """Refuse what lacks something."""
        for name in ("splunk_url", "splunk_token"):
            if not getattr(self, name):
                raise ValueError(f"splunk: {name.replace('_', '-')} is expected")

    def check_host(self) -> None:
        """Check that the file of certificates is in order."""
        tls_context(self)


def tls_context(options: SplunkOptions) -> ssl.SSLContext | None:
    """Return what a TLS connection needs, None for http. Raises ValueError about a file that can't be used."""
    try:
        context = ssl.create_default_context(cafile=options.splunk_capath or None)
    except OSError as error:
        raise ValueError(f"splunk-capath: open {options.splunk_capath}: {error.strerror or error}") from error
    if options.splunk_insecureskipverify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context if options.splunk_url.startswith("https:") else None


class SplunkDriver(LogDriver[SplunkOptions]):
    """One collector for all containers that send there; up to 16 of their batches are on their way at a time."""

    name = "splunk"
    options_type = SplunkOptions
    max_in_flight = 16

    def __init__(self, options: SplunkOptions) -> None:
        super().__init__(options)
        self._metadata = Metadata(
            socket.gethostname(), options.splunk_source, options.splunk_sourcetype, options.splunk_index
        )
        self._formats: dict[str, EventFormat] = {}
        self._collector: Collector | None = None
        self._acks = Acknowledgements() if options.splunk_index_acknowledgment else None
        self._size = RequestSize()
        self._has_warned = False

    async def open(self) -> None:
        """Get ready to send, with splunk-verify-connection not without a collector that answers."""
        options = self.options
        if options.splunk_insecureskipverify and not self._has_warned:
            self._has_warned = True
            log.warning(
                "splunk at %s: any certificate is accepted, as splunk-insecureskipverify asks for", options.splunk_url
            )
        try:
            context = await asyncio.to_thread(tls_context, options)
        except ValueError as error:  # a file that was in order when the container was created
            raise ConnectionError(str(error)) from error
        server_name = options.splunk_caname if context else ""
        self._collector = Collector(options.splunk_url, options.splunk_token, context, server_name)
        if options.splunk_verify_connection:
            try:
                await self._collector.verify()
            except OSError as error:
                raise self._failure(error) from error
        self._size.opened()
        if self._acks:
            self._acks.start(self._collector)

    async def send(self, batch: Batch) -> None:
        """Post all events; with splunk-index-acknowledgment wait until they are indexed."""
        if self._collector is None:
            raise ConnectionError(f"splunk at {self.options.splunk_url}: not open")
        sending = Sending(batch, self._format(batch.container), self._acks, self._size, self._post)
        try:
            async with self._collector.use():
                await sending.run(self._collector)
        except OSError as error:
            raise self._failure(error) from error

    async def close(self) -> None:
        """Let go of the connections, once nothing is on its way on them."""
        collector, self._collector = self._collector, None
        if self._acks:
            await self._acks.stop()
        if collector:
            await collector.close()

    def forget(self, container: ContainerInfo) -> None:
        """Let go of what was kept for a container."""
        super().forget(container)
        self._formats.pop(container.id, None)
        if self._acks:
            self._acks.forget(container.id)

    def _format(self, container: ContainerInfo) -> EventFormat:
        known = self._formats.get(container.id)
        if known is None:
            form, tag, attributes = self.options.splunk_format, self.tag(container), self.attributes(container)
            known = self._formats[container.id] = EventFormat(container, form, tag, attributes, self._metadata)
        return known

    async def _post(self, collector: Collector, body: bytes, channel: str) -> Answer:
        """Post a body, compressed if that is asked for."""
        if not self.options.splunk_gzip:
            return await collector.post(body, channel, is_gzip=False)
        level = self.options.splunk_gzip_level
        if len(body) < IN_THREAD_BYTES:
            packed = zlib.compress(body, level, GZIP_WINDOW)
        else:
            packed = await asyncio.to_thread(zlib.compress, body, level, GZIP_WINDOW)
        return await collector.post(packed, channel, is_gzip=True)

    def _failure(self, error: OSError) -> OSError:
        """Return the error with the address in front."""
        reason = f"splunk at {self.options.splunk_url}: {error}"
        return TimeoutError(reason) if isinstance(error, TimeoutError) else ConnectionError(reason)


class RequestSize:
    """How large a request is: smaller after failures in a row, so that a slow line lets something through."""

    def __init__(self) -> None:
        self.bytes = self._most = REQUEST_BYTES
        self._failures = 0
        self._is_blamed = False
        self._grow_at = 0.0

    def opened(self) -> None:
        """Begin to count anew what fails together."""
        self._is_blamed = False

    def failed(self) -> None:
        """Note a failure, once for each opening however many requests were on their way."""
        if self._is_blamed:
            return
        self._is_blamed = True
        self._failures += 1
        if self._failures > 1:
            self._set(self.bytes // SHRINK)

    def too_large(self, size: int) -> None:
        """Never make requests of this size again."""
        self._most = max(min(self._most, size // 2), SMALLEST_REQUEST_BYTES)
        self._set(self._most)

    def taken(self) -> None:
        """Note a success."""
        self._failures = 0
        if self.bytes < self._most and asyncio.get_running_loop().time() >= self._grow_at:
            self._set(self.bytes * SHRINK)

    def _set(self, size: int) -> None:
        before, self.bytes = self.bytes, min(max(size, SMALLEST_REQUEST_BYTES), self._most)
        self._grow_at = asyncio.get_running_loop().time() + GROW_AFTER_S
        if self.bytes != before:
            log.info("a request to Splunk has %d bytes from now on", self.bytes)


class Sending:
    """A batch on its way."""

    def __init__(
        self,
        batch: Batch,
        events: EventFormat,
        acks: Acknowledgements | None,
        size: RequestSize,
        post: Callable[[Collector, bytes, str], Awaitable[Answer]],
    ) -> None:
        self._batch = batch
        self._events = events
        self._acks = acks
        self._size = size
        self._post = post
        self._begin = batch.acknowledged
        """The first record that is not posted."""
        self._end = len(batch)
        """Behind the last that may be posted: a refused one and those after it are not."""
        self._reject: Reject | None = None
        self._posted: list[tuple[int, Key, Posted]] = []

    async def run(self, collector: Collector) -> None:
        """Raises OSError, and Reject when the records before the refused one are taken."""
        while self._begin < self._end:
            for request in self._events.requests(self._batch, self._begin, self._end, self._size.bytes):
                if not await self._take(collector, request):
                    break
        for end, key, posted in self._posted:
            assert self._acks
            await self._acks.wait(key, posted)
            self._batch.ack(end)
        if self._reject:
            raise self._reject

    async def _take(self, collector: Collector, request: Request) -> bool:
        """Have the collector take a request. False if what follows it has to be cut anew."""
        posted = self._acks.find(request.key) if self._acks else None
        if request.events and posted is None:
            try:
                posted = await self._send(collector, request)
            except RefusedError as error:
                self._refused(request, error)
                return False
            except TooLargeError as error:
                if len(request.body) <= SMALLEST_REQUEST_BYTES:
                    raise ConnectionError(f"failed to send event - {error}") from error
                if request.end - request.begin == 1:
                    self._end, self._reject = request.begin, Reject(request.begin, str(error))
                else:
                    self._size.too_large(len(request.body))
                return False
        for record in request.left_out:
            self._batch.leave_out(record, BLANK)
        self._begin = request.end
        if posted:
            self._posted.append((request.end, request.key, posted))
        elif not self._posted:
            self._batch.ack(request.end)
        return True

    async def _send(self, collector: Collector, request: Request) -> Posted | None:
        """Post a request. Raises OSError, RefusedError or TooLargeError."""
        channel: Channel | None = self._acks.channel if self._acks else None
        try:
            answer = await self._post(collector, request.body, channel.name if channel else "")
        except (OSError, asyncio.CancelledError) as error:
            self._size.failed()
            if self._acks and isinstance(error, ConnectionError):
                self._acks.void(str(error))
            raise
        answer.check()
        self._size.taken()
        if channel is None or self._acks is None:
            return None
        return self._acks.add(request.key, channel, answer.ack_id)

    def _refused(self, request: Request, error: RefusedError) -> None:
        """Note which record was refused. Those before it are posted once more: it is not said that they were taken."""
        if error.event is None and request.events == 1:
            error.event = 0
        if error.event is None or error.event >= request.events:
            self._end, self._reject = request.begin, Reject(None, str(error))
            return
        record = request.record(error.event)
        self._end, self._reject = record, Reject(record, str(error))


@hookimpl
def logd_log_drivers() -> list[type[SplunkDriver]]:
    """The drivers of this module."""
    return [SplunkDriver]
