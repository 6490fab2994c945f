"""Take the output of execs into the container's log: the shim's side; the exec's shim has exec_log.py.

An exec's shim sends whole lines only, a batch at a time, through a pipe for each stream whose both ends it keeps: what
lies in there when we die is taken by who comes next. A batch goes in between two lines of the container's stream. While
that is in the middle of one, the batch waits: for the newline, which is looked for in what the container writes next,
and where none comes for HOLD_S, the line is ended.

On the exec's connection, packets: {"op": "exec-log", "seq": n, "exec": id, "names": […]} + the pipes' read ends,
answered with {"re": n}; {"taken": name} from us for each batch; {"op": "end"} when all has been taken. A connection
that ends without that word is noted as a gap.
"""

import time
from os import close
from socket import SocketType
from typing import TYPE_CHECKING, Any, Final

from logd.record import STDOUT
from logd.runtime.packets import receive
from logd.runtime.pipes import STREAM_OF, peek, unread

if TYPE_CHECKING:
    from logd.runtime.capture import Source
    from logd.runtime.shim import Shim

HOLD_S: Final = 1.0
"""How long an unfinished line of the container's is waited for."""
RETRY_S: Final = 0.1
"""How often a full disk is tried again that makes the exec wait."""
PEEK_BYTES: Final = 256 << 10


class Inlet:
    """One stream of an exec."""

    __slots__ = ("connection", "exec_id", "name", "pipe", "stream", "until")

    def __init__(self, connection: SocketType, exec_id: str, name: str, pipe: int) -> None:
        self.connection = connection
        self.exec_id = exec_id
        self.name = name
        self.stream = STREAM_OF[name]
        self.pipe = pipe
        self.until = 0.0
        """Until when its batch waits for the container's line; 0 while it has none."""


class ExecIntake:
    """The execs whose output goes into one container's log."""

    def __init__(self, shim: "Shim") -> None:
        self._shim = shim
        self._connections: dict[int, SocketType] = {}
        self._inlets: dict[int, Inlet] = {}
        """By the pipe's descriptor."""
        self._waiting: list[Inlet] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._connections)

    @property
    def due(self) -> float | None:
        """When `look_after` is to be called at the latest."""
        return min((inlet.until for inlet in self._waiting), default=None)

    def begin(self, connection: SocketType, exec_id: str, names: list[str], pipes: list[int]) -> None:
        """Take what comes through the pipes; the connection is being watched."""
        self._connections[connection.fileno()] = connection
        for name, pipe in zip(names, pipes, strict=True):
            self._inlets[pipe] = Inlet(connection, exec_id, name, pipe)
            self._shim.watch(pipe)

    def serve(self, descriptor: int) -> bool:
        """Look at a descriptor on which something has come; false if it is none of ours."""
        if inlet := self._inlets.get(descriptor):
            self._await_line(inlet)
        elif connection := self._connections.get(descriptor):
            self._hear(connection)
        else:
            return False
        return True

    def _await_line(self, inlet: Inlet) -> None:
        self._shim.unwatch(inlet.pipe)
        if unread(inlet.pipe):  # else the exec's shim has closed it, and its connection tells the rest
            inlet.until = time.monotonic() + HOLD_S
            self._waiting.append(inlet)
            self._shim.capture.cut_in = self._cut_in

    def look_after(self, now: float) -> None:
        """Take what may be taken now."""
        if self._shim.capture.held_back:
            return
        for inlet in list(self._waiting):
            if now >= inlet.until or self._is_at_line_begin(inlet.stream) or self._has_ended(inlet.stream):
                self._take(inlet)

    def _is_at_line_begin(self, stream: int) -> bool:
        writer, capture = self._shim.writer, self._shim.capture
        if writer.ends[stream] == capture.begins[stream - STDOUT] and not self._shim.replaced:
            return True  # a line that an earlier run of the container has left unfinished ends with that
        return writer.is_at_line_begin(stream)

    def _has_ended(self, stream: int) -> bool:
        return not any(source.stream == stream for source in self._shim.capture.sources.values())

    def _cut_in(self, source: "Source") -> None:
        """Before a batch of the container's is stored: store its begin up to a newline, and then what waits."""
        writer = self._shim.writer
        waiting = [inlet for inlet in self._waiting if inlet.stream == source.stream]
        if not waiting or writer.dropping or writer.blocked:
            return
        length = peek(source.stage_out, min(source.staged, PEEK_BYTES)).find(b"\n") + 1
        if not length:
            return
        left = writer.take(source.stream, source.stage_out, length)
        source.staged -= length - left
        if not left:
            for inlet in waiting:
                self._take(inlet)

    def _take(self, inlet: Inlet, *, at_once: bool = False) -> None:
        """Store an inlet's batch. With mode=blocking it goes on waiting while the disk is full, unless `at_once`."""
        writer, stream = self._shim.writer, inlet.stream
        is_new_line = not self._is_at_line_begin(stream)
        left = writer.take_of_exec(inlet.exec_id, stream, inlet.pipe, unread(inlet.pipe), on_new_line=is_new_line)
        if left and writer.options.mode == "blocking" and not at_once:
            inlet.until = time.monotonic() + RETRY_S
            return
        if left:
            writer.drop(stream, inlet.pipe, left)
        self._wait_no_more(inlet)
        self._shim.watch(inlet.pipe)
        self._say(inlet.connection, b'{"taken": "%b"}' % inlet.name.encode())

    def _wait_no_more(self, inlet: Inlet) -> None:
        if inlet in self._waiting:
            self._waiting.remove(inlet)
        if not self._waiting:
            self._shim.capture.cut_in = None

    def _say(self, connection: SocketType, raw: bytes) -> None:
        try:
            connection.send(raw)
        except OSError:  # it is gone, which is heard of next
            return

    def _hear(self, connection: SocketType) -> None:
        try:
            raw, _ = receive(connection)
        except OSError:
            raw = b""
        self._end(connection, is_whole=bool(raw))

    def _end(self, connection: SocketType, *, is_whole: bool) -> None:
        """An exec has said its last word, or its shim was killed."""
        for inlet in [one for one in self._inlets.values() if one.connection is connection]:
            if inlet in self._waiting:
                self._take(inlet, at_once=True)
            del self._inlets[inlet.pipe]
            self._forget(inlet.pipe)
            close(inlet.pipe)
            if not is_whole:
                self._shim.writer.note_gap(inlet.stream, 0, "crash")
        del self._connections[connection.fileno()]
        self._shim.unwatch(connection.fileno())
        connection.close()

    def _forget(self, pipe: int) -> None:
        try:
            self._shim.unwatch(pipe)
        except FileNotFoundError:  # it had come to its end
            return


def parse(message: dict[str, Any], descriptors: list[int]) -> tuple[str, list[str]] | None:
    """Return the id and the names in a message of op exec-log; None for one that makes no sense."""
    exec_id, names = message["exec"], message["names"]
    if len(names) != len(descriptors) or any(name not in STREAM_OF for name in names):
        return None
    return exec_id, names
