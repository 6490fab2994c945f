"""Builds the daemon, in order: listeners, watcher, images, supervisor, engine, what was there before, the API.

What is built is undone in the opposite order. Containers are not: they go on without the daemon.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from aiohttp import web

from logd.api.access import Access
from logd.api.app import make_app
from logd.api.metrics_listener import MetricsListener
from logd.api.server import Runner
from logd.api.system import daemon_id
from logd.build.context import BUILDS, forget_all, left_behind
from logd.config import DaemonConfig
from logd.daemon import reloaded
from logd.daemon.config_file import Loaded
from logd.daemon.lean import give_back_memory
from logd.daemon.listeners import BACKLOG, Listener, open_metrics
from logd.daemon.measuring import make_scraper
from logd.daemon.notify import Notifier
from logd.daemon.ownlog import OwnLog
from logd.daemon.tls import ServerContext
from logd.engine.engine import Engine
from logd.errors import LogdError, NotFound
from logd.events import EventBus
from logd.images.store import ImageStore
from logd.logstore.follow import Watcher
from logd.runtime.supervisor import Supervisor

log = logging.getLogger(__name__)
EXTEND_S: Final = 30.0
"""How much more time is asked of the service manager while containers are found again, and again at half of it."""
FOR_EVER_S: Final = 10**8
EVENT_RELOAD: Final = "reload"
MAX_HEADER_BYTES: Final = 1 << 20
"""Of a request's line, and of each header: what Go's server, and so dockerd, takes of all of them together."""


class Service:
    """The running daemon. `run` returns when it was told to stop."""

    def __init__(
        self, config: DaemonConfig, read_settings: Callable[[], Loaded], own_log: OwnLog, notifier: Notifier
    ) -> None:
        self._config = config
        self._read_settings = read_settings
        self._own_log = own_log
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._tls: list[ServerContext] = []
        self._access = Access()
        self._events = EventBus()
        self._engine: Engine | None = None
        self._ready = False

    async def run(self, listeners: list[Listener]) -> None:
        """Serve on `listeners`, which are closed at the end, until SIGTERM or SIGINT."""
        self._tls = [one.tls for one in listeners if one.tls]
        self._access = Access(self._config, [str(one.path) for one in listeners if one.viewers])
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        for number, action in self._signals().items():
            loop.add_signal_handler(number, action)
        async with AsyncExitStack() as stack:
            for listener in listeners:
                stack.callback(listener.close)
            measured = open_metrics(self._config)
            for one in measured:
                stack.callback(one.close)
            _background(stack, self._feed_watchdog(), "watchdog")
            _background(stack, give_back_memory(), "memory")
            engine, images, watcher = await self._build(stack)
            scraper = make_scraper(engine, self._events, self._config, stack)
            self._access.tell_cut = scraper.daemon.cut
            runner = Runner(
                make_app(engine, images, self._events, self._config, watcher, scraper, self._access),
                self._access,
                handle_signals=False,
                handler_cancellation=True,
                access_log=None,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
            await runner.setup()
            stack.push_async_callback(self._close_runner, runner)
            metrics = MetricsListener(scraper)
            stack.push_async_callback(metrics.close)
            await metrics.start(measured)
            await self._serve(runner, listeners)

    def _signals(self) -> dict[signal.Signals, Callable[[], None]]:
        return {signal.SIGTERM: self._ask_to_stop, signal.SIGINT: self._ask_to_stop, signal.SIGHUP: self._reload}

    async def _build(self, stack: AsyncExitStack) -> tuple[Engine, ImageStore, Watcher]:
        watcher = Watcher()
        await watcher.start()
        stack.callback(watcher.close)
        images = ImageStore(self._config.data_root / "images")
        supervisor = Supervisor(self._config.exec_root)
        await supervisor.start()
        stack.push_async_callback(supervisor.close)
        engine = Engine(self._config, images, supervisor, self._events, watcher)
        stack.push_async_callback(engine.shutdown)
        extending = asyncio.create_task(self._extend(), name="extend the start's timeout")
        try:
            await engine.restore()
            await self._end_builds(engine)
        finally:
            extending.cancel()
        self._engine = engine
        return engine, images, watcher

    async def _end_builds(self, engine: Engine) -> None:
        """Remove the containers and files of builds that a crash has ended."""
        root = self._config.data_root / BUILDS
        for name in left_behind(root):
            with contextlib.suppress(NotFound):
                await engine.remove(name, force=True, volumes=True)
        forget_all(root)

    async def _serve(self, runner: web.AppRunner, listeners: list[Listener]) -> None:
        for listener in listeners:
            await web.SockSite(runner, listener.socket, ssl_context=listener.tls, backlog=BACKLOG).start()
            log.info("API listen on %s%s", listener.name, ", read-only" if listener.viewers else "")
        self._ready = True
        log.info("Daemon has completed initialization")
        self._notifier.ready("Serving")
        await self._stop.wait()
        self._notifier.stopping()
        log.info("stopping; containers go on")

    async def _close_runner(self, runner: Runner) -> None:
        """End the requests: streams at once, others within shutdown-timeout, all at a second signal."""
        runner.give(_seconds(self._config.shutdown_timeout))
        closing = asyncio.create_task(runner.cleanup(), name="end requests")
        forced = asyncio.create_task(self._force.wait(), name="second signal")
        await asyncio.wait({closing, forced}, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not closing.done():
            log.warning("requests were cut off by a second signal")
            closing.cancel()
        await asyncio.wait({closing})

    def _ask_to_stop(self) -> None:
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    def _reload(self) -> None:
        """Read the settings again; a mistake in them changes nothing."""
        if self._ready:
            self._notifier.reloading()
        try:
            loaded = self._read_settings()
            for context in self._tls if loaded.config.tlsverify else ():
                context.renew(loaded.config)
        except LogdError as error:
            log.error("settings not reloaded: %s", error)  # noqa: TRY400 - expected: no traceback
        else:
            needs_restart = self._config.take_over(loaded.config)
            self._access.renew()
            if self._engine is not None:
                self._engine.limit_stores()
            self._own_log.set_level("debug" if self._config.debug else self._config.log_level)
            for key in needs_restart:
                log.warning("%s has changed and needs a restart of logd", key)
            log.info("settings reloaded", extra={"file": str(loaded.path or "none")})
            self._events.publish(
                "daemon", EVENT_RELOAD, daemon_id(self._config.data_root), reloaded.attributes(self._config)
            )
        if self._ready:
            self._notifier.ready("Serving")

    async def _extend(self) -> None:
        while True:
            self._notifier.extend(EXTEND_S, "Finding containers again")
            await asyncio.sleep(EXTEND_S / 2)

    async def _feed_watchdog(self) -> None:
        while self._notifier.watchdog_s:
            self._notifier.send("WATCHDOG=1")
            await asyncio.sleep(self._notifier.watchdog_s)


def _background(stack: AsyncExitStack, work: Any, name: str) -> None:
    task = asyncio.create_task(work, name=name)
    stack.callback(task.cancel)


def _seconds(timeout_s: int) -> float:
    return timeout_s if timeout_s >= 0 else FOR_EVER_S


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Put what nobody awaited into our log."""
    error = context.get("exception")
    info = (type(error), error, error.__traceback__) if error is not None else None
    log.error("%s", context.get("message", "error in the event loop"), exc_info=info)
