"""The shim of an exec: a small process for each, parent of a process in a container beside its first one.

It is forked from the zygote and outlives the daemon. The runtime starts the process and goes (`exec --detach`); the
process is then ours, since we are a subreaper, with its streams on pipes or a terminal of ours. The daemon gets the
other ends and reads at its client's pace. When the daemon is gone, or wants no more, the output is read here and
thrown away, so that the process neither waits for ever nor meets a closed pipe. The output of an exec that is logged is
read here from the begin and handed on (exec_output.py). In order:

    make the pipes · runtime exec · answer `start` · wait for the end · record it at once · drain until nobody has the
    streams open any more · end

What it writes to its folder is in exec_protocol.py. Nobody replaces an exec's shim that was killed.
"""

import json
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, Final

from logd.runtime import command, terminal
from logd.runtime.children import wakeup_pipe
from logd.runtime.exec_log import ExecLog
from logd.runtime.exec_output import LoggedOutput
from logd.runtime.exec_protocol import (
    PID_FILE,
    PROCESS_FILE,
    SOCKET_NAME,
    TTY,
    VERSION,
    ExecExit,
    ExecLaunch,
    write_exit,
)
from logd.runtime.handlers import Handlers
from logd.runtime.kinship import become_shim
from logd.runtime.null import open_null
from logd.runtime.protocol import listen_in, receive, send

MARK: Final = b"exec "
"""How a request to the zygote begins that is for a shim of this kind."""
START_WAIT_S: Final = 30.0
"""dockerd's: how long the runtime may take until the process runs. Beyond it, it is stuck."""
TERMINAL_WAIT_S: Final = 5.0
"""How long a terminal is waited for once the runtime has ended: it has been sent by then."""
READ_BYTES: Final = 64 << 10
OUTPUTS: Final = ("stdout", "stderr")


def request(launch: ExecLaunch) -> bytes:
    """Return what `main` reads; a zygote of an older logd does not know of an owner, nor of a log."""
    known = {"owner": any(launch.owner), "log": launch.log}
    fields = {name: value for name, value in launch._asdict().items() if known.get(name, True)}
    return MARK + json.dumps(fields).encode()


