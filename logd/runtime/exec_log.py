"""Send what an exec prints into its container's log: the exec's shim's side; exec_intake.py has the protocol.

What goes there is whole lines: what is printed stays here until its newline comes, a last line without one gets one,
and one that is longer than a pipe holds is cut into lines. A batch is written when the pipe is empty, so that it lies
in there whole, and is safe from then on: both ends are kept here, and given to each shim of the container that comes in
the place of one that was killed.
"""

import fcntl
import os
import socket
import time
from contextlib import suppress
from typing import Any, Final

from logd.runtime.handlers import Handlers
from logd.runtime.pipes import unread, widen
from logd.runtime.protocol import SOCKET_NAME, connect_in, receive, send

EXEC_ID_DIGITS: Final = 12
BATCH_BYTES: Final = 256 << 10
"""What a pipe holds, and the length of the longest line."""
ANSWER_WAIT_S: Final = 10.0
"""How long the container's shim may take for its first answer: its disk may be slow."""
RETRY_S: Final = 0.05
LOST_AFTER_S: Final = 20.0
"""How long a container without a shim is waited for: the keeper has another one there in milliseconds."""


class Stream:
    """One stream on its way."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        widen(self.writing, BATCH_BYTES)
        os.set_blocking(self.writing, False)
        self.room: int = fcntl.fcntl(self.writing, fcntl.F_GETPIPE_SZ)
        self.kept = bytearray()
        """What was printed and is not in the pipe yet."""
        self.is_sent = False
        """Whether a batch lies in the pipe."""
        self.has_ended = False

    def next_batch(self) -> int:
        """Return how much of what is kept goes next; the rest, if any, has no newline yet."""
        if length := self.kept.rfind(b"\n", 0, self.room) + 1:
            return length
        if len(self.kept) >= self.room:
            return self.room - 1
        return len(self.kept) if self.has_ended else 0


class ExecLog:
    """The connection to the container's shim. `begin` it, `add` what is printed, `end` each stream, `close` it."""

    def __init__(self, folder: str, names: tuple[str, ...], handlers: Handlers) -> None:
        """`folder` is the exec's, in the container's."""
        self._container = os.path.dirname(os.path.dirname(folder))
        self._exec_id = os.path.basename(folder)[:EXEC_ID_DIGITS]
        self._handlers = handlers
        self._streams = {name: Stream() for name in names}
        self._connection: socket.socket | None = None
        self._is_open = False
        """Whether the container's shim has agreed."""
        self._lost_at = 0.0
        self.retry_at = 0.0
        """When the container's shim is looked for again; 0 while it is there."""

    def begin(self) -> None:
        """Agree with the container's shim (blocks). Raises OSError if it does not."""
        until = time.monotonic() + ANSWER_WAIT_S
        while (connection := connect_in(self._container, SOCKET_NAME)) is None:  # another comes in its place
            if time.monotonic() >= until:
                raise ConnectionRefusedError("the container's shim is gone")
            time.sleep(RETRY_S)
        connection.settimeout(ANSWER_WAIT_S)
        self._ask(connection)
        message: dict[str, Any] = {}
        while "re" not in message:
            received = receive(connection)
            if received is None:
                raise ConnectionResetError("the container's shim has ended")
            message, _ = received
        if "error" in message:  # one of an older version
            raise ConnectionRefusedError(f"the container's shim: {message['error']} (start the container again)")
        self._open(connection)

    def _ask(self, connection: socket.socket) -> None:
        for stream in self._streams.values():  # before it can take any: its word for what lies there is still to come
            stream.is_sent = unread(stream.reading) > 0
        pipes = [stream.reading for stream in self._streams.values()]
        send(connection, {"op": "exec-log", "seq": 0, "exec": self._exec_id, "names": list(self._streams)}, pipes)

    def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._handlers.watch(connection.fileno(), lambda: self._hear(connection))
        self._agreed()

    def _agreed(self) -> None:
        self._is_open, self.retry_at = True, 0.0
        for stream in self._streams.values():
            self._send(stream)

    # -- what is printed -----------------------------------------------------------------------------------------

    def add(self, name: str, data: bytes) -> None:
        """Take what was printed."""
        stream = self._streams[name]
        stream.kept += data
        self._send(stream)

    def end(self, name: str) -> None:
        """Nothing more will come of a stream."""
        self._streams[name].has_ended = True
        self._send(self._streams[name])

    def is_full(self, name: str) -> bool:
        """Tell whether the exec has to wait: the container's shim does not take what it prints."""
        return len(self._streams[name].kept) >= BATCH_BYTES

    @property
    def is_done(self) -> bool:
        """Whether all that was printed is in the log."""
        return all(one.has_ended and not one.kept and not one.is_sent for one in self._streams.values())

    def _send(self, stream: Stream) -> None:
        if not self._is_open or stream.is_sent:
            return
        length = stream.next_batch()
        if not length:
            return
        batch = bytes(stream.kept[:length])
        os.write(stream.writing, batch if batch.endswith(b"\n") else batch + b"\n")  # the pipe is empty: it fits
        del stream.kept[:length]
        stream.is_sent = True

    # -- the container's shim ------------------------------------------------------------------------------------

    def _hear(self, connection: socket.socket) -> None:
        try:
            received = receive(connection)
        except OSError:
            received = None
        if received is None:
            self._lose(connection)
            return
        message, _ = received
        if "taken" in message:
            stream = self._streams[message["taken"]]
            stream.is_sent = False
            self._send(stream)
        elif "error" in message:
            self._give_up()
        elif "re" in message:
            self._agreed()

    def _lose(self, connection: socket.socket) -> None:
        """The container's shim was killed, or has ended."""
        self._handlers.close(connection.fileno(), connection)
        self._connection, self._is_open = None, False
        self._lost_at = self._lost_at or time.monotonic()
        self.retry_at = time.monotonic()

    def look_after(self) -> None:
        """Look for the container's shim again, when it is time to."""
        if self.retry_at and time.monotonic() >= self.retry_at:
            self._find()

    def _find(self) -> None:
        connection = connect_in(self._container, SOCKET_NAME)
        if connection is not None:
            connection.setblocking(False)
            with suppress(OSError):
                self._ask(connection)
            self._connection, self.retry_at, self._lost_at = connection, 0.0, 0.0
            self._handlers.watch(connection.fileno(), lambda: self._hear(connection))
        elif not os.path.exists(self._container) or time.monotonic() >= self._lost_at + LOST_AFTER_S:
            self._give_up()
        else:
            self.retry_at = time.monotonic() + RETRY_S

    def _give_up(self) -> None:
        """There is no log any more: the container has ended, and all that was its."""
        self.retry_at = 0.0
        self._is_open = False
        for stream in self._streams.values():
            stream.kept.clear()
            stream.has_ended, stream.is_sent = True, False

    def close(self) -> None:
        """Say that this was all, if so."""
        if self._connection is not None:
            if self.is_done:
                with suppress(OSError):
                    send(self._connection, {"op": "end"})
            self._handlers.close(self._connection.fileno(), self._connection)
            self._connection = None
        for stream in self._streams.values():
            os.close(stream.reading)
            os.close(stream.writing)
