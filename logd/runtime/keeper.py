"""The keeper: forks shims, is the parent of what they leave behind, and holds duplicates of their descriptors.

It outlives the daemon and does nothing else, so that it has no reason to die. It has imported the shim's modules
once and frozen them, so that a fork is a running shim in a millisecond, and most of its memory is shared.

When a shim dies without having said that it is done, another is forked on the descriptors held here. When the keeper
itself dies, the daemon starts another one, and the shims hand their descriptors over again.
"""

import ctypes
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from logd.runtime import shim
from logd.runtime.protocol import KEEPER_SOCKET, Launch, listen_in, receive, send

PR_SET_CHILD_SUBREAPER: Final = 36
LOCK_NAME: Final = "keeper.lock"
BACKOFF_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Before the first, second, … replacement of a shim that dies again and again."""
CALM_S: Final = 10.0
"""A shim that lived this long begins the back-off anew."""

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def become_subreaper() -> None:
    """Make this process the parent of its descendants' orphans (prctl(2)); a fork does not inherit that."""
    if _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Watched:
    """A container that is being watched: its shim, and what is needed to replace it."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.connection: socket.socket | None = None
        self.shim = 0
        """The shim's pid, 0 while there is none or where an earlier keeper forked it."""
        self.container = 0
        """PID 1 of the container, 0 before it was created."""
        self.descriptors: dict[str, int] = {}
        self.released = False
        self.deaths = 0
        self.since = time.monotonic()

    def let_go(self, names: list[str]) -> None:
        """Close descriptors that are no longer needed."""
        for name in names:
            if name in self.descriptors:
                os.close(self.descriptors.pop(name))


