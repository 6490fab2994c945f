"""A process in a running container beside its first one: the OCI runtime's `exec`, watched from the daemon.

The runtime stays the parent of the process and ends with its exit code. It writes the pid file once the process runs;
without one there was none, and the runtime's log says why. Both lie in a folder `exec/<exec id>` of the bundle as long
as it lasts; what a daemon that was killed left there is ended by the next one (`end_stale`).

runc hands the output on through pipes of its own (so the order between stdout and stderr is not kept), and goes on as
long as anybody has them open. What the process leaves behind with its output open is therefore killed after a while.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from logd.errors import LogdError
from logd.runtime import cgroup
from logd.runtime.command import EXEC_ENVIRONMENT, LOG_NAME, last_error
from logd.runtime.null import open_null
from logd.runtime.output_head import OutputHead

FOLDER_NAME: Final = "exec"
PROCESS_NAME: Final = "process.json"
PID_NAME: Final = "pid"
START_WAIT_S: Final = 30.0
"""dockerd's: how long the runtime may take until the process runs. Beyond it, it is stuck."""
POLL_S: Final = 0.02
"""How often the pid file is looked for; a runtime takes 20 to 50 ms."""
END_WAIT_S: Final = 2.0
"""How long a runtime may take to notice that its process was killed."""
LINGER_S: Final = 2.0
"""How long the output may stay open when the process has ended, as in dockerd."""
SESSION_ROUNDS: Final = 10
"""A session that forks while it is killed is gone through again, at most so often."""


class ExecFailure(LogdError):
    """The process could not be started; the message has the runtime's words."""


@dataclass(frozen=True, kw_only=True)
class ExecRequest:
    """What to run where. `process` is process.json, as `oci.exec_process` makes it; `exec_dir` is the bundle."""

    exec_id: str
    container_id: str
    exec_dir: Path
    cgroup_path: str
    """The container's, as `oci.cgroup_path` gives it."""
    runtime: tuple[str, ...]
    process: bytes
    owner: tuple[int, int] = (0, 0)
    """The host's ids of the container's root, to whom the output belongs."""

    @property
    def folder(self) -> Path:
        """Where the files of the process are."""
        return self.exec_dir / FOLDER_NAME / self.exec_id


