"""The HTTP application: which path is whose, the API's versions, errors to statuses.

Docker's API is served below /vX.Y (1.24 to 1.47) and without a version; what logd adds is below /logd. Every answer
carries the headers by which clients negotiate. An error is {"message": …} with the status of its class.
"""

import asyncio
import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from logd.api import (
    absent,
    archive,
    attach,
    build,
    containers,
    create,
    discovery,
    doctor,
    drivers,
    events,
    execs,
    images,
    lifecycle,
    logs,
    metrics,
    networks,
    overview,
    registries,
    runs,
    saving,
    stats,
    stores,
    system,
    update,
    volumes,
)
from logd.api.access import Access
from logd.api.call import NEWEST, OLDEST, Call, Handler, Parts, Route, Version, failure
from logd.api.counting import count
from logd.errors import Forbidden, InvalidParameter, LogdError
from logd.images.registries import Registries

if TYPE_CHECKING:
    from logd.config import DaemonConfig
    from logd.engine.engine import Engine
    from logd.events import EventBus
    from logd.images.store import ImageStore
    from logd.logstore.follow import Watcher
    from logd.metrics.scrape import Scraper

log = logging.getLogger(__name__)

READER_THREADS: Final = 16
VERSIONED: Final = re.compile(r"/v([0-9.]+)(/.*)", re.DOTALL)
HEADERS: Final = {
    "Api-Version": str(NEWEST),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"logd/{system.SERVER_VERSION} (linux)",
}
STREAM_STOP_S: Final = 2.0
"""How long streams may take to end when the daemon stops."""


class Router:
    """Finds the handler of a method and path; of several, the one that was added first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._table: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            key = (route.method, _first_part(route.path))
            self._table.setdefault(key, []).append((_pattern(route.path), route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route and the names in the path, None where there is none."""
        for pattern, route in self._table.get((method, _first_part(path)), ()):
            match = pattern.fullmatch(path)
            if match:
                return route, match.groupdict()
        return None


