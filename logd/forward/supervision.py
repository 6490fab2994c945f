"""The daemon's side of the forwarders: start them, hand them their routes, restart them when they die or hang.

Built-in drivers share one forwarder; each plugin's drivers have one of their own, so that a stranger's mistake is that
driver's alone. A forwarder that was killed goes on from its cursors; one that keeps being killed is left alone for a
while.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import logd
from logd.batch import ContainerInfo
from logd.forward.routes import Route
from logd.forward.wire import Closed, Line
from logd.plugins import BUILT_IN, Plugins

log = logging.getLogger(__name__)

CODE: Final = "import sys; sys.path.insert(0, {root!r}); from logd.forward.worker import main; main()"
HANG_S: Final = 10.0
"""A forwarder whose loop has not turned for so long is killed."""
START_S: Final = 30.0
STOP_S: Final = 5.0
BACKOFF_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0)
QUARANTINE_S: Final = 60.0
"""How long a plugin's forwarder is left alone after its last back-off ended in a death, too."""
CALM_S: Final = 10.0
"""A forwarder that lived this long begins the back-off anew."""
LAG_WARNING_S: Final = 1.0
ANSWER_S: Final = 2.0
HEALTH_S: Final = 0.1
"""The same for who asks at every scrape."""
NO_ANSWER: Final = "no answer"
"""The state of a delivery whose forwarder is held up, by a driver that does not give its loop back."""


@dataclass
class Attachment:
    """One driver of one container, as its forwarder is to be told."""

    key: str
    """`CONTAINER_ID/NAME`."""
    route: Route
    container: ContainerInfo
    folder: str
    """Of the store."""
    line_bytes: int
    """Beyond how many bytes a line comes in parts."""
    is_ended: bool = False
    """Nothing more will come."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once all is delivered of what has ended."""


