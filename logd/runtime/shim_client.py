"""A container's shim as the daemon sees it: what can be asked of it, what it has said, who comes in its place."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from logd.errors import LogdError
from logd.logstore.options import StoreOptions
from logd.runtime import terminal
from logd.runtime.channel import Channel, ChannelClosed
from logd.runtime.command import RUNTIME_FAILED_EXIT
from logd.runtime.protocol import SOCKET_NAME, Event, ExitStatus, Launch, connect_in, read_exit_status, start_ticks

log = logging.getLogger(__name__)

RECONNECT_S: Final = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Between attempts to reach a shim that the keeper is replacing; the last one is repeated."""
PATIENCE: Final = 4
"""How many attempts it takes until a replacement is asked for."""


class RuntimeFailure(LogdError):
    """The container could not be created or started; `container_exit_code` is Docker's 125 … 128."""

    def __init__(self, message: str, container_exit_code: int = RUNTIME_FAILED_EXIT) -> None:
        super().__init__(message)
        self.container_exit_code = container_exit_code
        if container_exit_code in (126, 127):
            self.status = 400


class Overseer(Protocol):
    """What a Shim needs of the Supervisor that it belongs to."""

    closing: bool

    async def adopt_by_keeper(self, launch: Launch, connection: socket.socket) -> None:
        """Let the keeper watch a shim that outlived the last one. Raises RuntimeFailure."""

    async def recover(self, launch: Launch) -> bool:
        """Nobody watches a container that lives: have a shim made that opens its pipes anew; false if it is dead."""

    def forget(self, shim: "Shim") -> None:
        """The shim is gone for good."""


