"""The shim: one small process per container, parent of its PID 1, the one writer of its log.

It is forked from the keeper and outlives daemon and keeper; it imports the standard library's small modules and the
store's writer, nothing else, since every container pays for it. In order:

    take the store's lock · make the pipes and hand them to the keeper · runtime create · hand PID 1's pidfd over
    · announce CREATED · (on the daemon's word) runtime start · move bytes until PID 1 has ended and the pipes have
    · record the exit at once, announce EXIT · drain, for at most 2 s, announce DRAINED · go on draining until the
    pipes end · tell the keeper to let go · end

A shim that was killed is replaced by the keeper on the same descriptors; `Held` is what the new one begins with.
"""

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from logd.logstore.segment import Kind
from logd.logstore.writer import StoreWriter
from logd.runtime import command, oom, pidfd, pipes
from logd.runtime.capture import Capture, Source
from logd.runtime.protocol import (
    SOCKET_NAME,
    STATE_FILE,
    VERSION,
    Event,
    ExitStatus,
    Launch,
    listen_in,
    read_exit_status,
    receive,
    send,
    start_ticks,
    write_exit_status,
    write_json,
)

DRAIN_S: Final = 2.0
"""How long the end of the output is waited for once PID 1 has ended; a host process may hold the pipe for ever."""
REAPED_WAIT_S: Final = 1.0
"""How long the keeper's word of an exit status is waited for."""
RETRY_S: Final = 0.1
SYNC_S: Final = 1.0
AGE_CHECK_S: Final = 60.0
RUNTIME_TIMEOUT_S: Final = 120.0


class Held(NamedTuple):
    """What the keeper kept of a container whose shim died: descriptors by name, and PID 1."""

    descriptors: dict[str, int]
    pid: int


class CreateFailed(Exception):
    """The runtime did not create the container: (message, exit code)."""


