"""A forwarder: the process that runs drivers. `python -m logd.forward.worker DESCRIPTOR` is started by the daemon.

It keeps nothing that matters: cursors are on the disk, routes come from the daemon. It may be killed at any moment,
and ends when the daemon does.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from typing import Any, Final

from logd import plugins as plugin_loading
from logd.batch import ContainerInfo
from logd.driver import log_opts, parse_options
from logd.forward.delivery import Delivery
from logd.forward.destination import Destination
from logd.forward.routes import DeliveryOptions, Route
from logd.forward.wire import Line
from logd.logfields import fields_of
from logd.logstore.follow import Watcher
from logd.logstore.progress import Progress, ProgressFile
from logd.plugins import Plugins
from logd.processor import Processor
from logd.runtime import kinship

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
STOP_S: Final = 3.0
"""What a batch under way gets to end when the forwarder is stopped."""
GIVE_UP_S: Final = 10
"""After the daemon's end SIGALRM ends a forwarder that some driver holds up."""
LOCK_RETRY_S: Final = 0.05
NAME: Final = b"logd-forward"


class Outlet:
    """One route of one container in this process: its delivery, the task that runs it, the folder it reads."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.delivery: Delivery | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_ended = False
        self.error = ""

    @property
    def is_sending(self) -> bool:
        """Whether a batch is under way."""
        return self.delivery is not None and self.delivery.health.state == "delivering"

    def end(self) -> None:
        """Nothing more will come."""
        self.is_ended = True
        if self.delivery is not None:
            self.delivery.end()

    def status(self) -> dict[str, Any]:
        """Return how it fares."""
        if self.delivery is None:
            return {"state": "waiting", "error": self.error, "error_ns": 0, "oldest_ns": 0, "progress": None}
        return {**asdict(self.delivery.health), "progress": asdict(self.delivery.file.progress)}

    def health(self) -> tuple[str, int] | None:
        """Return its state and when the oldest line came that is not delivered; None if it has nothing to do."""
        if self.delivery is None:
            return ("waiting" if self.error else "starting"), 0
        health = self.delivery.health
        return None if health.state == "idle" else (health.state, health.oldest_ns)


class Worker:
    """The process's state."""

    def __init__(self, line: Line, plugins: Plugins, watcher: Watcher) -> None:
        self._line = line
        self._plugins = plugins
        self._watcher = watcher
        self._outlets: dict[str, Outlet] = {}
        self._destinations: dict[Any, Destination] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.stopped = asyncio.Event()

    def hear(self, message: dict[str, Any]) -> None:
        """Do what the daemon says, in the order in which it does."""
        operation, key = message["op"], message.get("key", "")
        if operation == "attach":
            self._attach(key, message)
        elif operation == "end" and key in self._outlets:
            self._outlets[key].end()
        elif operation == "detach":
            self._spawn(self._detach(key, message["seq"]), f"detach {key[:12]}")
        elif operation == "status":
            wanted = message["keys"]
            routes = {name: one.status() for name, one in self._outlets.items() if wanted is None or name in wanted}
            self._line.say({"re": message["seq"], "routes": routes})
        elif operation == "health":
            busy = {name: health for name, one in self._outlets.items() if (health := one.health()) is not None}
            self._line.say({"re": message["seq"], "busy": busy})
        elif operation == "stop":
            self.stopped.set()

    def _spawn(self, work: Any, name: str) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    # -- routes ------------------------------------------------------------------------------------------------------

    def _attach(self, key: str, message: dict[str, Any]) -> None:
        before = self._outlets.get(key)
        outlet = self._outlets[key] = Outlet(key)
        outlet.is_ended = message["ended"]
        outlet.task = self._spawn(self._run(outlet, message, before), f"delivery {key[:12]}")

    async def _detach(self, key: str, seq: int) -> None:
        await _end(self._outlets.pop(key, None))
        self._line.say({"re": seq})

    async def _run(self, outlet: Outlet, message: dict[str, Any], before: Outlet | None) -> None:
        """Deliver until the end, or until it is cancelled; first let end what had the key `before`."""
        await _end(before)
        route = Route(**message["route"])
        container = ContainerInfo(**{**message["container"], "args": tuple(message["container"]["args"]),
                                     "env": tuple(message["container"]["env"])})  # fmt: skip
        try:
            folder = os.open(message["folder"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._line.say({"event": "done", "key": outlet.key})
            return
        path = f"/proc/self/fd/{folder}"
        where, destination = self._destination(route, container)
        destination.users += 1
        try:
            file = await self._lock(path, route.name, outlet)
            outlet.delivery = self._delivery(container, route, path, destination, message["line_bytes"], file)
            if outlet.is_ended:
                outlet.delivery.end()
            try:
                is_done = await outlet.delivery.run()
            finally:
                outlet.delivery.close()
        finally:
            os.close(folder)
            destination.users -= 1
            if not destination.users:
                self._destinations.pop(where, None)
                await destination.close()
        if is_done:
            self._line.say({"event": "done", "key": outlet.key})

    async def _lock(self, folder: str, name: str, outlet: Outlet) -> ProgressFile:
        """Open the cursor; another forwarder, on its way out, may hold it for a moment."""
        while True:
            try:
                return ProgressFile(folder, name, Progress())
            except BlockingIOError:
                outlet.error = "another forwarder holds the cursor"
                await asyncio.sleep(LOCK_RETRY_S)

    def _delivery(
        self,
        container: ContainerInfo,
        route: Route,
        folder: str,
        destination: Destination,
        line_bytes: int,
        file: ProgressFile,
    ) -> Delivery:
        options = parse_options(route.driver, DeliveryOptions, route.delivery)
        processors = self._processors(route, container)
        subscription = self._watcher.subscribe(folder)
        return Delivery(container, route.name, folder, destination, options, processors, line_bytes, file, subscription)

    def _processors(self, route: Route, container: ContainerInfo) -> list[Processor]:
        made = []
        for factory in self._plugins.processors:
            known = log_opts(factory.options_type)
            chosen = {name: value for name, value in route.processing.items() if name in known}
            if chosen:
                made.append(factory.make(parse_options(route.driver, factory.options_type, chosen), container))
        return [one for one in made if one is not None]

    def _destination(self, route: Route, container: ContainerInfo) -> tuple[Any, Destination]:
        """Return the destination of a route, which containers with equal options share, and what it is known by."""
        kind = self._plugins.driver(route.driver)
        where = (route.driver, tuple(sorted(route.options.items())), container.id if kind.per_container else "")
        if where not in self._destinations:
            options = parse_options(f"{route.driver} log driver", kind.options_type, route.options)
            self._destinations[where] = Destination(kind(options))
        return where, self._destinations[where]

    async def close(self) -> None:
        """End all deliveries; what is being sent gets a moment."""
        tasks = {one.task for one in self._outlets.values() if one.task}
        sending = {one.task for one in self._outlets.values() if one.task and one.is_sending}
        for one in self._outlets.values():
            if one.delivery:
                one.delivery.pause()
        if sending:
            await asyncio.wait(sending, timeout=STOP_S)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)

    async def beat(self) -> None:
        """Tell the daemon, again and again, that the loop turns, and how late."""
        while True:
            due = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._line.say({"event": "beat", "lag": round(time.monotonic() - due, 3)})


async def _end(outlet: Outlet | None) -> None:
    """Stop what an outlet delivers; its cursor is free then."""
    if outlet is not None and outlet.task is not None:
        outlet.task.cancel()
        await asyncio.wait({outlet.task})


async def serve(connection: socket.socket) -> None:
    """Be a forwarder on this connection to the daemon until it ends."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    line = Line(reader, writer)
    logging.getLogger().addHandler(TellDaemon(line))
    logging.getLogger().setLevel(logging.INFO)
    plugins = plugin_loading.load()
    watcher = Watcher()
    await watcher.start()
    worker = Worker(line, plugins, watcher)
    line.say({"event": "ready", "broken": [[one.plugin, one.reason] for one in plugins.broken]})
    beating = asyncio.create_task(worker.beat(), name="beat")
    listening = asyncio.create_task(line.listen(worker.hear), name="daemon")
    stopping = asyncio.create_task(worker.stopped.wait(), name="stop")
    await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await worker.close()  # of a daemon that is gone the successor waits for our locks
    for task in (beating, listening, stopping):
        task.cancel()
    watcher.close()


class TellDaemon(logging.Handler):
    """Hands what is logged here to the daemon, whose log it becomes a part of."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        fields = {name: str(value) for name, value in fields_of(record).items()}
        self._line.say(
            {
                "event": "log",
                "level": record.levelno,
                "name": record.name,
                "text": record.getMessage(),
                "fields": fields,
            }
        )


def main() -> None:
    """`DESCRIPTOR PID`: our end of the connection to the daemon, and its pid."""
    kinship.set_name(NAME)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the daemon says when
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.alarm(GIVE_UP_S))
    kinship.die_with_parent(int(sys.argv[2]), signal.SIGTERM)
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
