"""What a shim and the daemons say to each other: the shim's end of its control connections.

Common questions are answered in place, with bytes put together by hand, since `json` would cost every shim 170 kB.
What is asked once in a container's life goes on an errand.
"""

import os
from json.decoder import JSONDecoder
from socket import SocketType, socket
from typing import TYPE_CHECKING, Any, Final

from logd.runtime import command, packets
from logd.runtime.birth import tell
from logd.runtime.exec_intake import parse
from logd.runtime.packets import receive
from logd.runtime.protocol import VERSION, Launch

if TYPE_CHECKING:
    from logd.runtime.shim import Shim

MAX_QUESTION_BYTES: Final = 2 << 10
SCAN: Final[Any] = JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed leaves it out
"""json.loads without its Python."""


class Control:
    """The connections to daemons: mostly one, two for a moment when a daemon replaces another."""

    def __init__(self, shim: "Shim", listener: int, daemon: SocketType | None) -> None:
        self._shim = shim
        self.listener = listener
        self.connections: dict[int, SocketType] = {}
        shim.watch(listener)
        if daemon is not None:
            self._welcome(daemon)

    def accept(self) -> None:
        """A daemon has come."""
        shim = self._shim
        with socket(fileno=os.dup(self.listener)) as listener:
            daemon = SocketType(fileno=listener.accept()[0].detach())
        self._welcome(daemon)
        ended = shim.ended_json()
        held = b"true" if shim.keeper is not None else b"false"
        fields = (VERSION, shim.launch.run, shim.pid, *ended, held)
        self.say(
            daemon,
            b'{"event": "state", "version": %d, "run": %d, "pid": %d, "exit": %b, "drained": %b, "held": %b}' % fields,
        )

    def _welcome(self, daemon: SocketType) -> None:
        daemon.setblocking(False)
        self.connections[daemon.fileno()] = daemon
        self._shim.watch(daemon.fileno())

    def announce(self, raw: bytes) -> None:
        """Tell every daemon."""
        for daemon in list(self.connections.values()):
            self.say(daemon, raw)

    def say(self, daemon: SocketType, raw: bytes) -> None:
        """Tell a daemon; one that is gone, or does not listen, is left."""
        try:
            daemon.send(raw)
        except OSError:
            self._leave(daemon)

    def _leave(self, daemon: SocketType) -> None:
        if self.connections.pop(daemon.fileno(), None) is not None:
            self._shim.unwatch(daemon.fileno())
            daemon.close()
        if not self.connections:
            self._shim.writer.protected = None  # a lease ends with the daemon that holds it

    def hear(self, daemon: SocketType) -> None:
        """Answer a question."""
        try:
            raw, descriptors = receive(daemon, MAX_QUESTION_BYTES)
        except OSError:
            raw, descriptors = b"", []
        if not raw:
            self._leave(daemon)
            return
        message = SCAN(raw.decode(), 0)[0]
        operation, number = message["op"], message["seq"]
        if operation == "lease":
            self._shim.lease(message["positions"])
            self.say(daemon, b'{"re": %d}' % number)
        elif operation == "store":
            self._shim.change_store(message["options"])
            self.say(daemon, b'{"re": %d}' % number)
        elif operation == "exec-log":
            self._hand_to_intake(daemon, message, descriptors)
        elif operation in {"start", "stdin"}:
            self._send_on_errand(daemon, operation, number)
        else:
            self._obey(daemon, operation, number, descriptors)

    def _hand_to_intake(self, connection: SocketType, message: dict[str, Any], descriptors: list[int]) -> None:
        """It is the shim of an exec and no daemon: a lease, for one, is not its."""
        asked = parse(message, descriptors)
        if asked is None:
            self.say(
                connection, b'{"re": %d, "error": "exec-log: streams and descriptors don\'t match"}' % message["seq"]
            )
            return
        del self.connections[connection.fileno()]
        self._shim.take_in(connection, *asked, descriptors)
        self.say(connection, b'{"re": %d}' % message["seq"])

    def _send_on_errand(self, daemon: SocketType, operation: str, number: int) -> None:
        shim = self._shim
        if operation == "start":
            shim.send_on_errand(_start, shim.launch, daemon, number, shim.replaced)
        else:
            shim.send_on_errand(_give_stdin, daemon, number, shim.stdin)

    def _obey(self, daemon: SocketType, operation: str, number: int, descriptors: list[int]) -> None:
        shim, error = self._shim, b""
        if operation == "close-stdin":
            shim.close_stdin()
        elif operation == "clear":
            try:
                shim.writer.clear()
            except OSError as problem:
                error = b', "error": "the log was not cleared: %b"' % os.strerror(problem.errno or 0).encode()
        elif operation == "keeper":
            shim.change_keeper(SocketType(fileno=descriptors[0]))
        elif operation == "quit":
            shim.quit()
        else:
            error = b', "error": "unknown operation"'
        self.say(daemon, b'{"re": %d%b}' % (number, error))


def _start(launch: Launch, daemon: SocketType, number: int, replaced: bool) -> None:
    """Let PID 1 run the command; with `replaced` an earlier shim may have done that."""
    answer: dict[str, Any] = {"re": number}
    if not replaced or command.is_created(launch):
        status = command.start(launch)
        if status:
            answer["error"], answer["exit_code"] = command.failure(launch.exec_dir, "start", status)
    tell(daemon, answer)


def _give_stdin(daemon: SocketType, number: int, stdin: int) -> None:
    if stdin >= 0:
        packets.send(daemon, b'{"re": %d}' % number, [stdin])
    else:
        packets.send(daemon, b'{"re": %d, "error": "stdin is not open"}' % number)
