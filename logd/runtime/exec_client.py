"""The shim of an exec as the daemon sees it: have one forked, take its streams, hear of its end, find it again."""

import asyncio
import contextlib
import socket
import time
from typing import Any, Final

from logd.errors import InvalidParameter, LogdError
from logd.runtime import exec_shim
from logd.runtime.channel import Channel, ChannelClosed
from logd.runtime.exec_protocol import SOCKET_NAME, ExecExit, ExecLaunch, exit_from, read_exit
from logd.runtime.protocol import connect_in
from logd.runtime.supervisor import Supervisor

LOST_EXIT: Final = 255
"""The exit code that stands for "nobody saw how it ended"."""
LOST_WORDS: Final = "exit status unknown: the shim of the exec was killed"
START_WAIT_S: Final = exec_shim.START_WAIT_S + 10.0
FIND_WAITS_S: Final = (0.0, 0.02, 0.1, 0.4)
"""Between attempts to reach a shim that may just be beginning."""


class ExecFailed(LogdError):
    """The process could not be started; `exec_exit_code` is Docker's 126 … 128."""

    def __init__(self, message: str, exec_exit_code: int) -> None:
        super().__init__(message)
        self.exec_exit_code = exec_exit_code
        if exec_exit_code in (126, 127):
            self.status = InvalidParameter.status


class ExecSession:
    """A connection to the shim of an exec. All of it in the event loop."""

    def __init__(self, folder: str, connection: socket.socket) -> None:
        self.pid = 0
        """On the host, 0 before it runs."""
        self.exited: asyncio.Future[ExecExit] = asyncio.get_running_loop().create_future()
        """How it ended. If the shim was killed and left no word, the code is LOST_EXIT."""
        self._folder = folder
        self._closing = False
        self._channel = Channel(connection, self._heard, self._lost)

    async def streams(self) -> dict[str, int]:
        """Wait until the process runs; return our ends by name (see ExecLaunch.streams), the caller's to close.

        Raises ExecFailed.
        """
        try:
            async with asyncio.timeout(START_WAIT_S):
                answer, descriptors = await self._channel.ask("start")
        except ChannelClosed as error:
            raise ExecFailed("OCI runtime exec failed: the shim of the exec died", LOST_EXIT) from error
        except TimeoutError as error:
            raise ExecFailed("OCI runtime exec failed: the shim of the exec does not answer", LOST_EXIT) from error
        if "error" in answer:
            raise ExecFailed(answer["error"], answer["exit_code"])
        return dict(zip(answer["names"], descriptors, strict=True))

    def leave(self) -> None:
        """Leave the rest of the output to the shim, which throws it away."""
        self._channel.tell("drain")

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal. Raises LogdError where there is none."""
        with contextlib.suppress(ChannelClosed):  # it has ended
            answer, _ = await self._channel.ask("resize", rows=rows, columns=columns)
            if "error" in answer:
                raise LogdError(answer["error"])

    def close(self) -> None:
        """Let the shim be; it drains the output from here on."""
        self._closing = True
        self._channel.close()

    def _heard(self, state: dict[str, Any]) -> None:
        self.pid = state["pid"]
        if state["exit"] and not self.exited.done():
            self.exited.set_result(exit_from(state["exit"]))

    def _lost(self) -> None:
        if not (self.exited.done() or self._closing):
            self.exited.set_result(read_exit(self._folder) or lost())


def lost() -> ExecExit:
    """Return the end of an exec whose shim was killed."""
    return ExecExit(LOST_EXIT, time.time_ns(), LOST_WORDS, known=False)


async def launch_exec(supervisor: Supervisor, launch: ExecLaunch) -> ExecSession:
    """Have an exec's shim forked, which begins at once; ask for its `streams`. Raises RuntimeFailure."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            await supervisor.fork_exec(exec_shim.request(launch).decode(), theirs)
    except BaseException:
        ours.close()
        raise
    return ExecSession(launch.folder, ours)


async def find_exec(folder: str) -> ExecSession | ExecExit | None:
    """Find the shim that an earlier daemon had forked, or how the exec ended; None if neither is there."""
    for delay in FIND_WAITS_S:
        await asyncio.sleep(delay)
        if connection := connect_in(folder, SOCKET_NAME):
            return ExecSession(folder, connection)
        if ended := read_exit(folder):
            return ended
    return None
