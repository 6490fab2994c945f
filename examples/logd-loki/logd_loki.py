"""Log driver for Grafana Loki: lines go to its push API, as JSON.

Source: https://grafana.com/docs/loki/latest/reference/loki-http-api/, POST /loki/api/v1/push.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field with names for its metadata)

import asyncio
import gzip
import re
import struct
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from yarl import URL

from logd.driver import Batch, CommonOptions, ContainerInfo, LogDriver, Reject, boolean, opt, text
from logd.hookspecs import hookimpl
from logd.record import STDERR, STDOUT, STREAM_NAMES

PUSH_PATH = "/loki/api/v1/push"
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")
MAX_LINE_BYTES = 256 << 10
"""Loki's own default of `max_line_size`; it rejects longer lines. They come in parts."""
GZIP_LEVEL = 1
REASON_BYTES = 300
LAST = struct.Struct("<qq")
"""The memo: the times of the last lines of stdout and stderr that Loki has."""


def parse_url(value: str) -> URL:
    """Parse where Loki is."""
    url = URL(value)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{value!r} (accepted: http://host:3100, https://…)")
    return url.with_path(PUSH_PATH) if url.path in {"", "/"} else url


def parse_labels(value: str) -> tuple[tuple[str, str], ...]:
    """Parse `name=value,name=value`."""
    labels = []
    for part in filter(None, value.split(",")):
        name, equals, label = part.partition("=")
        if not equals or not LABEL.fullmatch(name) or not label:
            raise ValueError(f"{part!r} (accepted: name=value with commas; a name has letters, digits and _)")
        labels.append((name, label))
    return tuple(labels)


@dataclass(frozen=True, kw_only=True)
class LokiOptions(CommonOptions):
    """The log-opts."""

    loki_url: URL = opt(parse_url, help="where Loki is, such as http://loki:3100")
    loki_tenant_id: str = opt(text, default="", help="the tenant, X-Scope-OrgID")
    loki_labels: tuple[tuple[str, str], ...] = opt(parse_labels, default=(), help="labels for every line: name=value,…")
    loki_gzip: bool = opt(boolean, default=True, help="compress what is sent")


def encode(labels: dict[str, str], batch: Batch, last: dict[int, int]) -> bytes:
    """Return the body of a push: the streams of a batch. `last` is what times the last lines had; it is moved on."""
    values: dict[int, list[tuple[str, str]]] = {}
    for group in batch.groups:
        entries = values.setdefault(group.stream, [])
        time_ns = max(group.time_ns, last[group.stream] + 1)
        for line in group.lines:
            entries.append((str(time_ns), line.decode(errors="replace")))
            time_ns += 1
        last[group.stream] = time_ns - 1
    return orjson.dumps({
        "streams": [
            {"stream": {**labels, "source": STREAM_NAMES[stream]}, "values": entries}
            for stream, entries in values.items()
        ]
    })  # fmt: skip


class LokiDriver(LogDriver[LokiOptions]):
    """One Loki, for all containers that send there."""

    name = "loki"
    options_type = LokiOptions
    max_in_flight = 8
    max_record_bytes = MAX_LINE_BYTES

    def __init__(self, options: LokiOptions) -> None:
        super().__init__(options)
        self._session: aiohttp.ClientSession | None = None
        self._last: dict[str, dict[int, int]] = {}

    async def open(self) -> None:
        """See that somebody listens, so that no batch is blamed when nobody does."""
        url = self.options.loki_url
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.transport.abort()
        headers = {"Content-Type": "application/json"}
        if self.options.loki_tenant_id:
            headers["X-Scope-OrgID"] = self.options.loki_tenant_id
        if self.options.loki_gzip:
            headers["Content-Encoding"] = "gzip"
        # Delivery has a deadline for a batch; none of aiohttp's own is needed.
        self._session = aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None))

    async def send(self, batch: Batch) -> None:
        """Push the batch."""
        container = batch.container
        last = dict(self._last.get(container.id) or {STDOUT: 0, STDERR: 0})
        body = encode(self._labels(container), batch, last)
        if self.options.loki_gzip:
            body = await asyncio.to_thread(gzip.compress, body, GZIP_LEVEL, mtime=0)
        try:
            await self._push(body)
        except Reject:
            if len(batch) == 1:  # its time is spent: Loki may have taken what came after it
                self._last[container.id] = last
            raise
        self._last[container.id] = last
        batch.memo = LAST.pack(last[STDOUT], last[STDERR])

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def resume(self, container: ContainerInfo, memo: bytes) -> None:
        """Go on with the times where the last batch ended."""
        if len(memo) == LAST.size:
            self._last[container.id] = dict(zip((STDOUT, STDERR), LAST.unpack(memo), strict=True))

    def forget(self, container: ContainerInfo) -> None:
        """Let go of what was kept for a container."""
        super().forget(container)
        self._last.pop(container.id, None)

    async def _push(self, body: bytes) -> None:
        if self._session is None:
            raise ConnectionError("not connected")  # closed meanwhile, because another batch failed
        try:
            async with self._session.post(self.options.loki_url, data=body, allow_redirects=False) as answer:
                words = (await answer.read())[:REASON_BYTES].decode(errors="replace").strip()
        except aiohttp.ClientError as error:  # some of them are no OSError
            raise ConnectionError(f"Loki: {error}") from error
        if answer.status in {400, 413}:
            raise Reject(None, f"Loki: {answer.status} {words}")  # of many lines delivery finds out which it is
        if answer.status not in {200, 204}:
            raise ConnectionError(f"Loki: {answer.status} {words}")

    def _labels(self, container: ContainerInfo) -> dict[str, str]:
        """Return a container's labels; the driver's own can't be overwritten by what comes from an image."""
        chosen = {_label(name): value for name, value in self.attributes(container).items()}
        tag = {"tag": self.tag(container)} if self.options.tag else {}
        return {**chosen, **dict(self.options.loki_labels), **tag, "container_name": container.name}


def _label(name: str) -> str:
    name = NOT_IN_LABELS.sub("_", name)
    return name if LABEL.fullmatch(name) else f"_{name}"


@hookimpl
def logd_log_drivers() -> list[type[LogDriver[Any]]]:
    """The drivers of this module."""
    return [LokiDriver]