class Shim:
    """A container's shim as the daemon sees it; the same object while shims replace each other underneath."""

    def __init__(self, supervisor: Overseer, launch: Launch) -> None:
        loop = asyncio.get_running_loop()
        self.launch = launch
        self.pid = 0
        """PID 1 of the container, on the host."""
        self.exited: asyncio.Future[ExitStatus] = loop.create_future()
        """How PID 1 ended."""
        self.drained: asyncio.Future[tuple[int, int]] = loop.create_future()
        """The end positions of stdout and stderr, (0, 0) if the store tells. At most about 2 s after `exited`."""
        self.created: asyncio.Future[int] = loop.create_future()
        self.gone = asyncio.Event()
        """No shim process is connected and none will be: the output has ended for good."""
        self.saw_end = True
        """False once all shims were lost before the end of the output."""
        self.held = True
        """Whether duplicates of its descriptors lie outside of it: with a keeper, or on their way to one."""
        self._supervisor = supervisor
        self._channel: Channel | None = None
        self._pidfd = -1
        self._connected = asyncio.Event()
        self._lease: tuple[int, int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._handing_over: asyncio.Task[None] | None = None

    # -- what the engine asks for --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Let PID 1 run the container's command. Raises RuntimeFailure."""
        answer, _ = await self._ask("start")
        if "error" in answer:
            raise RuntimeFailure(answer["error"], answer.get("exit_code", RUNTIME_FAILED_EXIT))

    def signal(self, number: int) -> None:
        """Send PID 1 a signal, whatever state the shim is in. Raises ProcessLookupError if PID 1 is gone."""
        if self._pidfd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    async def stdin(self) -> int:
        """Return a descriptor of stdin's write end, non-blocking; the caller closes it. Raises LogdError.

        Of a container with a terminal it is the terminal's master.
        """
        answer, descriptors = await self._ask("stdin")
        if "error" in answer:
            raise LogdError(answer["error"])
        return descriptors[0]

    async def close_stdin(self) -> None:
        """Let the container see the end of its stdin."""
        await self._ask("close-stdin")

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal. Raises LogdError, OSError if that is gone."""
        master = await self.stdin()
        try:
            terminal.set_size(master, rows, columns)
        finally:
            os.close(master)

    async def lease(self, positions: tuple[int, int] | None) -> None:
        """Keep everything from these positions on, and make the container wait if it gets too far ahead.

        Called again as a lossless reader moves on; None ends the lease.
        """
        self._lease = positions
        with contextlib.suppress(ChannelClosed):  # with the shim gone there is nothing that could drop anything
            await self._ask("lease", positions=positions)

    def change_store(self, options: StoreOptions) -> None:
        """Have the shim, and those that replace it, go by other limits of the store; one that is busy does so later."""
        self.launch = self.launch._replace(store=options)
        if self._channel is not None:
            self._spawn(self._tell_store())

    async def _tell_store(self) -> None:
        with contextlib.suppress(ChannelClosed):  # the next one is told at once
            answer, _ = await self._ask("store", options=self.launch.store)
            if "error" in answer:
                log.debug("limits hold from the next start: %s", answer["error"])

    async def clear(self) -> None:
        """Remove what the store holds so far. Raises LogdError."""
        answer, _ = await self._ask("clear")
        if "error" in answer:
            raise LogdError(answer["error"])

    async def quit(self) -> None:
        """End a shim that still waits for output of a container that has ended."""
        with contextlib.suppress(ChannelClosed):
            await self._ask("quit")

    async def process_ended(self, timeout_s: float) -> bool:
        """Wait for PID 1's end as the kernel tells it, also when the shim hangs on its disk; false on the timeout."""
        if self._pidfd < 0 or self.exited.done():
            return True
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        watched = os.dup(self._pidfd)

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(watched, end)
        try:
            await asyncio.wait_for(ended, timeout_s)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        return True

    async def _ask(self, operation: str, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        """Ask the shim; if it dies over the question, ask the one that replaces it."""
        while True:
            await self._connected.wait()
            if self._channel is None or self.gone.is_set():
                raise ChannelClosed
            try:
                return await self._channel.ask(operation, **fields)
            except ChannelClosed:
                if self.gone.is_set():
                    raise
                await asyncio.sleep(0)

    # -- connection ----------------------------------------------------------------------------------------------

    def connect(self, connection: socket.socket, *, is_new: bool = False) -> None:
        """Go on with this connection; `is_new`: to a shim that is just made, by our launch."""
        self._channel = Channel(connection, self._heard, self._lost)
        self._connected.set()
        if not is_new:
            self._spawn(self._tell_store())
        if self._lease is not None:
            self._spawn(self.lease(self._lease))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"shim {self.launch.container_id[:12]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _heard(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == Event.STATE:
            self.held = message["held"]
            if not self.held:
                self.hand_to(self._supervisor.adopt_by_keeper)
            if message["pid"]:
                self._created(message["pid"])
            if message["exit"]:
                self._exited(message["exit"])
            if message["drained"]:
                self._drained(message["drained"])
        elif event == Event.CREATED:
            self._created(message["pid"])
        elif event == Event.EXIT:
            self._exited(message)
        elif event == Event.DRAINED:
            self._drained(message["ends"])
        elif event == Event.FAILED and not self.created.done():
            self.created.set_exception(RuntimeFailure(message["message"], message["exit_code"]))

    def know(self, state: dict[str, Any]) -> None:
        """Take PID 1 from what the shim left on disk, so that it can be signalled although the shim does not speak."""
        self.pid = state["pid"]
        with contextlib.suppress(ProcessLookupError):
            opened = os.pidfd_open(self.pid)
            if start_ticks(self.pid) == state["ticks"]:
                self._pidfd = opened
            else:  # the number belongs to another process by now
                os.close(opened)

    def _created(self, pid: int) -> None:
        if not self.pid:
            self.pid = pid
            with contextlib.suppress(ProcessLookupError):  # over already: EXIT follows
                self._pidfd = os.pidfd_open(pid)
        if not self.created.done():
            self.created.set_result(pid)

    def _exited(self, fields: dict[str, Any]) -> None:
        if not self.exited.done():
            self.exited.set_result(ExitStatus(**{name: fields[name] for name in ExitStatus._fields}))

    def _drained(self, ends: list[int]) -> None:
        if not self.drained.done():
            self.drained.set_result((ends[0], ends[1]))

    def _lost(self) -> None:
        """The connection is gone: the shim has ended, was killed and will be replaced, or never came to life."""
        self._connected.clear()
        self._channel = None
        if not self.created.done() and not self.pid:
            self.created.set_exception(RuntimeFailure("the container's shim died while it created the container"))
        if self.drained.done() or not self.pid or self._supervisor.closing:
            self._end()
        else:
            self.reconnect()

    def reconnect(self) -> None:
        """Go on with the shim that comes next."""
        self._spawn(self._reconnect())

    async def _reconnect(self) -> None:
        """Find the shim that replaces the one that died; if nobody replaces it, have one made."""
        if self._handing_over is not None:  # what it held is on its way to a keeper, which then replaces it
            await asyncio.wait({self._handing_over})
        for attempt in range(1 << 30):
            await asyncio.sleep(RECONNECT_S[min(attempt, len(RECONNECT_S) - 1)])
            if connection := connect_in(self.launch.exec_dir, SOCKET_NAME):
                self.connect(connection)
                return
            if attempt < PATIENCE:
                continue
            status = read_exit_status(self.launch.exec_dir, self.launch.container_dir)
            if status and status.run == self.launch.run:
                self._exited(status._asdict())
                if self._is_stored():
                    self._drained([0, 0])  # one came and went: where the output ended is in the store
                if self.drained.done() or attempt > len(RECONNECT_S):
                    self._end()
                    return
                continue  # PID 1 has ended, and a shim still comes, if the keeper has what was not read of its output
            with contextlib.suppress(RuntimeFailure):  # the keeper has one in hand
                if not await self._supervisor.recover(self.launch):
                    self._end()
                    return

    def _is_stored(self) -> bool:
        """Tell whether the end of the output is in the store: then the exit lies in the container's folder too."""
        status = read_exit_status(self.launch.container_dir)
        return status is not None and status.run == self.launch.run

    def _end(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        self._connected.set()
        if self.pid and not self._supervisor.closing:
            if not self.exited.done():
                self.exited.set_result(_unknown(self.launch.run))
            if not self.drained.done():
                self.saw_end = False
                self.drained.set_result((0, 0))
        self._supervisor.forget(self)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def close(self) -> None:
        """Let the shim be; the daemon ends."""
        if self._channel is not None:
            self._channel.close()
        self._end()
        for task in self._tasks:
            task.cancel()

    def hand_to(self, keeper: Callable[[Launch, socket.socket], Coroutine[Any, Any, None]]) -> None:
        """Have the shim hand over duplicates at once to a new keeper, which may still have to be started.

        Until that takes it they lie in the connection of which we hold the keeper's end: there they outlive the shim.
        """
        if self._handing_over is not None:
            self._handing_over.cancel()
        self.held = False
        self._handing_over = self._spawn(self._hand_to(keeper))

    async def _hand_to(self, keeper: Callable[[Launch, socket.socket], Coroutine[Any, Any, None]]) -> None:
        if self._channel is None:
            return  # it has died too; whoever reconnects will see
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            self._spawn(self._ask_for_duplicates(self._channel, theirs))
            try:
                await keeper(self.launch, ours)
            except RuntimeFailure as error:  # it has been watched since
                log.debug("hand-over: %s", error, extra={"container": self.launch.container_id})

    async def _ask_for_duplicates(self, channel: Channel, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ChannelClosed):
            await channel.ask("keeper", (connection.fileno(),))
            self.held = True


def _unknown(run: int) -> ExitStatus:
    return ExitStatus(255, None, oom_killed=False, finished_ns=0, known=False, run=run)
