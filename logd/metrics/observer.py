"""The process that looks into logs and layers for the metrics, beside the daemon: lines, their levels, sizes, backlogs.

The daemon starts it at the first scrape and asks for a round at each. It keeps nothing that matters and may be killed
at any moment: the daemon has the totals, and tells the next one where to go on. It ends when the daemon does, and when
nobody has asked for IDLE_S.

Both sides say JSON objects, each behind its length (4 bytes, little-endian), as in forward/wire.py:

Daemon → observer:
    {"op": "round", "seq", "number",
     "watch": [[key, folder, stdout, stderr], …]    stores, and from where on their lines are to be counted
     "forget": [key, …],
     "grown": [key, …]                              stores whose lines are to be counted on
     "waiting": [[key, name, stdout, stderr, stdout_end, stderr_end], …]     cursors and the ends, read after them
     "layers": [[key, path, is_live], …]}           writable layers, once and when `is_live` changes
Observer → daemon, as it goes:
    {"event": "waiting", "number", "found": [[key, name, held, missing, oldest_ns], …]}
    {"event": "lines", "found": [[key, stdout, stderr, stdout_read, stderr_read, {level: lines}, skipped_bytes], …]}
                                                    where another one should go on, and how far this one has read
    {"event": "layers", "found": [[key, bytes], …]}
    {"re": seq}                                     the round is over
"""

import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

from logd.logstore.backlog import Backlog, Waiting
from logd.metrics.layers import Layer
from logd.metrics.lines import LineCounter
from logd.runtime import kinship

NAME: Final = b"logd-observe"
NICE: Final = 10
IDLE_S: Final = 300.0
"""After so long without a round the process ends; the next scrape begins another."""
WAITING_S: Final = 0.25
"""What counting backlogs may take in a round; it goes on in the next one."""
EXAMINE_SHARE: Final = 0.05
COUNT_SHARE: Final = 0.03
"""Parts of a processor, since the last round, for recognising levels, and beyond that for counting newlines."""
LEAST_S: Final = 0.05
MOST_S: Final = 1.0
TELL_S: Final = 0.05
"""How often what was found in a long round is told."""
LOOK_S: Final = 1.0
"""How often is looked whether segments are deleted that are still open."""
STEP_S: Final = 0.02
"""How long a layer is walked before looking whether the daemon says something."""
FILES_A_STORE: Final = 4
_LENGTH: Final = struct.Struct("<I")


class Gone(Exception):
    """The daemon has ended."""


class Line:
    """Our end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._poll = select.poll()  # select(2) takes no descriptor beyond 1023
        self._poll.register(connection, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Tell whether the daemon says something within a time."""
        return bool(self._poll.poll(max(0.0, timeout_s) * 1000))

    def hear(self) -> dict[str, Any]:
        """Return what the daemon says. Raises Gone."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        message: dict[str, Any] = json.loads(self._exactly(length))
        return message

    def say(self, message: dict[str, Any]) -> None:
        """Tell the daemon. Raises Gone."""
        raw = json.dumps(message, separators=(",", ":")).encode()
        try:
            self._connection.sendall(_LENGTH.pack(len(raw)) + raw)
        except OSError as error:
            raise Gone from error

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self._connection.recv(size - len(parts))
            if not part:
                raise Gone
            parts += part
        return parts


class Store:
    """What is kept of one container's log. `close` it."""

    def __init__(self, folder: str, begin: tuple[int, int]) -> None:
        """Raises OSError where the folder is gone."""
        self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{self._descriptor}"  # wherever the folder is moved
        self.lines = LineCounter(path, begin)
        self.backlog = Backlog(path)

    def close(self) -> None:
        """Close all files."""
        self.lines.close()
        os.close(self._descriptor)


