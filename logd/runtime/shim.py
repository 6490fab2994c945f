"""The shim: one small process per container, parent of its PID 1, the one writer of its log.

It is forked from the zygote and outlives daemon and keeper; it imports the standard library's small modules and the
store's writer, nothing else, since every container pays for it. In order:

    (errand, see birth.py) make the pipes · runtime create · take the store's lock · hand all over to the keeper ·
    announce CREATED · (on the daemon's word, errand) runtime start · move bytes until PID 1 has ended and the pipes
    have · record the exit at once, announce EXIT · drain, for at most 2 s, announce DRAINED · go on draining until
    the pipes end · tell the keeper to let go · end

A container with a terminal has the master that the runtime sends for the pipes of stdout and stdin.
A shim that was killed is replaced by the keeper on the same descriptors.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from marshal import loads  # a module that is not named is not written to: a page for each shim
from select import EPOLLIN, epoll
from socket import SocketType
from typing import Any, Final

from logd.logstore import ballast
from logd.logstore.ballast import FULL
from logd.logstore.options import StoreOptions
from logd.logstore.segment import Kind
from logd.logstore.writer import StoreWriter
from logd.runtime import birth, errand, oom, pidfd, terminal
from logd.runtime.capture import Capture, Source
from logd.runtime.control import SCAN, Control
from logd.runtime.exec_intake import ExecIntake
from logd.runtime.kinship import become_shim
from logd.runtime.packets import receive
from logd.runtime.pipes import STREAM_OF, unread
from logd.runtime.protocol import (
    SOCKET_NAME,
    Event,
    ExitStatus,
    Launch,
    write_exit_status,
)

DRAIN_S: Final = 2.0
"""How long the end of the output is waited for once PID 1 has ended; a host process may hold the pipe for ever."""
REAPED_WAIT_S: Final = 1.0
"""How long the keeper's word of an exit status is waited for."""
RETRY_S: Final = 0.1
SYNC_S: Final = 1.0
AGE_CHECK_S: Final = 60.0
CLAIMS_CHECK_S: Final = 2.0
"""How often it is looked whether a driver has come on that segments are kept for."""

_new_tuple: Final = tuple.__new__
"""Makes a named tuple without running Python, which would cost a shim 20 kB for each kind of it."""