class Shim:
    """The process's state and its event loop."""

    def __init__(self, launch: Launch, daemon: socket.socket | None, keeper: socket.socket) -> None:
        self.launch = launch
        self.keeper: socket.socket | None = keeper
        self.daemons: list[socket.socket] = [daemon] if daemon else []
        self.pid = 0
        self.pidfd = -1
        self.stdin = -1
        self.exit: ExitStatus | None = None
        self.drained: tuple[int, int] | None = None
        self._over = False
        self._replaced = False
        self._oom_file: str | None = None
        self._drain_until = 0.0
        self._reaped_until = 0.0
        self._sync_at = self._age_at = 0.0
        self._waiting = False
        self._children: dict[int, Callable[[int], None]] = {}
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poll = select.epoll()
        self._wakeup = self._watch_children()
        self._listener = self._listen()
        self.writer = StoreWriter(os.path.join(launch.container_dir, "log"), launch.store)
        self.capture = Capture(self.writer, [])

    # -- beginnings ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create the container. Raises CreateFailed."""
        size = pipes.pipe_size(self.launch.memory_limit)
        stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        held: dict[str, int] = {}
        if self.launch.open_stdin:
            os.close(stdin)
            stdin, held["stdin"] = pipes.stdin_pipe()
        theirs: list[int] = []
        for name in pipes.STREAM_OF:
            held[name], end = pipes.output_pipe(size)
            held[f"{name}-stage-out"], held[f"{name}-stage-in"] = pipes.staging_pipe(size)
            theirs.append(end)
        self._hand_over(held, 0)
        self._create((stdin, theirs[0], theirs[1]))
        for descriptor in (stdin, *theirs):
            os.close(descriptor)
        self.pidfd = os.pidfd_open(self.pid)
        self._hand_over({"pidfd": self.pidfd}, self.pid)
        self._oom_file = oom.counter_file(self.pid)
        self._save_state(held)
        self._equip(held)
        self.writer.mark(Kind.BEGIN, self.launch.run)
        self._announce({"event": Event.CREATED, "pid": self.pid})

    def take_over(self, held: Held) -> None:
        """Go on where a shim that died has left off."""
        self._replaced = True
        self.pid, self.pidfd = held.pid, held.descriptors["pidfd"]
        self.exit = read_exit_status(self.launch.exec_dir)
        if self.exit and self.exit.run != self.launch.run:
            self.exit = None
        if self.exit:
            self._drain_until = time.monotonic() + DRAIN_S
        else:
            self._watch(self.pidfd, self._stranger_ended)
            if start_ticks(self.pid) is not None:
                self._oom_file = oom.counter_file(self.pid)
        self._equip(held.descriptors)

    def recover(self, pid: int, ticks: int, inodes: dict[str, int]) -> None:
        """Go on with a container that every process of ours has left: open its pipes through /proc."""
        opened = pidfd.open_process(pid, ticks)
        if opened is None:
            raise CreateFailed("the container has ended", command.RUNTIME_FAILED_EXIT)
        held = pipes.reopen(pid, inodes)
        size = pipes.pipe_size(self.launch.memory_limit)
        for name, stream in pipes.STREAM_OF.items():
            if name in held:
                held[f"{name}-stage-out"], held[f"{name}-stage-in"] = pipes.staging_pipe(size)
                self.writer.note_gap(stream, 0, "crash")
        held["pidfd"] = opened
        self._hand_over(held, pid)
        self.take_over(Held(held, pid))

    def _create(self, stdio: tuple[int, int, int]) -> None:
        launch = self.launch
        arguments = command.create_arguments(launch.container_id, launch.exec_dir)
        try:
            runtime = command.spawn(launch.runtime, launch.exec_dir, arguments, stdio)
        except OSError as error:
            text = f"OCI runtime {launch.runtime[0]}: {os.strerror(error.errno or errno.EIO)}"
            raise CreateFailed(text, command.RUNTIME_FAILED_EXIT) from error
        status = _wait_for(runtime, RUNTIME_TIMEOUT_S)
        if status:
            raise CreateFailed(*command.failure(launch.exec_dir, "create", status))
        with open(os.path.join(launch.exec_dir, command.PID_FILE), encoding="ascii") as file:
            self.pid = int(file.read())

    def _equip(self, held: dict[str, int]) -> None:
        """Begin to capture from these descriptors."""
        self.stdin = held.get("stdin", -1)
        sources = [
            Source(stream, held[name], held[f"{name}-stage-out"], held[f"{name}-stage-in"])
            for name, stream in pipes.STREAM_OF.items()
            if name in held
        ]
        self.capture = Capture(self.writer, sources)
        for source in sources:
            self._poll.register(source.pipe, select.EPOLLIN)

    def _save_state(self, held: dict[str, int]) -> None:
        inodes = {name: pipes.inode(held[name]) for name in ("stdin", "stdout", "stderr") if name in held}
        state = {"version": VERSION, "pid": self.pid, "ticks": start_ticks(self.pid), "shim": os.getpid()}
        write_json(self.launch.exec_dir, STATE_FILE, {**state, "inodes": inodes, "launch": self.launch.to_json()})

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the container's output has ended."""
        capture, poll = self.capture, self._poll
        while not self._over:
            for descriptor, _ in poll.poll(self._timeout()):
                source = capture.sources.get(descriptor)
                if source is None:
                    if handler := self._handlers.get(descriptor):
                        handler()
                elif not capture.move(source):
                    self._stream_ended(source)
            self._look_after()

    def _timeout(self) -> float:
        """Return for how long (seconds) nothing has to be done by itself, -1 for ever."""
        due = [at for at in (self._sync_at, self._age_at, self._reaped_until) if at]
        if self._drain_until and not self.drained:
            due.append(self._drain_until)
        if self.writer.dropping:
            due.append(time.monotonic() + RETRY_S)
        return max(0.0, min(due) - time.monotonic()) if due else -1

    def _look_after(self) -> None:
        """Whatever is due after a round: limits, durability, the end."""
        writer = self.writer
        if writer.dropping:
            self.capture.retry()
        if (writer.protected is not None or writer.dropping or self._waiting) and (
            self.capture.held_back != self._waiting
        ):
            self._hold_back(not self._waiting)
        now = time.monotonic() if writer.options.sync or self._age_at or self.exit or self._reaped_until else 0.0
        if writer.options.sync == "1s":
            self._sync_by(now)
        if self._age_at and now >= self._age_at:
            self._age_at = now + AGE_CHECK_S
            writer.enforce()
        if self._reaped_until and now >= self._reaped_until:
            self._unknown_end()
        if self.exit and not self.drained and (not self.capture.sources or now >= self._drain_until):
            self._announce_drained()
        if self.drained and not self.capture.sources and not self._children:
            self._over = True  # with no answer owed: a short command ends before the runtime's `start` does

    def _sync_by(self, now: float) -> None:
        if not self._sync_at:
            self._sync_at = now + SYNC_S
        elif now >= self._sync_at:
            self._sync_at = 0.0
            self.writer.sync()

    def _hold_back(self, wait: bool) -> None:
        """Leave the container's output in its pipes, so that it waits, or read on."""
        self._waiting = wait
        for descriptor in self.capture.sources:
            if wait:
                self._poll.unregister(descriptor)
            else:
                self._poll.register(descriptor, select.EPOLLIN)

    def _stream_ended(self, source: Source) -> None:
        self._poll.unregister(source.pipe)
        self.capture.finish(source)

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None):
            self._poll.unregister(descriptor)

    # -- the end of PID 1 ----------------------------------------------------------------------------------------

    def _watch_children(self) -> int:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._watch(reading, self._reap)
        return reading

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.pid:
                self._ended(status)
            elif done := self._children.pop(pid, None):
                done(status)

    def _stranger_ended(self) -> None:
        """PID 1, not our child, has ended."""
        self._unwatch(self.pidfd)
        status = pidfd.foreign_wait_status(self.pidfd, self.pid)
        if status is not None:
            self._ended(status)
        else:
            self._reaped_until = time.monotonic() + REAPED_WAIT_S

    def _unknown_end(self) -> None:
        self._record_end(ExitStatus(255, None, self._oom_killed(), time.time_ns(), known=False, run=self.launch.run))

    def _ended(self, status: int) -> None:
        if self.exit is None:
            now, run = time.time_ns(), self.launch.run
            oom_killed = self._oom_killed()
            self._record_end(ExitStatus.from_wait_status(status, oom_killed=oom_killed, finished_ns=now, run=run))

    def _oom_killed(self) -> bool:
        return oom.kills(self._oom_file) > 0

    def _record_end(self, status: ExitStatus) -> None:
        self._reaped_until = 0.0
        self.exit = status
        write_exit_status(self.launch.exec_dir, status)
        self._announce({"event": Event.EXIT, **status._asdict()})
        self._drain_until = time.monotonic() + DRAIN_S

    def _announce_drained(self) -> None:
        self.writer.mark(Kind.END, self.launch.run)
        self.drained = self.capture.ends
        self._announce({"event": Event.DRAINED, "ends": list(self.drained)})
        try:
            if self.exit:
                write_exit_status(self.launch.container_dir, self.exit, durable=True)
        except FileNotFoundError:
            return  # the container was removed in the meantime

    # -- the daemon ----------------------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        """Open the control socket. Its folder is the daemon's, 0700."""
        listener = listen_in(self.launch.exec_dir, SOCKET_NAME)
        self._watch(listener.fileno(), self._accept)
        return listener

    def serve(self) -> None:
        """Begin to listen to the daemon and the keeper."""
        for daemon in self.daemons:
            self._welcome(daemon)
        self._watch_keeper()
        if self.launch.store.max_age_s:
            self._age_at = time.monotonic() + AGE_CHECK_S

    def _accept(self) -> None:
        daemon, _ = self._listener.accept()
        self.daemons.append(daemon)
        self._welcome(daemon)

    def _welcome(self, daemon: socket.socket) -> None:
        daemon.setblocking(False)
        self._watch(daemon.fileno(), lambda: self._hear(daemon))
        state = {
            "event": Event.STATE,
            "version": VERSION,
            "run": self.launch.run,
            "pid": self.pid,
            "exit": self.exit._asdict() if self.exit else None,
            "drained": list(self.drained) if self.drained else None,
            "held": self.keeper is not None,
        }
        self._tell(daemon, state)

    def _announce(self, message: dict[str, Any]) -> None:
        for daemon in list(self.daemons):
            self._tell(daemon, message)

    def _tell(self, daemon: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Say something to a daemon; one that is gone, or does not listen, is left."""
        try:
            send(daemon, message, descriptors)
        except OSError:
            self._leave(daemon)

    def _leave(self, daemon: socket.socket) -> None:
        if daemon in self.daemons:
            self._unwatch(daemon.fileno())
            self.daemons.remove(daemon)
            daemon.close()
        if not self.daemons:
            self.writer.protected = None  # a lease ends with the daemon that holds it

    def _hear(self, daemon: socket.socket) -> None:
        try:
            received = receive(daemon)
        except OSError:
            received = None
        if received is None:
            self._leave(daemon)
            return
        message, descriptors = received
        answer: dict[str, Any] = {"re": message.get("seq")}
        handed: tuple[int, ...] = ()
        operation = message.get("op")
        if operation == "start":
            self._start(daemon, answer)
            return
        if operation == "stdin":
            if self.stdin < 0:
                answer["error"] = "stdin is not open"
            else:
                handed = (self.stdin,)
        elif operation == "close-stdin":
            self._close_stdin()
        elif operation == "lease":
            positions = message["positions"]
            self.writer.protected = tuple(positions) if positions else None
        elif operation == "clear":
            self.writer.clear()
        elif operation == "keeper":
            self._change_keeper(socket.socket(fileno=descriptors[0]))
        elif operation == "quit":
            self._over = self.exit is not None
        else:
            answer["error"] = f"unknown operation {operation!r}"
        self._tell(daemon, answer, handed)

    def _start(self, daemon: socket.socket, answer: dict[str, Any]) -> None:
        """Let PID 1 run the command; the answer follows when the runtime has."""
        launch = self.launch
        if self._replaced and not self._is_created():
            self._tell(daemon, answer)
            return

        def done(status: int) -> None:
            if status:
                answer["error"], answer["exit_code"] = command.failure(launch.exec_dir, "start", status)
            self._tell(daemon, answer)

        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        pid = command.spawn(launch.runtime, launch.exec_dir, ["start", launch.container_id], (null, null, null))
        os.close(null)
        self._children[pid] = done

    def _is_created(self) -> bool:
        """Ask the runtime whether the container still waits to be started; a shim that died may have started it."""
        reading, writing = os.pipe()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        launch = self.launch
        pid = command.spawn(launch.runtime, launch.exec_dir, ["state", launch.container_id], (null, writing, null))
        os.close(writing)
        os.close(null)
        with open(reading, encoding="utf-8") as file:
            state = file.read()
        _wait_for(pid, RUNTIME_TIMEOUT_S)
        return '"status": "created"' in state or '"status":"created"' in state

    def _close_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
            self._tell_keeper({"op": "let-go", "names": ["stdin"]})

    # -- the keeper ----------------------------------------------------------------------------------------------

    def _hand_over(self, held: dict[str, int], pid: int) -> None:
        self._tell_keeper({"op": "hold", "names": list(held), "pid": pid}, tuple(held.values()))

    def _tell_keeper(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        if self.keeper is None:
            return
        try:
            send(self.keeper, message, descriptors)
        except OSError:
            self._lose_keeper()

    def _lose_keeper(self) -> None:
        if self.keeper is not None:
            self._unwatch(self.keeper.fileno())
            self.keeper.close()
            self.keeper = None

    def _watch_keeper(self) -> None:
        if self.keeper is not None:
            self._watch(self.keeper.fileno(), self._hear_keeper)

    def _hear_keeper(self) -> None:
        received = receive(self.keeper) if self.keeper else None
        if received is None:
            self._lose_keeper()
        elif received[0].get("op") == "reaped" and self.exit is None:
            self._unwatch(self.pidfd)
            self._ended(received[0]["status"])

    def _change_keeper(self, keeper: socket.socket) -> None:
        self._lose_keeper()
        self.keeper = keeper
        self._watch_keeper()
        held = {"pidfd": self.pidfd}
        if self.stdin >= 0:
            held["stdin"] = self.stdin
        names = {stream: name for name, stream in pipes.STREAM_OF.items()}
        for source in self.capture.sources.values():
            name = names[source.stream]
            ends = {name: source.pipe, f"{name}-stage-out": source.stage_out, f"{name}-stage-in": source.stage_in}
            held.update(ends)
        self._hand_over(held, self.pid)

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Everything is stored: give up the store, then let the keeper let go."""
        self.writer.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.launch.exec_dir, SOCKET_NAME))
        self._tell_keeper({"op": "release"})

    def fail(self, message: str, exit_code: int) -> None:
        """Tell the daemon why there is no container."""
        self._announce({"event": Event.FAILED, "message": message, "exit_code": exit_code})


def _wait_for(pid: int, timeout_s: float) -> int:
    """Wait for a child of ours, killing it after `timeout_s`; return its wait status."""
    opened = os.pidfd_open(pid)
    try:
        if not select.select([opened], [], [], timeout_s)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(opened)
    return os.waitpid(pid, 0)[1]


def main(
    launch: Launch,
    daemon: socket.socket | None,
    keeper: socket.socket,
    held: Held | None = None,
    recover: dict[str, Any] | None = None,
) -> None:
    """Be the shim of a container, in a process just forked; return when it has ended."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        shim = Shim(launch, daemon, keeper)
    except OSError as error:
        print(f"shim {launch.container_id}: {error}", file=sys.stderr)
        if daemon:
            text = f"log store of the container: {error}"
            send(daemon, {"event": Event.FAILED, "message": text, "exit_code": command.RUNTIME_FAILED_EXIT})
        send(keeper, {"op": "release"})
        return
    try:
        if recover is not None:
            shim.recover(recover["pid"], recover["ticks"], recover["inodes"])
        elif held is not None:
            shim.take_over(held)
        else:
            shim.begin()
    except CreateFailed as failed:
        shim.fail(*failed.args)
    else:
        shim.serve()
        shim.run()
    shim.close()
