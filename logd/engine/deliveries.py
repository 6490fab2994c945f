"""The deliveries of containers: when they begin and end, what waits for them after a removal, how they are changed.

A cursor is made before there is output, so that nothing can be let go that a driver has not had. It is the store's
file, and moves with it; a forwarder that dies loses nothing.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from logd.config import DaemonConfig
from logd.container import Container
from logd.driver import parse_options
from logd.engine.logopts import logging_of, store_options, told
from logd.errors import InvalidParameter, NotFound
from logd.forward.account import account
from logd.forward.routes import DeliveryOptions, Route
from logd.forward.supervision import NO_ANSWER, Attachment, Forwarding
from logd.logstore.cursor import parse_cursor
from logd.logstore.progress import Progress, ProgressFile, read_progress, remove_progress
from logd.logstore.reader import end_positions
from logd.logstore.trim import trim
from logd.spec import LogConfig

log = logging.getLogger(__name__)

START: Final = "start"
NOW: Final = "now"
DRAIN_LOOK_S: Final = 0.05
WELL: Final = ("idle", "delivering", "starting")
"""States of a delivery, or of its forwarder, in which nothing is wrong."""


class Deliveries:
    """What is delivered of all containers. Made once by the engine."""

    def __init__(self, config: DaemonConfig, forwarding: Forwarding) -> None:
        self._config = config
        self._forwarding = forwarding
        self._endings: dict[str, asyncio.Task[None]] = {}

    # -- a container's life ------------------------------------------------------------------------------------------

    def prepare(self, container: Container) -> None:
        """Make the cursors of a new container (blocks)."""
        for route in logging_of(container.host.log_config).routes:
            _make_cursor(container, route, (0, 0))

    def begin(self, container: Container) -> None:
        """Deliver what a container that runs prints, and what earlier runs left."""
        self._attach(container, logging_of(container.host.log_config).routes, is_ended=False)

    def end(self, container: Container) -> None:
        """The container's output has ended: deliver the rest, then let the forwarder forget it."""
        for key in self._keys(container):
            if self._forwarding.find(key):
                self._forwarding.end(key)
                self._forget_at_end(key, container)

    def resume(self, container: Container) -> None:
        """Deliver, after a start of the daemon, what is left of a container that does not run."""
        routes = [route for route in logging_of(container.host.log_config).routes if _is_behind(container, route)]
        self._attach(container, routes, is_ended=True)
        for route in routes:
            self._forget_at_end(f"{container.id}/{route.name}", container)

    def _attach(self, container: Container, routes: Iterable[Route], *, is_ended: bool) -> None:
        limits = logging_of(container.host.log_config).limits
        info = told(container, self._config)
        for route in routes:
            key, folder = f"{container.id}/{route.name}", str(container.log_dir)
            self._cancel_ending(key)
            self._forwarding.attach(Attachment(key, route, info, folder, limits.max_line_size, is_ended))

    def _forget_at_end(self, key: str, container: Container) -> None:
        self._endings[key] = asyncio.create_task(self._forget_when_done(key, container), name=f"end of {key[:12]}")

    def _cancel_ending(self, key: str) -> None:
        if ending := self._endings.pop(key, None):
            ending.cancel()

    async def _forget_when_done(self, key: str, container: Container) -> None:
        if attachment := self._forwarding.find(key):
            await attachment.done.wait()
            await self._forwarding.detach(key)
        if not (container.state.running or container.removed):
            options = store_options(container.host.log_config, self._config)
            try:
                await asyncio.to_thread(trim, str(container.log_dir), options)
            except OSError as error:
                log.debug("trimming: %s", error, extra={"container": container.id})
        self._endings.pop(key, None)

    # -- removal -----------------------------------------------------------------------------------------------------

    def owes(self, container: Container) -> bool:
        """Tell whether a container that is about to be removed has output that is to be delivered still (blocks)."""
        return any(_is_behind(container, route) for route in self._lasting(container))

    async def settle(self, container: Container) -> None:
        """Return once everything of a removed container is delivered to destinations that do not go with it."""
        lasting = self._lasting(container)
        for route in logging_of(container.host.log_config).routes:
            if route not in lasting:
                await self._forwarding.detach(f"{container.id}/{route.name}")
        for route in lasting:
            key = f"{container.id}/{route.name}"
            self._cancel_ending(key)
            if await asyncio.to_thread(_is_behind, container, route) and not self._forwarding.find(key):
                self._attach(container, [route], is_ended=True)
            if attachment := self._forwarding.find(key):
                attachment.folder = str(container.log_dir)  # it has moved: for a forwarder that is restarted
                self._forwarding.end(key)
                await attachment.done.wait()
                await self._forwarding.detach(key)

    def _lasting(self, container: Container) -> list[Route]:
        """Return the routes of which the destination does not go with the container."""
        driver = self._forwarding.plugins.driver
        return [one for one in logging_of(container.host.log_config).routes if not driver(one.driver).is_local]

    # -- changes -----------------------------------------------------------------------------------------------------

    async def check_begin(self, container: Container, begin: str) -> None:
        """Raise InvalidParameter, or NotFound, for a place at which a new driver can't begin."""
        await asyncio.to_thread(_begin_positions, container, begin)

    def leaving(self, container: Container, new: LogConfig) -> list[str]:
        """Return the names of the drivers that a container has and `new` does not."""
        after = {route.name: route.driver for route in logging_of(new).routes}
        before = logging_of(container.host.log_config).routes
        return [route.name for route in before if after.get(route.name) != route.driver]

    async def drain(self, container: Container, names: Iterable[str]) -> None:
        """Return once these drivers have delivered what has been printed by now."""
        folder = str(container.log_dir)
        ends = await asyncio.to_thread(end_positions, folder)
        for name in names:
            while progress := (await asyncio.to_thread(read_progress, folder)).get(name):
                if all(at >= end for at, end in zip(progress.positions, ends, strict=True)):
                    break
                await asyncio.sleep(DRAIN_LOOK_S)

    async def change(self, container: Container, new: LogConfig, begin: str) -> None:
        """Get ready to deliver as `new` says (checked): stop what goes or changes, make the cursors of what comes.

        Drivers that stay go on where they are. One that is new begins at `begin`: now, start, or cursor:NAME of
        another driver, or cursor:VERSION:STDOUT:STDERR. Raises InvalidParameter or NotFound, and nothing is done.
        """
        place = await asyncio.to_thread(_begin_positions, container, begin)
        gone = set(self.leaving(container, new))
        kept = {one.name: one for one in logging_of(container.host.log_config).routes if one.name not in gone}
        for name in gone:
            await self._stop(f"{container.id}/{name}")
            await asyncio.to_thread(remove_progress, str(container.log_dir), name)
        for route in logging_of(new).routes:
            if route.name not in kept:
                await asyncio.to_thread(_make_cursor, container, route, place)
            elif route != kept[route.name]:
                await self._stop(f"{container.id}/{route.name}")
                await asyncio.to_thread(_change_claim, container, route)

    async def _stop(self, key: str) -> None:
        self._cancel_ending(key)
        await self._forwarding.detach(key)

    # -- status ------------------------------------------------------------------------------------------------------

    async def status(self, container: Container) -> list[dict[str, Any]]:
        """Return how each driver of a container fares, with the account of its bytes."""
        live = await self._forwarding.status(self._keys(container))
        accounts = await asyncio.to_thread(account, str(container.log_dir))
        shown = []
        for route in logging_of(container.host.log_config).routes:
            said = live.get(f"{container.id}/{route.name}", {})
            shown.append({
                "name": route.name,
                "driver": route.driver,
                "state": said.get("state", NO_ANSWER if said.get("forwarder") == "running" else "idle"),
                "forwarder": said.get("forwarder", "none"),
                "error": said.get("error", ""),
                "error_ns": said.get("error_ns", 0),
                "oldest_ns": (oldest_ns := said.get("oldest_ns", 0)),
                "lag_s": max(0.0, (time.time_ns() - oldest_ns) / 1e9) if oldest_ns else 0.0,
                **accounts.get(route.name, {}),
            })  # fmt: skip
        return shown

    async def ailing(self) -> list[dict[str, str]]:
        """Return, with the last error, the drivers of containers that can't deliver at present."""
        found = []
        for key, said in (await self._forwarding.status()).items():
            attachment = self._forwarding.find(key)
            state, is_well = _faring(said)
            if attachment is None or is_well:
                continue
            route = attachment.route
            names = {"container": attachment.container.name, "name": route.name, "driver": route.driver}
            found.append({**names, "state": state, "error": said.get("error", "")})
        return found

    async def worst(self) -> dict[str, tuple[str, float]]:
        """Return, by container's id, state and lag in seconds of the driver that fares worst: ailing, then late."""
        found: dict[str, tuple[bool, float, str]] = {}
        now_ns = time.time_ns()
        for key, said in (await self._forwarding.status()).items():
            state, is_well = _faring(said)
            oldest_ns = said.get("oldest_ns", 0)
            lag_s = max(0.0, (now_ns - oldest_ns) / 1e9) if oldest_ns else 0.0
            identifier = key.partition("/")[0]
            found[identifier] = max(found.get(identifier, (False, 0.0, "")), (not is_well, lag_s, state))
        return {identifier: (state, lag_s) for identifier, (_, lag_s, state) in found.items()}

    async def health(self) -> dict[str, tuple[str, int]]:
        """Return, by CONTAINER_ID/NAME, the deliveries that are not idle: see Forwarding.health."""
        return await self._forwarding.health()

    def forwarders(self) -> list[dict[str, Any]]:
        """Return the processes that run drivers."""
        return [
            {
                "plugin": one.plugin,
                "state": one.state,
                "pid": one.pid,
                "restarts": one.restarts,
                "lag": one.lag_s,
                "error": one.error,
                "routes": len(one.attachments),
            }
            for one in self._forwarding.forwarders()
        ]

    def _keys(self, container: Container) -> list[str]:
        return [f"{container.id}/{route.name}" for route in logging_of(container.host.log_config).routes]

    async def close(self) -> None:
        """Stop delivering; a daemon that starts later goes on."""
        for task in self._endings.values():
            task.cancel()
        await self._forwarding.close()


