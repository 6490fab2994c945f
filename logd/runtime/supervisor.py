"""The daemon's side of keeper and shims: start them, replace them, adopt those that outlived an earlier daemon.

The daemon may be killed at any moment; whatever is here is made again from the sockets and files in the exec-root.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import logd
from logd.errors import LogdError
from logd.runtime.channel import Channel, ChannelClosed
from logd.runtime.protocol import (
    KEEPER_SOCKET,
    SOCKET_NAME,
    STATE_FILE,
    Launch,
    connect_in,
    read_exit_status,
    read_json,
    start_ticks,
)
from logd.runtime.shim_client import RECONNECT_S, RuntimeFailure, Shim

log = logging.getLogger(__name__)

KEEPER_LOG: Final = "keeper.log"
KEEPER_START_S: Final = 10.0
KEEPER_RETRY_S: Final = 5.0
"""Between attempts to replace a keeper that died."""
SILENT_S: Final = 2.0
"""How long an adopted shim's first word is waited for; one that is stopped or hangs on its disk speaks later."""
CREATE_S: Final = 130.0
KEEPER_CODE: Final = "import sys; sys.path.insert(0, {root!r}); from logd.runtime.keeper import main; main()"


class KeeperFailed(LogdError):
    """The keeper could not be started."""


class Supervisor:
    """Launches and adopts shims; keeps a keeper alive."""

    def __init__(self, exec_root: Path) -> None:
        self.exec_root = exec_root
        self.closing = False
        self._keeper: Channel | None = None
        self._keeper_pid = 0
        self._found_keeper = False
        self._shims: set[Shim] = set()
        self._restart: asyncio.Task[None] | None = None
        self._ready = asyncio.Lock()

    async def start(self) -> None:
        """Find the keeper that an earlier daemon left, or start one."""
        for _ in range(3):
            if connection := connect_in(str(self.exec_root), KEEPER_SOCKET):
                self._keeper = Channel(connection, lambda _: None, self._keeper_lost)
                self._found_keeper = True
                return
            with contextlib.suppress(KeeperFailed):  # it may be that one was just starting
                await self._start_keeper()
                return
        raise KeeperFailed(f"the keeper of the shims does not start; see {self.exec_root / KEEPER_LOG}")

    async def close(self) -> None:
        """End the connections; keeper and shims go on."""
        self.closing = True
        if self._restart:
            self._restart.cancel()
        for shim in list(self._shims):
            shim.close()
        if self._keeper:
            self._keeper.close()

    async def launch(self, launch: Launch) -> Shim:
        """Create a container; PID 1 exists and waits for `Shim.start` on return. Raises RuntimeFailure."""
        await self._end_lingering(launch)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        shim = Shim(self, launch)
        self._shims.add(shim)
        with theirs:
            await self._ask_keeper("launch", launch, theirs)
        shim.connect(ours, is_new=True)
        try:
            async with asyncio.timeout(CREATE_S):
                await shim.created
        except TimeoutError:
            shim.close()
            raise RuntimeFailure(f"the OCI runtime did not create the container within {CREATE_S:.0f} s") from None
        return shim

    async def adopt(self, container_id: str, launch: Launch) -> Shim | None:
        """Find the shim of a container that was running; with all processes but the container dead, start a new one.

        None when no process is left: `read_exit_status` tells, or nobody can. A shim that is there and does not
        speak, because it is stopped or hangs on its disk, is adopted too: what it says comes when it goes on.
        """
        connection = await self._await_shim(launch, RECONNECT_S[:6] if self._found_keeper else RECONNECT_S[:1])
        if connection is None:
            try:
                if not await self.recover(launch):
                    return None
            except RuntimeFailure as error:  # the keeper has one in hand, which may take seconds
                log.info("adoption: %s", error, extra={"container": container_id})
            connection = await self._await_shim(launch, RECONNECT_S[:6])
        if connection is None and not _live_state(launch):
            return None
        shim = Shim(self, launch)
        self._shims.add(shim)
        if state := _state_of(launch):
            shim.know(state)
        if connection is None:
            shim.reconnect()
            return shim
        shim.connect(connection)
        try:
            async with asyncio.timeout(SILENT_S):
                await asyncio.shield(shim.created)
        except RuntimeFailure as error:
            log.debug("adoption: %s", error, extra={"container": container_id})
        except TimeoutError:
            log.warning("the shim does not answer; going on without it", extra={"container": container_id})
        return shim

    def forget(self, shim: Shim) -> None:
        """The shim is gone for good."""
        self._shims.discard(shim)

    async def _await_shim(self, launch: Launch, delays: Sequence[float]) -> socket.socket | None:
        """Connect to a shim; while its container lives give the keeper a moment to replace a dead one.

        A keeper that was just started has nothing to replace it with: then there is no point in more than one try.
        """
        for delay in delays:
            await asyncio.sleep(delay)
            if connection := connect_in(launch.exec_dir, SOCKET_NAME):
                return connection
            if not _live_state(launch):
                return None
        return None

    async def recover(self, launch: Launch) -> bool:
        """Nobody watches a container that lives: have a shim made that opens its pipes anew."""
        state = _live_state(launch)
        if state is None:
            return False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fields = {name: state[name] for name in ("pid", "ticks", "inodes")}
            await self._ask_keeper("recover", launch, theirs, **fields)
        log.warning("container was left by all processes, watching it again", extra={"container": launch.container_id})
        return True

    async def _end_lingering(self, launch: Launch) -> None:
        """A shim of the last run may still hold the store, because a host process holds its pipes."""
        connection = connect_in(launch.exec_dir, SOCKET_NAME)
        if connection is None:
            return
        gone = asyncio.Event()
        channel = Channel(connection, lambda _: None, gone.set)
        with contextlib.suppress(ChannelClosed):
            await channel.ask("quit")
        await asyncio.wait_for(gone.wait(), KEEPER_START_S)

    # -- the keeper ----------------------------------------------------------------------------------------------

    async def fork_exec(self, request: str, connection: socket.socket) -> None:
        """Have an exec's shim forked, with `connection` as its end of one to us. Raises RuntimeFailure."""
        await self._tell_keeper("exec", connection, request=request)

    async def _ask_keeper(self, operation: str, launch: Launch, connection: socket.socket, **fields: Any) -> None:
        await self._tell_keeper(operation, connection, launch=launch.to_json(), **fields)

    async def _tell_keeper(self, operation: str, connection: socket.socket, **fields: Any) -> None:
        for _ in range(2):
            async with self._ready:
                if self._keeper is None or self._keeper.closed:
                    await self.start()
                keeper = self._keeper
            assert keeper is not None
            try:
                answer, _ = await keeper.ask(operation, (connection.fileno(),), **fields)
            except ChannelClosed:
                continue  # it was killed just now
            if "error" in answer:
                raise RuntimeFailure(answer["error"])
            return
        raise RuntimeFailure("the keeper of the shims could not be reached")

    async def adopt_by_keeper(self, launch: Launch, connection: socket.socket) -> None:
        """Let the keeper watch a shim that outlived the last one. Raises RuntimeFailure."""
        if self._restart is not None:
            await asyncio.wait({self._restart})
        await self._ask_keeper("adopt", launch, connection)

    async def _start_keeper(self) -> None:
        """Start a keeper in a session of its own, and wait until it serves."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._keeper_pid = await asyncio.to_thread(_spawn_keeper, self.exec_root, theirs.fileno())
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            ready = await asyncio.wait_for(loop.sock_recv(ours, 4096), KEEPER_START_S)
        except TimeoutError:
            ready = b""
        except BaseException:
            ours.close()
            raise
        if not ready:
            ours.close()
            raise KeeperFailed(f"the keeper of the shims did not start; see {self.exec_root / KEEPER_LOG}")
        self._keeper = Channel(ours, lambda _: None, self._keeper_lost)

    def _keeper_lost(self) -> None:
        """The keeper died: have the shims hand over what they hold, and start another one."""
        if self._keeper_pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._keeper_pid, os.WNOHANG)
        if self.closing:
            return
        log.warning("the keeper of the shims has died; starting another one")
        self._restart = asyncio.get_running_loop().create_task(self._replace_keeper(), name="replace the keeper")
        if self._keeper is not None and self._keeper.peer_closed:  # else it lives, and watches them still
            for shim in list(self._shims):
                shim.hand_to(self.adopt_by_keeper)

    async def _replace_keeper(self) -> None:
        while True:
            try:
                async with self._ready:
                    if self._keeper is None or self._keeper.closed:
                        await self.start()
            except (KeeperFailed, OSError) as error:
                log.error("%s; trying again", error)  # noqa: TRY400 - the reason is enough
                await asyncio.sleep(KEEPER_RETRY_S)
            else:
                return


def _spawn_keeper(exec_root: Path, connection: int) -> int:
    """Start a keeper in a session of its own; return its pid."""
    root = str(Path(logd.__file__).parent.parent)
    argv = [sys.executable, "-S", "-E", "-s", "-c", KEEPER_CODE.format(root=root), str(exec_root), "3"]
    with (exec_root / KEEPER_LOG).open("ab") as output, Path(os.devnull).open("rb") as null:
        handed = (null.fileno(), output.fileno(), output.fileno(), connection)
        return os.posix_spawn(
            argv[0],
            argv,
            {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(handed)],
            setsid=True,
        )


def _live_state(launch: Launch) -> dict[str, Any] | None:
    """Return what the shim left about its container, None unless that very process still runs.

    One whose exit lies in the container's folder had all its output stored, though nobody may have reaped it yet.
    """
    state = _state_of(launch)
    if state is None or not state["ticks"] or start_ticks(state["pid"]) != state["ticks"]:
        return None
    ended = read_exit_status(launch.container_dir)
    return None if ended is not None and ended.run == launch.run else state


def _state_of(launch: Launch) -> dict[str, Any] | None:
    """Return what the shim left about this run of its container."""
    state = read_json(launch.exec_dir, STATE_FILE)
    return state if state and state["launch"]["run"] == launch.run else None
