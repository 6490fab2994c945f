"""The keeper: has shims forked, is the parent of what they leave behind, and holds duplicates of their descriptors.

It outlives the daemon and does nothing else, so that it has no reason to die. The forking is done by its zygote.

When a shim dies without having said that it is done, another is forked on the descriptors held here. When the keeper
itself dies, the daemon starts another one, and the shims hand their descriptors over again.
"""

import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from logd.runtime import kinship, packets, zygote
from logd.runtime.children import wakeup_pipe
from logd.runtime.protocol import KEEPER_SOCKET, Launch, Recovery, listen_in, receive, send

LOCK_NAME: Final = "keeper.lock"
BACKOFF_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Before the first, second, … replacement of a shim that dies again and again."""
CALM_S: Final = 10.0
"""A shim that lived this long begins the back-off anew."""


class Watched:
    """A container that is being watched: its shim, and what is needed to replace it."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.connection: socket.socket | None = None
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
        self._zygotes: list[socket.socket] = []
        """The last one serves; the others are spares."""
        self._start_zygotes()
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
        if message["op"] == "exec":
            self._ask_zygote(message["request"].encode(), [connection.fileno()])
            connection.close()
            return {}
        launch = Launch.from_json(message["launch"])
        known = self.watched.get(launch.container_id)
        if known and known.released:
            self._forget(known)
        elif known and (known.connection or known.container):  # without a connection: its replacement is due
            connection.close()
            return {"error": f"container {launch.container_id} is being watched already"}
        watched = Watched(launch)
        self.watched[launch.container_id] = watched
        if message["op"] == "adopt":
            self._connect(watched, connection)
            return {}
        if message["op"] == "recover":
            watched.container = message["pid"]
            self._fork(watched, {}, (message["ticks"], message["inodes"]))
        else:
            self._fork(watched, {"daemon": connection.fileno()})
        connection.close()
        return {}

    # -- shims ---------------------------------------------------------------------------------------------------

    def _start_zygotes(self) -> None:
        """Start a zygote that serves at once, and one that takes over when it has prepared for small shims."""
        self._zygotes.append(self._start_zygote(prepared=False))
        prepared = self._start_zygote(prepared=True)
        self._watch(prepared.fileno(), lambda: self._welcome_zygote(prepared))

    def _welcome_zygote(self, prepared: socket.socket) -> None:
        self._handlers.pop(prepared.fileno())
        self._poll.unregister(prepared.fileno())
        ready, descriptors = packets.receive(prepared)
        if not ready:  # it was killed, or could not be prepared
            prepared.close()
            return
        while self._zygotes:
            self._zygotes.pop().close()
        self._zygotes += [socket.socket(fileno=descriptors[0]), prepared]

    def _ask_zygote(self, request: bytes, descriptors: list[int]) -> None:
        """Have a shim forked that begins with these descriptors; see `shim.main`, `exec_shim.main`."""
        while self._zygotes:
            try:
                return packets.send(self._zygotes[-1], request, descriptors)
            except OSError:  # it was killed
                self._zygotes.pop().close()
        self._start_zygotes()
        return packets.send(self._zygotes[-1], request, descriptors)

    def _start_zygote(self, *, prepared: bool) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                signal.set_wakeup_fd(-1)
                kinship.close_all_but({0, 1, 2, theirs.fileno()})
                zygote.serve(theirs, self.exec_root if prepared else None)
            finally:
                os._exit(0)
        theirs.close()
        return ours

    def _fork(self, watched: Watched, descriptors: dict[str, int], recovery: Recovery | None = None) -> None:
        """Have a shim forked, on what an earlier one left or on `descriptors`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handed = {"keeper": theirs.fileno(), **descriptors, **watched.descriptors}
        request = zygote.request(watched.launch, handed, watched.container, recovery)
        self._ask_zygote(request, list(handed.values()))
        theirs.close()
        watched.since = time.monotonic()
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

    def _watch_children(self) -> int:
        reading = wakeup_pipe()
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
        for watched in self.watched.values():
            if watched.container == pid:
                self._statuses[pid] = status
                self._tell_reaped(watched)
                return

    def _shim_died(self, watched: Watched) -> None:
        if watched.released or not watched.container or not os.path.exists(watched.launch.exec_dir):
            self._forget(watched)  # done, or nothing that could be kept was made yet, or the container was removed
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
                if self.watched.get(watched.launch.container_id) is watched:
                    self._fork(watched, {})
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


def main() -> None:
    """`keeper EXEC_ROOT DESCRIPTOR`: DESCRIPTOR is the first connection to the daemon that started us."""
    exec_root, descriptor = sys.argv[1:]
    first = socket.socket(fileno=int(descriptor))
    first.set_inheritable(False)
    os.chdir("/")
    # Inherited by the shims. SIGXFSZ: a file at its size limit is an error to handle, like a full disk.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    kinship.set_name(b"logd-keeper")
    kinship.become_subreaper()
    keeper = Keeper(exec_root, first)
    send(first, {})
    keeper.run()