def _faring(said: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the state of a delivery, of which its forwarder said so much, and whether nothing is wrong."""
    state = said.get("state", NO_ANSWER) if said["forwarder"] == "running" else said["forwarder"]
    return state, state in WELL or (state == "waiting" and not said["error"])


def _fresh(container: Container, route: Route, begin: tuple[int, int]) -> Progress:
    options = parse_options(route.driver, DeliveryOptions, route.delivery)
    mode = logging_of(container.host.log_config).limits.mode
    return Progress(positions=begin, begin=begin, budget=options.undelivered_max_size, is_blocking=mode == "blocking")


def _make_cursor(container: Container, route: Route, begin: tuple[int, int]) -> None:
    """Make a driver's cursor; one that is there stays."""
    ProgressFile(str(container.log_dir), route.name, _fresh(container, route, begin)).close()


def _change_claim(container: Container, route: Route) -> None:
    """Enter changed options that the store's writer goes by."""
    fresh = _fresh(container, route, (0, 0))
    file = ProgressFile(str(container.log_dir), route.name, fresh)
    try:
        file.progress.budget, file.progress.is_blocking = fresh.budget, fresh.is_blocking
        file.save()
    finally:
        file.close()


def _is_behind(container: Container, route: Route) -> bool:
    """Tell whether there is output beyond a driver's cursor (blocks)."""
    progress = read_progress(str(container.log_dir)).get(route.name)
    if progress is None:
        return False
    ends = end_positions(str(container.log_dir))
    return any(at < end for at, end in zip(progress.positions, ends, strict=True))


def _begin_positions(container: Container, begin: str) -> tuple[int, int]:
    """Return where a new driver begins (blocks)."""
    folder = str(container.log_dir)
    kind, colon, name = begin.partition(":")
    if begin == START:
        return 0, 0
    if begin == NOW:
        return end_positions(folder)
    if kind != "cursor" or not colon:
        raise InvalidParameter(f"from: {begin!r} (accepted: {NOW}, {START}, cursor:NAME, cursor:1:STDOUT:STDERR)")
    if ":" in name:
        return parse_cursor(name)
    progress = read_progress(folder).get(name)
    if progress is None:
        raise NotFound(f"container {container.name} has no log driver named {name!r}")
    return progress.positions