class ExecProcess:
    """One process. `start` it once, `wait` for its exit code, `close` in any case; all in the event loop."""

    def __init__(self, request: ExecRequest) -> None:
        self._request = request
        self._pid_file = str(request.folder / PID_NAME)
        self._runtime: asyncio.subprocess.Process | None = None
        self._ended: asyncio.Task[int] | None = None

    async def start(self, stdin: int, stdout: int, stderr: int) -> None:
        """Have the runtime start the process with these descriptors, which stay the caller's; it need not run yet."""
        request = self._request
        await asyncio.to_thread(_write_process, request.folder, request.process)
        log = ["--log", str(request.folder / LOG_NAME), "--log-format", "json"]
        files = ["--process", str(request.folder / PROCESS_NAME), "--pid-file", self._pid_file]
        self._runtime = await asyncio.create_subprocess_exec(
            *request.runtime,
            *log,
            "exec",
            *files,
            request.container_id,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=EXEC_ENVIRONMENT,
            start_new_session=True,  # what ends the daemon at a terminal is no concern of the container's
        )
        self._ended = asyncio.ensure_future(self._runtime.wait())

    async def began(self, timeout_s: float = START_WAIT_S) -> bool:
        """Return True as soon as the process runs, or has run or failed; False if that takes longer."""
        assert self._ended is not None
        until = time.monotonic() + timeout_s
        while not (self._ended.done() or self._has_pid()):
            if time.monotonic() >= until:
                return False
            await asyncio.wait({self._ended}, timeout=POLL_S)
        return True

    async def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code, None if the process goes on for longer. Raises ExecFailure if it was never started."""
        assert self._ended is not None
        with _end_of(_read_pid(self._pid_file)) as gone:
            either: set[asyncio.Future[Any]] = {self._ended, gone}
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                await asyncio.wait({self._ended}, timeout=LINGER_S)
                await self.kill()
        if not self._ended.done():
            return None
        code = self._ended.result()
        if code < 0:
            raise ExecFailure(f"OCI runtime exec failed: the runtime was ended by signal {-code}")
        if code and not self._has_pid():
            words = last_error(str(self._request.folder / LOG_NAME)) or f"the runtime ended with status {code}"
            raise ExecFailure(f"OCI runtime exec failed: {words}")
        return code

    async def kill(self) -> None:
        """End the process and all of its session by SIGKILL, and wait until it is gone, or is given up."""
        if self._ended is None or self._ended.done():
            return
        await self.began(END_WAIT_S)
        await asyncio.to_thread(_end_session, self._request)
        await asyncio.wait({self._ended}, timeout=END_WAIT_S)
        if not self._ended.done():
            assert self._runtime is not None
            with contextlib.suppress(ProcessLookupError):
                self._runtime.kill()
            await asyncio.wait({self._ended}, timeout=END_WAIT_S)

    async def close(self) -> None:
        """End it if it still runs, and remove its files."""
        await self.kill()
        await asyncio.to_thread(shutil.rmtree, self._request.folder, ignore_errors=True)

    def _has_pid(self) -> bool:
        return os.path.exists(self._pid_file)


class Captured(NamedTuple):
    """How a process ended: its exit code, None if it was killed for its time; the beginning of what it printed."""

    code: int | None
    output: bytes
    is_cut: bool


class Capture:
    """A process whose output, stdout and stderr as they come, is kept up to `max_bytes`. `close` it in any case."""

    def __init__(self, request: ExecRequest, max_bytes: int) -> None:
        self._process = ExecProcess(request)
        self._head = OutputHead(max_bytes)
        os.fchown(self._head.writing, *request.owner)

    async def start(self) -> None:
        """Return when the process runs. Raises ExecFailure if it does not within START_WAIT_S."""
        null = open_null()
        try:
            await self._process.start(null, self._head.writing, self._head.writing)
        finally:
            os.close(null)
            self._head.close_writing()
        if not await self._process.began():
            raise ExecFailure(f"OCI runtime exec failed: the process was not started in {START_WAIT_S:.0f} s")

    async def finish(self, timeout_s: float) -> Captured:
        """Return how it ended; it is killed after `timeout_s`. Raises ExecFailure if it was never started.

        Processes that it leaves behind with its stdout open are not waited for.
        """
        code = await self._process.wait(timeout_s)
        if code is None:
            await self._process.kill()
        self._head.drain()
        return Captured(code, bytes(self._head.kept), self._head.is_cut)

    async def close(self) -> None:
        """End the process if it still runs, and leave nothing of it."""
        self._head.close()
        await self._process.close()


async def end_stale(container_id: str, cgroup_path: str, exec_dir: Path) -> None:
    """End the processes that an earlier daemon ran in a container, and remove their files."""
    for folder in await asyncio.to_thread(_stale_folders, exec_dir):
        request = ExecRequest(
            exec_id=folder.name,
            container_id=container_id,
            exec_dir=exec_dir,
            cgroup_path=cgroup_path,
            runtime=(),
            process=b"",
        )
        until = time.monotonic() + START_WAIT_S
        while await asyncio.to_thread(_end_if_begun, request) and time.monotonic() < until:  # noqa: ASYNC110 - a file
            await asyncio.sleep(POLL_S)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@contextlib.contextmanager
def _end_of(pid: int) -> Iterator["asyncio.Future[None]"]:
    """Give a future that is done when the process has ended, and never for pid 0."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    pidfd = -1
    try:
        pidfd = os.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        future.set_result(None)

    def settle() -> None:
        loop.remove_reader(pidfd)  # it stays readable
        future.set_result(None)

    try:
        if pidfd >= 0:
            loop.add_reader(pidfd, settle)
        yield future
    finally:
        if pidfd >= 0:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def _write_process(folder: Path, process: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True)
    with open(os.open(folder / PROCESS_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(process)


def _stale_folders(exec_dir: Path) -> Sequence[Path]:
    try:
        return sorted((exec_dir / FOLDER_NAME).iterdir())
    except FileNotFoundError:
        return []


def _end_if_begun(request: ExecRequest) -> bool:
    """End a process whose runtime lives; True if the runtime is still about to start it."""
    if not any(_is_runtime_of(request.folder, int(name)) for name in os.listdir("/proc") if name.isdecimal()):
        return False
    _end_session(request)
    return not (request.folder / PID_NAME).exists()


def _end_session(request: ExecRequest) -> None:
    """Kill a process, whose runtime lives, and what it has started."""
    kill_session(request.folder, request.cgroup_path)


def kill_session(folder: Path, cgroup_path: str) -> None:
    """Kill the process whose pid file is in a folder, and what it has started: its session, in the container's cgroup.

    That its pid means this process is told by its parent, the runtime, which has the pid file among its arguments.
    Where it has ended, what is left has its session: the pid, as runc makes it.
    """
    pid = _read_pid(str(folder / PID_NAME))
    if not pid:
        return
    standing = _standing(pid)
    session = standing.session if standing and _is_runtime_of(folder, standing.parent) else pid
    folders = set(cgroup.container_folders(cgroup.detect(), cgroup_path).values())
    for _ in range(SESSION_ROUNDS):
        members = {one for folder in folders for one in cgroup.processes(folder)}
        if not [one for one in members if _kill(one, session)]:
            return


def _kill(pid: int, session: int) -> bool:
    """Kill a process of a session; False if it is gone or of another one."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        standing = _standing(pid)  # of the process that the pidfd means, or else the signal finds nobody
        if standing is None or standing.session != session:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


class _Standing(NamedTuple):
    """Whose child a process is, and of which session."""

    parent: int
    session: int


def _standing(pid: int) -> _Standing | None:
    """Read proc(5) /proc/PID/stat; None for a process that is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in b"ZX" else _Standing(int(fields[1]), int(fields[3]))


def _is_runtime_of(folder: Path, pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(folder / PID_NAME) in arguments


def _read_pid(path: str) -> int:
    """Return the pid in a pid file, 0 where there is none."""
    try:
        with open(path, "rb") as file:
            text = file.read(32).strip()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdigit() else 0
