"""Loki's push API for tests, all of it that a client can notice. Source: Loki's documentation and pkg/distributor.

It refuses what Loki refuses, drops a line that has the time and text of another one of its stream, and cuts nothing.
"""

import json
import re
from typing import Any, NamedTuple

from aiohttp import web

MAX_LINE_BYTES = 256 << 10
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Entry(NamedTuple):
    time_ns: int
    line: str


class LokiPeer:
    """A server on a free port of loopback. `answers` are statuses for the next pushes, which are not taken."""

    def __init__(self, *, needs_tenant: bool = False) -> None:
        self.needs_tenant = needs_tenant
        self.answers: list[int] = []
        self.poison = ""
        """Lines with this text in them are rejected, as those are that are too old."""
        self.streams: dict[tuple[str, tuple[tuple[str, str], ...]], dict[Entry, None]] = {}
        """Entries by tenant and labels."""
        self.pushes = 0
        self.encodings: set[str] = set()

    async def __aenter__(self) -> "LokiPeer":
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/loki/api/v1/push", self._push)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address: tuple[str, int] = self._runner.addresses[0][:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def entries(self, **labels: str) -> list[Entry]:
        """Return the entries of all streams with these labels, in the order of their times, as a query does."""
        wanted = labels.items()
        return sorted(entry for (_, has), entries in self.streams.items() if wanted <= set(has) for entry in entries)

    async def _push(self, request: web.Request) -> web.Response:
        self.pushes += 1
        body = await request.read()  # aiohttp has decompressed it
        if self.answers:
            return web.Response(status=self.answers.pop(0), text="not now\n")
        tenant = request.headers.get("X-Scope-OrgID", "")
        if self.needs_tenant and not tenant:
            return web.Response(status=401, text="no org id\n")
        if request.content_type != "application/json":
            return web.Response(status=400, text="unsupported content type\n")
        self.encodings.add(request.headers.get("Content-Encoding", ""))
        try:
            streams = parse(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            return web.Response(status=400, text=f"{error}\n")
        refused = ""
        for labels, entries in streams:
            kept = self.streams.setdefault((tenant, labels), {})
            for entry in entries:  # Loki takes the others of a push that it answers 400 to
                if len(entry.line.encode()) > MAX_LINE_BYTES:
                    refused = f"Max entry size '{MAX_LINE_BYTES}' bytes exceeded"
                elif self.poison and self.poison in entry.line:
                    refused = "entry too far behind"
                else:
                    kept[entry] = None
        return web.Response(status=400, text=refused) if refused else web.Response(status=204)


def parse(push: Any) -> list[tuple[tuple[tuple[str, str], ...], list[Entry]]]:
    """Check a push to the letter."""
    found = []
    for stream in push["streams"]:
        labels = stream["stream"]
        if not labels or not all(LABEL.fullmatch(name) and isinstance(value, str) for name, value in labels.items()):
            raise ValueError(f"error at least one label pair is required per stream: {labels}")
        entries = []
        for time_ns, line, *metadata in stream["values"]:
            if not (isinstance(time_ns, str) and time_ns.isdecimal() and isinstance(line, str)) or metadata:
                raise ValueError(f"not an entry: {time_ns!r}, {line!r:.100}")
            entries.append(Entry(int(time_ns), line))
        found.append((tuple(sorted(labels.items())), entries))
    return found