def _first_part(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else path


def _pattern(path: str) -> re.Pattern[str]:
    text = re.sub(r"\\{(\w+):slashes\\}", r"(?P<\1>.+)", re.escape(path))
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", text), re.DOTALL)


class Service:
    """Answers requests: routing, versions, errors."""

    def __init__(self, parts: Parts, routes: Iterable[Route]) -> None:
        self._parts = parts
        self._router = Router(routes)
        self._lasting: set[asyncio.Task[web.StreamResponse]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, and count it."""
        path, version = request.path, NEWEST
        if refused := self._refused(request):
            self._parts.metrics.daemon.answered(request.method, "", refused.status)
            return refused
        versioned = VERSIONED.fullmatch(path)
        if versioned:
            version, path = parse_version(versioned[1]), versioned[2]
        found = self._router.find(request.method, path)
        if found is None:
            self._parts.metrics.daemon.answered(request.method, "", 404)
            return failure("page not found", 404)
        route, names = found
        call = Call(self._parts, request, version, names, viewer=self._parts.access.is_viewer(request.transport))
        return await count(route, call, self._answer)

    def _refused(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request that is refused whatever it asks for, and ends the connection."""
        status, reason = 503, getattr(request.protocol, "refused", "")
        if not reason:
            status, reason = 403, self._parts.access.refusal(request)
        if not reason:
            return None
        answer = failure(reason, status)
        answer.force_close()
        return answer

    async def _answer(self, route: Route, call: Call) -> web.StreamResponse:
        """Have a route answer; whatever goes wrong becomes an answer too."""
        request, version = call.request, call.version
        try:
            _check_version(version)
            if call.viewer and not route.viewers:
                raise Forbidden(
                    f"this socket is for viewers: {request.method} {route.path} is not among what it serves"
                )
            return await (self._to_the_end(route, call) if route.lasting else route.handler(call))
        except LogdError as error:
            if error.status == LogdError.status:
                log.error("%s %s: %s", request.method, request.path, error)  # noqa: TRY400 - expected: no traceback
            return _failed(call, str(error), error.status)
        except RecursionError:
            return _failed(call, "invalid JSON: nested too deeply", 400)
        except web.HTTPException as error:
            return _failed(call, error.text or error.reason, error.status)
        except Exception as error:
            if request.transport is None or request.transport.is_closing():
                raise  # the client has gone; aiohttp tidies up
            log.exception("%s %s", request.method, request.path)
            return _failed(call, f"internal error: {type(error).__name__}: {error}", 500)

    async def stop(self, app: web.Application) -> None:
        """End the streams, and let what changes something come to its end."""
        for task in tuple(self._parts.streams):
            task.cancel()
        if self._parts.streams:
            await asyncio.wait(self._parts.streams, timeout=STREAM_STOP_S)
        if self._lasting:
            timeout_s = self._parts.config.shutdown_timeout
            await asyncio.wait(self._lasting, timeout=timeout_s if timeout_s >= 0 else None)

    async def _to_the_end(self, route: Route, call: Call) -> web.StreamResponse:
        """Run a handler that its client's going does not stop."""
        task = asyncio.create_task(_run(route.handler, call), name=f"{route.method} {call.request.path}")
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_report)
            raise


def _failed(call: Call, message: str, status: int) -> web.StreamResponse:
    """Return the error as an answer; where one has begun, cut the connection, so that it can't pass for whole."""
    if call.begun:
        call.cut = True
        if call.request.transport is not None:
            call.request.transport.abort()
        raise ConnectionResetError(message)
    return failure(message, status) if status != 304 else web.Response(status=304)


async def _run(handler: Handler, call: Call) -> web.StreamResponse:
    return await handler(call)


def _report(task: "asyncio.Task[Any]") -> None:
    """Log the error of a request whose client has gone."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ConnectionError):
        log.warning("%s, whose client has gone: %s", task.get_name(), error)


def parse_version(text: str) -> Version:
    """Return the version in a path; what is missing or no number counts as 0, as for dockerd."""
    numbers = [int(part) if part.isdigit() else 0 for part in text[:16].split(".")]
    return Version(numbers[0], numbers[1] if len(numbers) > 1 else 0)


def _check_version(version: Version) -> None:
    if version < OLDEST:
        raise InvalidParameter(
            f"client version {version} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidParameter(f"client version {version} is too new. Maximum supported API version is {NEWEST}")


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer has, just before its head is sent."""
    for name, value in HEADERS.items():
        response.headers[name] = value


def make_app(
    engine: "Engine",
    images_store: "ImageStore",
    bus: "EventBus",
    config: "DaemonConfig",
    watcher: "Watcher",
    scraper: "Scraper",
    access: Access,
) -> web.Application:
    """Return the application. Run it with `handler_cancellation=True`, so that a client's going ends its stream."""
    readers = ThreadPoolExecutor(READER_THREADS, "logs")
    parts = Parts(
        engine, images_store, Registries(images_store, config), bus, config, watcher, readers, scraper, access
    )
    modules = (
        system,
        containers,
        create,
        lifecycle,
        logs,
        attach,
        execs,
        build,
        images,
        registries,
        archive,
        networks,
        volumes,
        events,
        runs,
        saving,
        stats,
        overview,
        drivers,
        update,
        discovery,
        doctor,
        stores,
        metrics,
        absent,
    )
    routes = [route for module in modules for route in module.ROUTES]
    scraper.daemon.expect_streams(sorted({route.stream for route in routes} - {""}))
    service = Service(parts, routes)
    app = web.Application()
    app.router.add_route("*", r"/{path:[\s\S]*}", service.handle)
    app.on_response_prepare.append(_sign)
    app.on_shutdown.append(service.stop)
    app.on_cleanup.append(lambda _: _close(readers))
    return app


async def _close(readers: ThreadPoolExecutor) -> None:
    readers.shutdown(wait=False, cancel_futures=True)