class Observer:
    """The process's state."""

    def __init__(self, line: Line, max_open: int) -> None:
        """`max_open`: how many stores may have files open from one round to the next."""
        self._line = line
        self._max_open = max_open
        self._stores: dict[str, Store] = {}
        self._open: dict[str, None] = {}
        """Keys of stores with open files, the one used longest ago first."""
        self._layers: dict[str, Layer] = {}
        self._last_s = time.monotonic() - MOST_S / EXAMINE_SHARE  # what was printed before it may be much
        self._looked_s = 0.0

    def run(self) -> None:
        """Answer until nobody has asked for long. Raises Gone when the daemon has ended."""
        asked_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            due_s = min((one.due_s for one in self._layers.values()), default=float("inf"))
            if self._open:
                due_s = min(due_s, self._looked_s + LOOK_S)
            if self._line.wait(min(due_s, asked_s + IDLE_S) - now_s):
                self._round(self._line.hear())
                asked_s = time.monotonic()
            elif time.monotonic() - asked_s >= IDLE_S:
                return
            else:
                self._let_go_deleted()
                self._walk_layers()

    def _round(self, request: dict[str, Any]) -> None:
        for key in request["forget"]:
            self._forget(key)
        for key, folder, stdout, stderr in request["watch"]:
            self._forget(key)
            try:
                self._stores[key] = Store(folder, (stdout, stderr))
            except OSError:
                continue  # it is gone, and the daemon will see so
        for key, path, is_live in request["layers"]:
            layer = self._layers.setdefault(key, Layer(path))
            layer.is_live, layer.due_s = is_live, 0.0
        self._count_waiting(request["number"], request["waiting"])
        self._count_lines(request["grown"])
        self._line.say({"re": request["seq"]})

    def _forget(self, key: str) -> None:
        self._open.pop(key, None)
        if store := self._stores.pop(key, None):
            store.close()
        if layer := self._layers.pop(key, None):
            layer.close()

    # -- backlogs ----------------------------------------------------------------------------------------------------

    def _count_waiting(self, number: int, asked: Iterable[list[Any]]) -> None:
        """Count what waits for drivers that are behind; for whom time runs out, it goes on in the next round."""
        deadline = time.monotonic() + WAITING_S
        found = []
        for key, name, stdout, stderr, stdout_end, stderr_end in asked:
            waiting = self._waiting(key, (stdout, stderr), (stdout_end, stderr_end), deadline)
            if waiting is not None:
                found.append([key, name, *waiting])
        if found:
            self._line.say({"event": "waiting", "number": number, "found": found})

    def _waiting(self, key: str, cursor: tuple[int, int], ends: tuple[int, int], deadline: float) -> Waiting | None:
        store = self._stores.get(key)
        try:
            return None if store is None else store.backlog.count(cursor, ends, deadline)
        except OSError:
            return None  # gone

    # -- lines -------------------------------------------------------------------------------------------------------

    def _count_lines(self, keys: Iterable[str]) -> None:
        """Count new lines, a piece of each store in turn; beyond the budget without their levels, then not at all.

        The first piece of each is counted in any case: what is quiet does not suffer from what is loud.
        """
        now_s = time.monotonic()
        passed_s, self._last_s = now_s - self._last_s, now_s
        examine_s = time.thread_time() + min(max(LEAST_S, passed_s * EXAMINE_SHARE), MOST_S)
        count_s = examine_s + min(max(LEAST_S, passed_s * COUNT_SHARE), MOST_S)
        told_s = now_s
        left = [key for key in keys if key in self._stores]
        read: set[str] = set()
        is_first = True
        while left:
            still = []
            for key in left:
                spent_s = time.thread_time()
                if self._read(key, examine=spent_s < examine_s, skip=spent_s >= count_s and not is_first):
                    still.append(key)
                read.add(key)
                if time.monotonic() - told_s > TELL_S:
                    self._tell(read)
                    read.clear()
                    told_s = time.monotonic()
            left, is_first = still, False
        self._tell(read)

    def _read(self, key: str, *, examine: bool, skip: bool) -> bool:
        """Count a piece of a store; true if there may be more."""
        lines = self._stores[key].lines
        try:
            if skip:
                lines.skip()
            more = not skip and lines.read(examine=examine)
        except OSError:  # it is gone, or the disk fails: the daemon asks again when there is more
            lines.close()
            more = False
        self._keep_open(key)
        return more

    def _keep_open(self, key: str) -> None:
        self._open.pop(key, None)
        if self._stores[key].lines.is_open:
            self._open[key] = None
        if len(self._open) > self._max_open:
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._stores[oldest].lines.close()

    def _let_go_deleted(self) -> None:
        """Read the rest of segments that are deleted, and close them: open ones take room on the disk."""
        now_s = time.monotonic()
        if now_s < self._looked_s + LOOK_S:
            return
        self._looked_s = now_s
        if deleted := [key for key in self._open if self._stores[key].lines.holds_deleted]:
            self._count_lines(deleted)
            for key in deleted:
                self._open.pop(key, None)
                self._stores[key].lines.close()

    def _tell(self, keys: Iterable[str]) -> None:
        found = []
        for key in keys:
            lines = self._stores[key].lines
            found.append([key, *lines.resume, *lines.position, *lines.take()])
        if found:
            self._line.say({"event": "lines", "found": found})

    # -- writable layers ---------------------------------------------------------------------------------------------

    def _walk_layers(self) -> None:
        """Walk a little of the layer that is due longest, or several small ones."""
        end_s = time.monotonic() + STEP_S
        found = []
        while (now_s := time.monotonic()) < end_s:
            key = min(self._layers, key=lambda one: self._layers[one].due_s, default="")
            if not key or self._layers[key].due_s > now_s:
                break
            if self._layers[key].step(now_s):
                found.append([key, self._layers[key].bytes])
        if found:
            self._line.say({"event": "layers", "found": found})


def main() -> None:
    """`DESCRIPTOR PID`: our end of the connection to the daemon, and its pid."""
    kinship.set_name(NAME)
    kinship.die_with_parent(int(sys.argv[2]))
    os.nice(NICE)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    observer = Observer(Line(socket.socket(fileno=int(sys.argv[1]))), max(1, limit // 2 // FILES_A_STORE))
    try:
        observer.run()
    except Gone:
        return


if __name__ == "__main__":
    main()