class Shim:
    """The process's state and its event loop.

    `born` is what an errand of birth.py reported, `held` its descriptors and those that we began with, by name.
    Named tuples are taken apart: each field read by name would cost every shim a page or two.
    """

    def __init__(
        self,
        launch: Launch,
        born: tuple[Any, ...],
        held: dict[str, int],
        keeper: SocketType,
        daemon: SocketType | None,
        *,
        replaced: bool,
    ) -> None:
        place, exit_fields, self._oom_file, self.pid, _ = born
        _, container_dir, _, _, _, _, _, has_terminal, _, _, store = launch
        _, _, max_age_s, _, _, sync, _ = store
        self.launch = launch
        self.replaced = replaced
        """Whether an earlier shim of this container died."""
        self.pidfd = held["pidfd"]
        self.stdin = held.get("stdin", -1)
        """Where its input is written: a pipe, or the master of its terminal."""
        self.keeper: SocketType | None = keeper
        self.exit: ExitStatus | None = ExitStatus(*exit_fields) if exit_fields else None
        self._slave = -1
        """The container's end of its terminal: while PID 1 lives, it may close that and open it again."""
        if has_terminal and self.stdin >= 0 and not self.exit:
            self._slave = terminal.open_slave(self.stdin)
        self.drained: tuple[int, int] | None = None
        self.writer = StoreWriter(f"{container_dir}/log", store, held["lock"], place, held.get("index", -1))
        self.capture = Capture(self.writer, _sources(held, replaced=replaced))
        self.execs: ExecIntake | None = None
        """Execs whose output goes into the log, once there has been one."""
        self._poll = epoll()
        self._over = False
        self._waiting = False
        self._errands: dict[int, int] = {}
        """The pids of errands, by their pidfds."""
        self._drain_until = time.monotonic() + DRAIN_S if self.exit else 0.0
        self._reaped_until = self._sync_at = self._claims_at = 0.0
        self._age_at = time.monotonic() + AGE_CHECK_S if max_age_s else 0.0
        self._attentive = bool(self.exit or max_age_s or sync)
        """Whether there is more to look after than bytes that arrive."""
        for descriptor in self.capture.sources:
            self.watch(descriptor)
        if self.exit is None:
            self.watch(self.pidfd)
        self.watch(keeper.fileno())
        self.control = Control(self, held["listener"], daemon)

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the container's output has ended."""
        poll, writer, capture, sources = self._poll, self.writer, self.capture, self.capture.sources
        while not self._over:
            is_calm = not (self._attentive or writer.dropping or writer.claimed)
            for descriptor, _ in poll.poll(-1 if is_calm else self._timeout()):
                source = sources.get(descriptor)
                if source is None:
                    self._serve(descriptor)
                elif not capture.move(source):
                    self.unwatch(descriptor)
                    capture.finish(source)
            if self._attentive or writer.dropping or writer.claimed:
                self._look_after()

    def _serve(self, descriptor: int) -> None:
        daemon = self.control.connections.get(descriptor)
        if daemon is not None:
            self.control.hear(daemon)
        elif descriptor in self._errands:
            self._end_errand(descriptor)
        elif descriptor == self.pidfd:
            self._pid1_ended()
        elif descriptor == self.control.listener:
            self.control.accept()
        elif self.keeper is not None and descriptor == self.keeper.fileno():
            self._hear_keeper(self.keeper)
        elif self.execs is not None:
            self.execs.serve(descriptor)

    def _timeout(self) -> float:
        """Return for how long (seconds) nothing has to be done by itself, -1 for ever."""
        due = [at for at in (self._sync_at, self._age_at, self._reaped_until) if at]
        if self._drain_until and not self.drained:
            due.append(self._drain_until)
        if self.writer.dropping:
            due.append(time.monotonic() + RETRY_S)
        if self.writer.claimed:
            due.append(self._claims_at)
        if self.execs and (at := self.execs.due):
            due.append(at)
        return max(0.0, min(due) - time.monotonic()) if due else -1

    def _look_after(self) -> None:
        """Whatever is due after a round: limits, durability, the end."""
        writer, now = self.writer, time.monotonic()
        if writer.dropping:
            self._attentive = True
            self.capture.retry()
        if writer.claimed and now >= self._claims_at:
            self._claims_at = now + (RETRY_S if writer.blocked else CLAIMS_CHECK_S)
            writer.enforce()
        if self.capture.held_back != self._waiting:
            self._hold_back(not self._waiting)
        if writer.options.sync == "1s":
            self._sync_by(now)
        if self._age_at and now >= self._age_at:
            self._age_at = now + AGE_CHECK_S
            writer.enforce()
        if self._reaped_until and now >= self._reaped_until:
            self._record_end(ExitStatus(255, None, self._oom_killed(), time.time_ns(), False, self.launch.run))
        if self.execs:
            self.execs.look_after(now)
        if self.exit and not self.drained and (not self._has_sources() or now >= self._drain_until):
            self._announce_drained()
        if self.drained and not self._has_sources() and not self._errands:
            self._over = True

    def _has_sources(self) -> bool:
        return bool(self.capture.sources or self.execs)

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
                self.unwatch(descriptor)
            else:
                self.watch(descriptor)

    def watch(self, descriptor: int) -> None:
        """Have `_serve` called when there is something to read."""
        self._poll.register(descriptor, EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Undo `watch`; also before a descriptor is closed, since an errand may have it open still."""
        self._poll.unregister(descriptor)

    # -- errands -------------------------------------------------------------------------------------------------

    def send_on_errand(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have something done aside, while the loop goes on."""
        pid = errand.run(work, *arguments)
        ended = os.pidfd_open(pid)
        self._errands[ended] = pid
        self.watch(ended)

    def _end_errand(self, ended: int) -> None:
        os.waitpid(self._errands.pop(ended), 0)
        self.unwatch(ended)
        os.close(ended)

    # -- the end of PID 1 ----------------------------------------------------------------------------------------

    def _pid1_ended(self) -> None:
        """Record how PID 1 ended, then reap it: while it is a zombie whoever replaces us can still tell."""
        if self.exit is not None:
            return
        self.unwatch(self.pidfd)
        status, ours = pidfd.wait_status(self.pidfd, self.pid)
        if status is not None:
            self._ended(status)
        else:  # the keeper has reaped it, and will say
            self._attentive = True
            self._reaped_until = time.monotonic() + REAPED_WAIT_S
        if ours:
            os.waitpid(self.pid, 0)

    def _ended(self, status: int) -> None:
        if self.exit is None:
            now, run = time.time_ns(), self.launch.run
            self._record_end(
                ExitStatus.from_wait_status(status, oom_killed=self._oom_killed(), finished_ns=now, run=run)
            )

    def _oom_killed(self) -> bool:
        return oom.kills(self._oom_file) > 0

    def _record_end(self, status: ExitStatus) -> None:
        self._attentive = True
        self._reaped_until = 0.0
        self.exit = status
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        write_exit_status(self.launch.exec_dir, status)
        self.control.announce(json.dumps({"event": Event.EXIT, **status._asdict()}).encode())
        self._drain_until = time.monotonic() + DRAIN_S

    def _announce_drained(self) -> None:
        self.writer.mark(Kind.END, self.launch.run)
        self.drained = self.capture.ends
        self.control.announce(json.dumps({"event": Event.DRAINED, "ends": self.drained}).encode())
        if self.exit and not self._keep_exit(self.exit):
            ballast.drop(self.writer.folder)
            self._keep_exit(self.exit)  # on a disk that is still full the copy in the exec-dir has to do

    def _keep_exit(self, status: ExitStatus) -> bool:
        """Record the exit where it survives a boot; false if there is no room for it."""
        try:
            write_exit_status(self.launch.container_dir, status, durable=True)
        except FileNotFoundError:
            return True  # the container was removed in the meantime
        except OSError as error:
            if error.errno not in FULL:
                raise
            return False
        return True

    def ended_json(self) -> tuple[bytes, bytes]:
        """Return what is known of the end, as the state message says it: exit, drained."""
        if self.exit is None:
            return b"null", b"null"
        return json.dumps(self.exit._asdict()).encode(), json.dumps(self.drained).encode()

    # -- what a daemon may ask for -------------------------------------------------------------------------------

    def lease(self, positions: list[int] | None) -> None:
        """Keep what lies beyond these positions for a lossless reader, until None."""
        self._attentive = True
        self.writer.protected = (positions[0], positions[1]) if positions else None

    def change_store(self, options: list[Any]) -> None:
        """Go by other limits of the store; what an older daemon does not name stays."""
        own = self.writer.options
        store = _new_tuple(StoreOptions, (*options[: len(own)], *own[len(options) :]))
        _, _, max_age_s, _, _, sync, _ = store
        self.writer.change_options(store)
        self._sync_at = 0.0
        self._age_at = time.monotonic() + AGE_CHECK_S if max_age_s else 0.0
        self._attentive = self._attentive or bool(max_age_s or sync)

    def take_in(self, connection: SocketType, exec_id: str, names: list[str], pipes: list[int]) -> None:
        """Have what an exec prints in the log too; see exec_intake.py."""
        self._attentive = True
        if self.execs is None:
            self.execs = ExecIntake(self)
        self.execs.begin(connection, exec_id, names, pipes)

    def close_stdin(self) -> None:
        """Let the container see the end of its stdin."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
            self._tell_keeper(b'{"op": "let-go", "names": ["stdin"]}')

    def quit(self) -> None:
        """End, if the container has: a host process may hold its pipes for ever."""
        self._attentive = True
        self._over = self.exit is not None

    # -- the keeper ----------------------------------------------------------------------------------------------

    def _tell_keeper(self, raw: bytes) -> None:
        if self.keeper is not None:
            try:
                self.keeper.send(raw)
            except OSError:
                self._lose_keeper()

    def _lose_keeper(self) -> None:
        if self.keeper is not None:
            self.unwatch(self.keeper.fileno())
            self.keeper.close()
            self.keeper = None

    def _hear_keeper(self, keeper: SocketType) -> None:
        raw, _ = receive(keeper)
        if not raw:
            self._lose_keeper()
        elif self.exit is None:  # it was the parent of PID 1
            if not self._reaped_until:
                self.unwatch(self.pidfd)
            self._ended(SCAN(raw.decode(), 0)[0]["status"])

    def change_keeper(self, keeper: SocketType) -> None:
        """Hand duplicates over to a new keeper."""
        self._lose_keeper()
        self.keeper = keeper
        self.watch(keeper.fileno())
        os.waitpid(errand.run(birth.hand_over, keeper, self._held(), self.pid), 0)

    def _held(self) -> dict[str, int]:
        """Return the descriptors of which the keeper has duplicates, by name."""
        held = {"pidfd": self.pidfd}
        if self.stdin >= 0:
            held["stdin"] = self.stdin
        names = {stream: name for name, stream in STREAM_OF.items()}
        for source in self.capture.sources.values():
            name = names[source.stream]
            held |= {name: source.pipe, f"{name}-stage-out": source.stage_out, f"{name}-stage-in": source.stage_in}
        return held

    def close(self) -> None:
        """Everything is stored: give up the store, then let the keeper let go."""
        self.writer.close()
        with suppress(FileNotFoundError):  # the daemon was quicker
            os.unlink(f"{self.launch.exec_dir}/{SOCKET_NAME}")
        self._tell_keeper(b'{"op": "release"}')


def _sources(held: dict[str, int], *, replaced: bool) -> list[Source]:
    """Return the streams that are still open; of a container just made nothing is staged yet."""
    sources = []
    for name in STREAM_OF:
        if name in held:
            stage_out = held[f"{name}-stage-out"]
            staged = unread(stage_out) if replaced else 0
            sources.append(Source(STREAM_OF[name], held[name], stage_out, held[f"{name}-stage-in"], staged))
    return sources


def _add_named(held: dict[str, int], places: dict[str, int], descriptors: list[int]) -> None:
    """Add to `held` the descriptors that came with a message which says where each of them lies."""
    for name in places:
        held[name] = descriptors[places[name]]


def main(request: bytes, descriptors: list[int], inherited: int, name: bytes) -> None:
    """Be the shim of a container, in a process just forked; return when it has ended.

    `request` is what `zygote.request` returned, `inherited` a descriptor of the zygote's. Of the named descriptors
    "keeper" is our end of a connection to it, "daemon", if there, to a daemon; with `pid`, PID 1 of a container that
    lives, the others are those that the keeper held for a shim that died.
    """
    os.close(inherited)
    become_shim(name)
    fields, store, places, pid, recovery = loads(request)  # noqa: S302  # the keeper's words
    launch = _new_tuple(Launch, (*fields, _new_tuple(StoreOptions, store)))
    held: dict[str, int] = {}
    _add_named(held, places, descriptors)
    keeper = SocketType(fileno=held["keeper"])
    daemon = SocketType(fileno=held["daemon"]) if "daemon" in held else None
    if recovery is not None:
        birth.recover(launch, keeper, pid, *recovery)
        return
    answer = errand.ask(birth.take_over, launch, pid) if pid else errand.ask(birth.create, launch, daemon, keeper)
    if answer is None:
        return
    born, brought = answer
    _add_named(held, born[-1], brought)
    shim = Shim(launch, born, held, keeper, daemon, replaced=bool(pid))
    shim.run()
    shim.close()
