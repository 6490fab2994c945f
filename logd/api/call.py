"""One request on its way through the API: its parameters read as dockerd reads them, and its answers' shapes.

Source: Docker Engine API 1.47; where that is silent, what dockerd 27 does.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import orjson
from aiohttp import web

from logd.api.access import Access
from logd.api.printed import Printed
from logd.api.readings import Readings
from logd.errors import InvalidParameter, TooSlow

if TYPE_CHECKING:
    from logd.config import DaemonConfig
    from logd.engine.engine import Engine
    from logd.events import EventBus
    from logd.images.registries import Registries
    from logd.images.store import ImageStore
    from logd.logstore.follow import Watcher
    from logd.metrics.scrape import Scraper

T = TypeVar("T")

JSON: Final = "application/json"
MAX_JSON_BYTES: Final = 4 << 20
"""Of a request's JSON body. A create request of the CLI has 3 kB; dockerd has no limit."""
BODY_S: Final = 30.0
"""For such a body. Archives, which may be made while they are sent, have all the time."""
FALSE_WORDS: Final = frozenset(("", "0", "no", "false", "none"))
"""Docker's: any other text is true."""


@dataclass(frozen=True)
class Parts:
    """What the handlers work with."""

    engine: "Engine"
    images: "ImageStore"
    registries: "Registries"
    events: "EventBus"
    config: "DaemonConfig"
    watcher: "Watcher"
    readers: Executor
    """Threads that may wait for a disk on which logs lie; a frozen one stalls them and nothing else."""
    metrics: "Scraper"
    access: Access = field(default_factory=Access)
    streams: "set[asyncio.Task[Any]]" = field(default_factory=set)
    """Requests that go on until something happens; they are ended when the daemon stops."""
    readings: Readings = field(default_factory=Readings)
    printed: Printed = field(default_factory=Printed)


class Version(NamedTuple):
    """The API's version that a request speaks; compares as numbers do."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


NEWEST: Final = Version(1, 47)
OLDEST: Final = Version(1, 24)


class Call:
    """A request, the parts it works with, the names in its path, and its API version."""

    def __init__(
        self, parts: Parts, request: web.Request, version: Version, names: Mapping[str, str], *, viewer: bool = False
    ) -> None:
        self.parts = parts
        self.engine = parts.engine
        self.request = request
        self.version = version
        self.names = names
        self.query = request.rel_url.query
        self.viewer = viewer
        """Whether it came by the read-only socket: then nothing is told that may be secret."""
        self.begun = False
        """Whether the head of a streamed answer may have been sent."""
        self.cut = False
        """Whether an answer that had begun was cut off by an error."""

    @property
    def name(self) -> str:
        """The container or image in the path."""
        return self.names["name"]

    def text(self, key: str) -> str:
        """Return a parameter, "" where it is absent."""
        return self.query.get(key, "")

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a boolean parameter, by Docker's generous reading; `default` where it is absent."""
        value = self.query.get(key)
        return default if value is None else value.strip().lower() not in FALSE_WORDS

    def number(self, key: str) -> int | None:
        """Return a whole number, None where it is absent or empty. Raises InvalidParameter in Go's words."""
        value = self.text(key)
        return self.required_number(key) if value else None

    def required_number(self, key: str) -> int:
        """Return a whole number that has to be there."""
        value = self.text(key)
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            raise InvalidParameter(f'invalid value for "{key}": parsing "{value}": invalid syntax')
        return int(value)

    def check_json_type(self) -> None:
        """Refuse a body that doesn't say it is JSON; no header is fine where there is no body."""
        header = self.request.headers.get("Content-Type", "")
        if not header and not self.request.can_read_body:
            return
        if header.partition(";")[0].strip().lower() != JSON:
            if not header:
                raise InvalidParameter("malformed Content-Type header (): mime: no media type")
            raise InvalidParameter(f"unsupported Content-Type header ({header}): must be '{JSON}'")

    async def body(self) -> bytes:
        """Return a JSON request's body, at most MAX_JSON_BYTES. Raises InvalidParameter, and TooSlow after BODY_S."""
        self.check_json_type()
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for chunk in self.request.content.iter_any():
                    body += chunk
                    if len(body) > MAX_JSON_BYTES:
                        raise InvalidParameter(f"the request's body is too large (at most {MAX_JSON_BYTES} bytes)")
        except TimeoutError:
            raise TooSlow(f"the request's body did not come within {BODY_S:.0f} s") from None
        return bytes(body)

    async def json(self) -> dict[str, Any]:
        """Return the JSON object in the body, an empty one where there is no body. Raises InvalidParameter."""
        body = await self.body()
        if not body:
            return {}
        try:
            value = orjson.loads(body)
        except ValueError as error:
            raise InvalidParameter(f"invalid JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidParameter("invalid JSON: the body has to be an object")
        return value

    def begin(self) -> None:
        """Note that the answer begins and may last: no error can be answered, and a daemon that stops ends it."""
        self.begun = True
        task = asyncio.current_task()
        if task is not None:
            self.parts.streams.add(task)
            task.add_done_callback(self.parts.streams.discard)

    async def stream(self, content_type: str, status: int = 200) -> web.StreamResponse:
        """Send the head of an answer whose body comes piece by piece."""
        self.begin()
        response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
        await response.prepare(self.request)
        return response

    def write_at_once(self, response: web.StreamResponse, encode: Callable[[T], bytes], little: T) -> bool:
        """Write what `encode` makes of a little, without waiting; false, and nothing done, while the buffer is in use.

        `little` may become up to the 64 KiB that a transport holds back before it has its writer wait.
        """
        transport = self.request.transport
        if transport is None or transport.get_write_buffer_size():
            return False
        try:
            response.write(encode(little)).send(None)
        except StopIteration:
            return True
        raise AssertionError("a little for an empty buffer had to wait")


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """A method and path with {name} or {name:slashes} in it. `lasting` ones run to their end without their client.

    A lasting handler changes something, and half a change is worse than one that nobody waits for.
    `viewers`: whether the read-only socket serves it; its handler leaves out what may be secret (`api/viewers`).
    `stream`: what kind of answer it is that lasts, for the metrics; `action`: what dockerd times it as, (kind, name).
    """

    method: str
    path: str
    handler: Handler
    lasting: bool = False
    stream: str = ""
    action: tuple[str, str] | None = None
    viewers: bool = False


def answer(value: Any, status: int = 200) -> web.Response:
    """Return a JSON answer, as Go's encoder ends it: with a newline."""
    return web.Response(body=json_line(value), status=status, content_type=JSON)


def json_line(value: Any) -> bytes:
    """Return a line of JSON."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def done(status: int = 204) -> web.Response:
    """Return an answer without a body."""
    return web.Response(status=status)


def failure(message: str, status: int) -> web.Response:
    """Return an error in Docker's shape."""
    return answer({"message": message}, status)