class Keeper:
    """The process's state and its event loop."""

    def __init__(self, exec_root: str, first: socket.socket) -> None:
        self.exec_root = exec_root
        self.lock = os.open(os.path.join(exec_root, LOCK_NAME), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.watched: dict[str, Watched] = {}
        self.daemons: list[socket.socket] = []
        self._statuses: dict[int, int] = {}
        self._due: list[tuple[float, Watched]] = []
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poll = select.epoll()
        self._wakeup = self._watch_children()
        self._listener = self._listen()
        self._accept_daemon(first)

    def run(self) -> None:
        """Serve until there is neither a daemon nor a shim."""
        while self.daemons or self.watched:
            due = min((at for at, _ in self._due), default=None)
            timeout = -1 if due is None else max(0.0, due - time.monotonic())
            for descriptor, _ in self._poll.poll(timeout):
                if handler := self._handlers.get(descriptor):
                    handler()
            self._replace_due()

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def _close(self, connection: socket.socket) -> None:
        self._handlers.pop(connection.fileno(), None)
        self._poll.unregister(connection.fileno())
        connection.close()

    # -- the daemon ----------------------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        listener = listen_in(self.exec_root, KEEPER_SOCKET)
        self._watch(listener.fileno(), lambda: self._accept_daemon(listener.accept()[0]))
        return listener

    def _accept_daemon(self, daemon: socket.socket) -> None:
        self.daemons.append(daemon)
        self._watch(daemon.fileno(), lambda: self._hear_daemon(daemon))

    def _hear_daemon(self, daemon: socket.socket) -> None:
        received = receive(daemon)
        if received is None:
            self.daemons.remove(daemon)
            self._close(daemon)
            return
        message, descriptors = received
        answer = {"re": message["seq"], **self._obey(message, socket.socket(fileno=descriptors[0]))}
        with suppress(OSError):  # a daemon that is gone needs no answer
            send(daemon, answer)

    def _obey(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        launch = Launch.from_json(message["launch"])
        known = self.watched.get(launch.container_id)
        if known and (known.shim or known.connection or known.container):  # the last: its replacement is due
            connection.close()
            return {"error": f"container {launch.container_id} is being watched already"}
        watched = Watched(launch)
        if message["op"] == "adopt":
            self.watched[launch.container_id] = watched
            self._connect(watched, connection)
            return {}
        self.watched[launch.container_id] = watched
        self._fork(watched, connection, recover=message if message["op"] == "recover" else None)
        connection.close()
        return {}

    # -- shims ---------------------------------------------------------------------------------------------------

    def _fork(self, watched: Watched, daemon: socket.socket | None, recover: dict[str, Any] | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held = shim.Held(dict(watched.descriptors), watched.container) if watched.container else None
        pid = os.fork()
        if pid == 0:
            _be_shim(watched.launch, daemon, theirs, held, recover)
        theirs.close()
        watched.shim, watched.since = pid, time.monotonic()
        self._connect(watched, ours)

    def _connect(self, watched: Watched, connection: socket.socket) -> None:
        if watched.connection is not None:
            self._close(watched.connection)
        watched.connection = connection
        self._watch(connection.fileno(), lambda: self._hear_shim(watched, connection))

    def _hear_shim(self, watched: Watched, connection: socket.socket) -> None:
        received = receive(connection)
        if received is None:
            self._close(connection)
            watched.connection = None
            if not watched.shim:  # forked by an earlier keeper: its death is seen here, not as a child's
                self._shim_died(watched)
            return
        message, descriptors = received
        if message["op"] == "hold":
            watched.let_go(message["names"])
            watched.descriptors.update(zip(message["names"], descriptors, strict=True))
            watched.container = message["pid"] or watched.container
        elif message["op"] == "let-go":
            watched.let_go(message["names"])
        elif message["op"] == "release":
            watched.released = True
            watched.let_go(list(watched.descriptors))
            if not watched.shim:
                self._forget(watched)

    def _watch_children(self) -> int:
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._watch(reading, self._reap)
        return reading

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wakeup, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._child_ended(pid, status)

    def _child_ended(self, pid: int, status: int) -> None:
        for watched in list(self.watched.values()):
            if watched.shim == pid:
                watched.shim = 0
                self._drain_connection(watched)
                self._shim_died(watched)
                return
            if watched.container == pid:
                self._statuses[pid] = status
                self._tell_reaped(watched)
                return

    def _drain_connection(self, watched: Watched) -> None:
        """Hear what a shim said before it died: it may have been its farewell."""
        while watched.connection is not None and select.select([watched.connection], [], [], 0)[0]:
            self._hear_shim(watched, watched.connection)

    def _shim_died(self, watched: Watched) -> None:
        if watched.released or not watched.container:
            self._forget(watched)  # done, or nothing that could be kept was made yet
            return
        if self.watched.get(watched.launch.container_id) is not watched:
            return
        lived = time.monotonic() - watched.since
        watched.deaths = 0 if lived > CALM_S else watched.deaths + 1
        delay = BACKOFF_S[min(watched.deaths, len(BACKOFF_S)) - 1] if watched.deaths else 0.0
        self._due.append((time.monotonic() + delay, watched))
        self._replace_due()

    def _replace_due(self) -> None:
        now = time.monotonic()
        for at, watched in list(self._due):
            if at <= now:
                self._due.remove((at, watched))
                self._fork(watched, None)
                self._tell_reaped(watched)

    def _tell_reaped(self, watched: Watched) -> None:
        """Pass on the status of a PID 1 whose parent we became."""
        status = self._statuses.get(watched.container)
        if status is not None and watched.connection is not None:
            with suppress(OSError):
                send(watched.connection, {"op": "reaped", "status": status})

    def _forget(self, watched: Watched) -> None:
        watched.let_go(list(watched.descriptors))
        if watched.connection is not None:
            self._close(watched.connection)
            watched.connection = None
        self._statuses.pop(watched.container, None)
        if self.watched.get(watched.launch.container_id) is watched:
            del self.watched[watched.launch.container_id]


def _be_shim(
    launch: Launch,
    daemon: socket.socket | None,
    keeper: socket.socket,
    held: "shim.Held | None",
    recover: dict[str, Any] | None,
) -> None:
    """In the forked child: keep only what the shim needs, be it, and end."""
    code = 70  # EX_SOFTWARE of sysexits.h
    try:
        wanted = {0, 1, 2, keeper.fileno()}
        if daemon is not None:
            wanted.add(daemon.fileno())
        if held is not None:
            wanted.update(held.descriptors.values())
        signal.set_wakeup_fd(-1)
        _close_all_but(wanted)
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write("logd-shim")
        become_subreaper()
        shim.main(launch, daemon, keeper, held, recover)
        code = 0
    except BaseException:  # whatever it is, this process ends here and says why
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _close_all_but(wanted: set[int]) -> None:
    """Close every descriptor but these: those of the keeper and of other containers are not ours."""
    low = 0
    for descriptor in sorted(wanted):
        if low < descriptor:  # an empty range that begins at 0 closes everything
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 20)


def main() -> None:
    """`keeper EXEC_ROOT DESCRIPTOR`: DESCRIPTOR is the first connection to the daemon that started us."""
    exec_root, descriptor = sys.argv[1:]
    first = socket.socket(fileno=int(descriptor))
    first.set_inheritable(False)
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("logd-keeper")
    become_subreaper()
    keeper = Keeper(exec_root, first)
    send(first, {})
    gc.collect()
    gc.freeze()
    keeper.run()