class Forwarder:
    """One process and what it has to deliver, over all its restarts."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.attachments: dict[str, Attachment] = {}
        self.state = "starting"
        """starting, running, restarting, quarantined, stopped."""
        self.error = ""
        self.restarts = 0
        self.lag_s = 0.0
        """How late its loop was when it last said so."""
        self.pid = 0
        self._line: Line | None = None
        self._heard_at = 0.0
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"forwarder {plugin}")

    # -- routes ------------------------------------------------------------------------------------------------------

    def attach(self, attachment: Attachment) -> None:
        """Begin to deliver, at the cursor; in place of what has the same key."""
        self.attachments[attachment.key] = attachment
        self._say("attach", **_said(attachment))

    def end(self, key: str) -> None:
        """Nothing more will come for this key: its event `done` is set once all is delivered."""
        self.attachments[key].is_ended = True
        self._say("end", key=key)

    async def detach(self, key: str) -> None:
        """Stop delivering; when this returns the cursor is free."""
        if self.attachments.pop(key, None) is not None:
            await self._ask("detach", key=key)

    async def status(self, keys: list[str] | None) -> dict[str, Any]:
        """Return by key how deliveries fare; nothing of a forwarder that does not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                return dict((await self._ask("status", keys=keys)).get("routes", {}))
        return {}

    async def health(self) -> dict[str, tuple[str, int]]:
        """Return by key the deliveries that are not idle: the state, and when the oldest line came that waits, or 0.

        Of a forwarder that does not answer at once, or does not run, these are all.
        """
        state = self.state
        if state == "running":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEALTH_S):
                    if "busy" in (answer := await self._ask("health")):
                        return {key: (str(found[0]), int(found[1])) for key, found in answer["busy"].items()}
            state = NO_ANSWER
        return dict.fromkeys(self.attachments, (state, 0))

    def _say(self, operation: str, **fields: Any) -> None:
        """Tell the forwarder if there is one; the next one is told everything anyway."""
        if self._line is not None and self.state == "running":
            self._line.say({"op": operation, **fields})

    async def _ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Ask the forwarder if there is one."""
        if self._line is None or self.state != "running":
            return {}
        try:
            return await self._line.ask(operation, **fields)
        except Closed:
            return {}

    # -- the process -------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop the forwarder: what is being sent gets a moment, the cursors are on the disk."""
        self._closing.set()
        if self._line is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    self._line.say({"op": "stop"})
                    await asyncio.wait({self._task})
        self._task.cancel()
        await asyncio.wait({self._task})
        self.state = "stopped"

    async def _run(self) -> None:
        deaths = 0
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                await self._live()
            except OSError as error:
                self.error = str(error)
            if self._closing.is_set():
                return
            self.restarts += 1
            deaths = 0 if time.monotonic() - began > CALM_S else deaths + 1
            delay = BACKOFF_S[min(deaths, len(BACKOFF_S) - 1)]
            self.state = "restarting"
            if deaths >= len(BACKOFF_S) and self.plugin != BUILT_IN:
                self.state, delay = "quarantined", QUARANTINE_S
            log.warning("forwarder ended (%s), %s", self.error, self.state, extra={"plugin": self.plugin})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)

    async def _live(self) -> None:
        """Run one process from its start to its end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            argv = [sys.executable, "-c", CODE.format(root=str(Path(logd.__file__).parents[1]))]
            process = await asyncio.create_subprocess_exec(
                *argv,
                str(theirs.fileno()),
                str(os.getpid()),
                self.plugin,
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                cwd="/",
            )
        self.pid = process.pid
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        self._line = line = Line(reader, writer)
        self._heard_at = time.monotonic() + START_S - HANG_S
        listening = asyncio.create_task(line.listen(self._hear), name="forwarder's words")
        watching = asyncio.create_task(self._kill_if_it_hangs(process), name="forwarder's watch")
        try:
            code = await process.wait()
            self.error = f"signal {-code}" if code < 0 else f"status {code}"
            await asyncio.wait({listening}, timeout=1)
        finally:
            self._line, self.pid = None, 0
            for task in (listening, watching):
                task.cancel()
            line.close()
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _kill_if_it_hangs(self, process: asyncio.subprocess.Process) -> None:
        while True:
            await asyncio.sleep(1)
            silence_s = time.monotonic() - self._heard_at
            if silence_s > HANG_S:
                log.error("forwarder hangs: killed", extra={"plugin": self.plugin, "pid": process.pid})
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                return

    def _hear(self, message: dict[str, Any]) -> None:
        self._heard_at = time.monotonic()
        event = message.get("event")
        if event == "ready":
            self.state = "running"
            for attachment in self.attachments.values():
                self._say("attach", **_said(attachment))
        elif event == "beat":
            self.lag_s = message["lag"]
            if self.lag_s > LAG_WARNING_S:
                log.warning("forwarder is late", extra={"plugin": self.plugin, "lag_s": self.lag_s})
        elif event == "done":
            if message["key"] in self.attachments:
                self.attachments[message["key"]].done.set()
        elif event == "log":
            text, fields = message["text"], message["fields"]
            logging.getLogger(message["name"]).log(message["level"], "%s", text, extra=_safe(fields))


class Forwarding:
    """All forwarders of the daemon."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self._forwarders: dict[str, Forwarder] = {}

    def attach(self, attachment: Attachment) -> None:
        """Begin to deliver, at the cursor; in place of what has the same key."""
        self._of(attachment.route.driver).attach(attachment)

    def find(self, key: str) -> Attachment | None:
        """Return what is attached under a key."""
        forwarder = self._with(key)
        return forwarder.attachments[key] if forwarder else None

    def end(self, key: str) -> None:
        """Nothing more will come for a key."""
        if forwarder := self._with(key):
            forwarder.end(key)

    async def detach(self, key: str) -> None:
        """Stop delivering; when this returns the cursor is free."""
        if forwarder := self._with(key):
            await forwarder.detach(key)

    def _with(self, key: str) -> Forwarder | None:
        return next((one for one in self._forwarders.values() if key in one.attachments), None)

    async def status(self, keys: list[str] | None = None) -> dict[str, Any]:
        """Return by key how deliveries fare: see worker.Outlet.status, and `forwarder`, the process's state."""
        asked = [
            one for one in self._forwarders.values() if keys is None or not one.attachments.keys().isdisjoint(keys)
        ]  # one that hangs makes nobody wait who does not ask about it
        found: dict[str, Any] = {}
        for forwarder, said in zip(asked, await asyncio.gather(*(one.status(keys) for one in asked)), strict=True):
            for key in forwarder.attachments:
                if keys is None or key in keys:
                    found[key] = {**said.get(key, {}), "forwarder": forwarder.state}
        return found

    async def health(self) -> dict[str, tuple[str, int]]:
        """Return by key the deliveries that are not idle: see Forwarder.health. Takes no longer than HEALTH_S."""
        found: dict[str, tuple[str, int]] = {}
        for busy in await asyncio.gather(*(one.health() for one in self._forwarders.values())):
            found |= busy
        return found

    def forwarders(self) -> list[Forwarder]:
        """Return the processes, for whoever shows them."""
        return list(self._forwarders.values())

    async def close(self) -> None:
        """Stop them all."""
        await asyncio.gather(*(one.close() for one in self._forwarders.values()))

    def _of(self, driver: str) -> Forwarder:
        plugin = self.plugins.origin(driver)
        if plugin not in self._forwarders:
            self._forwarders[plugin] = Forwarder(plugin)
        return self._forwarders[plugin]


def _said(attachment: Attachment) -> dict[str, Any]:
    return {
        "key": attachment.key,
        "route": asdict(attachment.route),
        "container": asdict(attachment.container),
        "folder": attachment.folder,
        "line_bytes": attachment.line_bytes,
        "ended": attachment.is_ended,
    }


def _safe(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields under names that logging does not take for its own."""
    reserved = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime"}
    return {f"{name}_" if name in reserved else name: value for name, value in fields.items()}