class ExecShim:
    """The process's state and its event loop. `daemon` is the connection on which the output may be read."""

    def __init__(self, launch: ExecLaunch, daemon: socket.socket) -> None:
        self.launch = launch
        self._pid = 0
        self._exit: ExecExit | None = None
        self._runtime = 0
        """The pid of the runtime's command, 0 once it has ended."""
        self._runtime_until = time.monotonic() + START_WAIT_S
        self._statuses: dict[int, int] = {}
        self._handlers = Handlers()
        self._reader: socket.socket | None = daemon
        self._daemons: dict[int, socket.socket] = {}
        self._outputs: list[int] = []
        self._handed: dict[str, int] = {}
        """Our ends of the streams, by name, until the daemon has its duplicates."""
        self._terminal = -1
        """The master of the process's terminal."""
        self._logged: LoggedOutput | None = None
        self._question = 0
        """The number of the question `start`."""
        self._reply: tuple[dict[str, Any], tuple[int, ...]] | None = None
        self._answered = False
        self._draining = False
        self._console: terminal.ConsoleSocket | None = None
        self._wakeup = self._watch_children()
        self._welcome(daemon)
        self._listener = listen_in(launch.folder, SOCKET_NAME)
        self._handlers.watch(self._listener.fileno(), self._accept)

    def run(self) -> None:
        """Start the process and serve until it has ended and nobody has its streams open."""
        if self.launch.log:
            try:
                self._begin_log()
            except OSError as error:
                self._fail(f"log of the exec: {error}", command.RUNTIME_FAILED_EXIT)
        if self._exit is None:
            self._try_to_begin()
        while not self._is_over():
            self._handlers.serve(self._timeout())
            if self._logged is not None:
                self._logged.look_after()
            if self._runtime and time.monotonic() >= self._runtime_until:
                os.kill(self._runtime, signal.SIGKILL)

    def _try_to_begin(self) -> None:
        try:
            self._begin()
        except OSError as error:
            self._fail(f"OCI runtime {self.launch.runtime[0]}: {error.strerror}", command.RUNTIME_FAILED_EXIT)

    def _is_over(self) -> bool:
        is_told = self._answered or self._reader is None
        is_read = not self._outputs if self._logged is None else self._logged.is_over
        return self._exit is not None and is_told and is_read

    def _timeout(self) -> float:
        due = [self._runtime_until] if self._runtime else []
        if self._logged is not None and self._logged.due:
            due.append(self._logged.due)
        return max(0.0, min(due) - time.monotonic()) if due else -1

    def close(self) -> None:
        """It is over."""
        if self._logged is not None:
            self._logged.close()

    # -- the beginning -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Have the runtime start the process. Raises OSError if there is no runtime."""
        launch = self.launch
        null = open_null()
        stdio = {"stdin": null, "stdout": null, "stderr": null}
        for name in launch.streams:
            if name == "stdin" or (name != TTY and self._logged is None):
                reading, writing = os.pipe()
                stdio[name], self._handed[name] = (reading, writing) if name == "stdin" else (writing, reading)
                os.fchown(stdio[name], *launch.owner)
        self._outputs = [ours for name, ours in self._handed.items() if name != "stdin"]
        if self._logged is not None and TTY not in launch.streams:
            for name in OUTPUTS:
                reading, stdio[name] = os.pipe()
                os.fchown(stdio[name], *launch.owner)
                self._log(self._logged, reading, name, name)
        arguments = ["exec", "--detach"]
        arguments += ["--process", f"{launch.folder}/{PROCESS_FILE}", "--pid-file", f"{launch.folder}/{PID_FILE}"]
        if TTY in launch.streams:
            self._console = terminal.ConsoleSocket(launch.folder)
            arguments += ["--console-socket", self._console.path]
        theirs = stdio["stdin"], stdio["stdout"], stdio["stderr"]
        try:
            arguments.append(launch.container_id)
            self._runtime = command.spawn_in(launch.folder, launch.runtime, arguments, theirs, command.EXEC_ENVIRONMENT)
        finally:
            for descriptor in {null, *theirs}:
                os.close(descriptor)

    def _begin_log(self) -> None:
        """Agree with the container's shim on a way into the log. Raises OSError if it does not."""
        launch = self.launch
        log = ExecLog(launch.folder, OUTPUTS[:1] if TTY in launch.streams else OUTPUTS, self._handlers)
        try:
            log.begin()
        except OSError:
            log.close()
            raise
        self._logged = LoggedOutput(log, self._handlers)

    def _log(self, logged: LoggedOutput, source: int, name: str, stream: str) -> None:
        """Read an output for the log, and for the daemon, if it wants it by that name."""
        reading = logged.pump(source, stream, for_client=name in self.launch.streams and not self._draining)
        if reading >= 0:
            self._handed[name] = reading

    def _runtime_ended(self, status: int) -> None:
        self._runtime = 0
        if status:
            words = command.last_error(f"{self.launch.folder}/{command.LOG_NAME}")
            message = words or f"the runtime ended with status {status}"
            self._fail(f"OCI runtime exec failed: {message}", command.exit_code(message))
            return
        try:
            if self._console is not None:
                self._take_terminal(self._console)
            with open(f"{self.launch.folder}/{PID_FILE}", encoding="ascii") as file:
                self._pid = int(file.read())
            self._limit_open_files()
        except OSError as error:  # the container has gone, and its folder
            self._fail(f"OCI runtime exec failed: {error.strerror}", command.RUNTIME_FAILED_EXIT)
            return
        self._announce()
        self._answer({"names": list(self._handed)}, tuple(self._handed.values()))
        if self._draining:
            self._drain()

    def _limit_open_files(self) -> None:
        """Set the process's limit of open files again: runc 1.1.5 built with Go 1.19 may have lost the soft one.

        Go raises it to the hard one as a program begins; in runc's second process that races with the setting of limits
        by the first.
        """
        with open(f"{self.launch.folder}/{PROCESS_FILE}", "rb") as file:
            limits = json.load(file).get("rlimits", [])
        for limit in limits:
            if limit["type"] == "RLIMIT_NOFILE":
                with suppress(OSError, ValueError):  # it has ended; or has none, which has no place in 64 bits
                    resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (limit["soft"], limit["hard"]))

    def _take_terminal(self, console: terminal.ConsoleSocket) -> None:
        """Receive the terminal that the runtime, which has ended, sent before."""
        try:
            self._terminal = console.receive(TERMINAL_WAIT_S)
        finally:
            console.close()
        if self._logged is None:
            self._handed[TTY] = self._terminal
            self._outputs = [self._terminal]
        else:
            if not self._draining:
                self._handed["stdin"] = os.dup(self._terminal)
            self._log(self._logged, self._terminal, TTY, OUTPUTS[0])
        if any(self.launch.size):
            self._resize(*self.launch.size)

    def _fail(self, message: str, code: int) -> None:
        """The process was not started."""
        for descriptor in self._handed.values():
            os.close(descriptor)
        self._handed, self._outputs = {}, []
        if self._logged is not None:
            self._logged.end()
        self._end(ExecExit(code, time.time_ns(), message))
        self._answer({"error": message, "exit_code": code})

    # -- the end -------------------------------------------------------------------------------------------------

    def _watch_children(self) -> int:
        reading = wakeup_pipe()
        self._handlers.watch(reading, self._reap)
        return reading

    def _reap(self) -> None:
        """Reap the runtime, the process, which is ours once the runtime has ended, and orphans of it."""
        with suppress(BlockingIOError):
            os.read(self._wakeup, 512)
        ended = {}
        with suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                ended[child[0]] = child[1]
        if not self._pid:  # it may have ended before we know its pid
            self._statuses |= ended
        if self._runtime in ended:
            self._runtime_ended(ended[self._runtime])
        status = {**self._statuses, **ended}.get(self._pid)
        if self._pid and status is not None and self._exit is None:
            self._statuses.clear()
            self._end(ExecExit(_exit_code(status), time.time_ns()))

    def _end(self, ended: ExecExit) -> None:
        self._exit = ended
        try:
            write_exit(self.launch.folder, ended)
        except FileNotFoundError:
            pass  # the container has gone, and its folder
        except OSError as error:  # a daemon that listens hears it all the same
            print(f"exec: {self.launch.folder}: {error}", file=sys.stderr, flush=True)
        self._announce()

    # -- output that nobody reads --------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Read the output from here on, and let the process see the end of its input."""
        self._draining = True
        if self._runtime:
            return  # once the streams are whole
        if (stdin := self._handed.pop("stdin", -1)) >= 0:
            os.close(stdin)
        if self._logged is not None:
            self._logged.leave_clients()
            self._let_go()
        for output in self._outputs:
            if not self._handlers.is_watched(output):
                os.set_blocking(output, False)
                self._handlers.watch(output, lambda output=output: self._throw_away(output))  # type: ignore[misc]

    def _let_go(self) -> None:
        """Close what the daemon has duplicates of, or will not want any more."""
        for descriptor in self._handed.values():
            os.close(descriptor)
        self._handed = {}

    def _throw_away(self, output: int) -> None:
        try:
            if os.read(output, READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal open
            pass
        self._outputs.remove(output)
        self._handed = {name: ours for name, ours in self._handed.items() if ours != output}
        self._handlers.close(output)

    # -- daemons -------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        daemon, _ = self._listener.accept()
        self._welcome(daemon)
        self._say(daemon, self._state())

    def _welcome(self, daemon: socket.socket) -> None:
        daemon.setblocking(False)
        self._daemons[daemon.fileno()] = daemon
        self._handlers.watch(daemon.fileno(), lambda: self._hear(daemon))

    def _leave(self, daemon: socket.socket) -> None:
        """A daemon is gone; if it was the one that reads, so is the client."""
        if self._daemons.pop(daemon.fileno(), None) is None:
            return
        self._handlers.close(daemon.fileno(), daemon)
        if daemon is self._reader:
            self._reader = None
            self._drain()

    def _state(self) -> dict[str, Any]:
        ended = self._exit._asdict() if self._exit else None
        return {"event": "state", "version": VERSION, "pid": self._pid, "exit": ended}

    def _announce(self) -> None:
        for daemon in list(self._daemons.values()):
            self._say(daemon, self._state())

    def _say(self, daemon: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Tell a daemon; one that is gone, or does not listen, is left."""
        try:
            send(daemon, message, descriptors)
        except OSError:
            self._leave(daemon)

    def _answer(self, answer: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Answer `start`, now or when it is asked. Our end of stdin is the daemon's from then on."""
        self._reply = answer, descriptors
        if self._reader is None or not self._question:
            return
        self._answered = True
        self._say(self._reader, {"re": self._question, **answer}, descriptors)
        if self._logged is not None:
            self._let_go()
        elif (stdin := self._handed.pop("stdin", -1)) >= 0:
            os.close(stdin)

    def _hear(self, daemon: socket.socket) -> None:
        try:
            received = receive(daemon)
        except OSError:
            received = None
        if received is None:
            self._leave(daemon)
            return
        message, _ = received
        operation, number = message["op"], message["seq"]
        if operation == "start":
            self._question = number
            if self._reply is not None:
                self._answer(*self._reply)
        elif operation == "drain":
            self._drain()
            self._say(daemon, {"re": number})
        elif operation == "resize":
            self._say(daemon, {"re": number, **self._resize(message["rows"], message["columns"])})
        else:
            self._say(daemon, {"re": number, "error": "unknown operation"})

    def _resize(self, rows: int, columns: int) -> dict[str, Any]:
        if self._terminal < 0:
            return {"error": "the process has no terminal"}
        with suppress(OSError):  # it has ended
            terminal.set_size(self._terminal, rows, columns)
        return {}


def _exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def main(raw: bytes, descriptors: list[int], inherited: int, name: bytes) -> None:
    """Be the shim of an exec, in a process just forked; return when it has ended.

    `raw` is what `request` returned; the one descriptor is our end of the first connection to the daemon. `inherited`
    is a descriptor of the zygote's.
    """
    os.close(inherited)
    become_shim(name)
    fields = json.loads(raw[len(MARK) :])
    launch = ExecLaunch(**{**fields, "runtime": tuple(fields["runtime"]), "streams": tuple(fields["streams"])})
    shim = ExecShim(launch, socket.socket(fileno=descriptors[0]))
    shim.run()
    shim.close()
