"""Several containers' logs in one order: that of time, as far as it can be had without waiting for a silent one.

Up to the present it is a whole k-way merge: nothing is given out before every container has shown its next run. A
follower can't do that for ever, since a silent container would hold back all others: once a container has caught up
with the present, or has had nothing to say for a moment, it is no longer waited for, and what lies ready is merged.
"""

import heapq
import select
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from logd.cli.frames import Event
from logd.cli.streams import LogStream
from logd.errors import LogdError

SETTLE_S: Final = 0.1
"""A container that sent nothing for so long has caught up: the daemon reads the past at gigabytes a second."""


class Merger:
    """Merges open streams. Each has at most the events of one receive waiting, so that a slow reader costs nothing."""

    def __init__(self, streams: Sequence[LogStream], *, follow: bool) -> None:
        self.failures: list[tuple[LogStream, LogdError]] = []
        """Streams that broke; the others go on."""
        self._follow = follow
        self._started_ns = time.time_ns()
        self._queues: dict[LogStream, deque[Event]] = {}
        self._heads: list[tuple[int, int, LogStream]] = []  # a heap: time, order of the command line, stream
        self._order: dict[LogStream, int] = {}
        self._behind: set[LogStream] = set()  # have not caught up with the present
        self._missing: dict[LogStream, float] = {}  # behind, and nothing waiting → when it last spoke
        self._poll = select.poll()
        self._asked: dict[int, LogStream] = {}  # by descriptor: nothing waiting, polled
        self._unread: set[LogStream] = set()  # bytes lie in the process already; the descriptor may stay silent
        for stream in streams:
            self.add(stream)

    def add(self, stream: LogStream) -> None:
        """Merge one more open stream from now on."""
        self._order[stream] = len(self._order)
        self._queues[stream] = deque()
        self._behind.add(stream)
        self._ask(stream)

    def events(self) -> Iterator[tuple[LogStream, Event]]:
        """Yield the events of all streams until all have ended."""
        while self._queues:
            self._receive()
            if self._heads and not self._missing:
                yield from self._emit()

    def _emit(self) -> Iterator[tuple[LogStream, Event]]:
        """Yield the earliest events until one of the queues is empty, when that stream must be asked again."""
        while True:
            _, order, stream = heapq.heappop(self._heads)
            queue = self._queues[stream]
            event = queue.popleft()
            if self._follow and event.time_ns >= self._started_ns:
                self._behind.discard(stream)
            if queue:
                heapq.heappush(self._heads, (queue[0].time_ns, order, stream))
            elif stream.ended:
                self._drop(stream)
            else:
                self._ask(stream)
            yield stream, event
            if not queue:
                return

    def _patience_ms(self) -> float | None:
        """Return how long to wait for more: 0 while something can be given out, None for ever."""
        if self._unread or (self._heads and not self._missing):
            return 0
        if self._follow and self._missing:
            return max(0.0, min(self._missing.values()) + SETTLE_S - time.monotonic()) * 1000
        return None

    def _receive(self) -> None:
        """Take what has come on the streams that have nothing waiting."""
        ready = set(self._unread)
        if self._asked:
            ready.update(self._asked[number] for number, _ in self._poll.poll(self._patience_ms()))
        now = time.monotonic()
        for stream in ready:
            self._take(stream)
        if self._follow:
            for stream, spoke in list(self._missing.items()):
                if now - spoke >= SETTLE_S and stream not in ready:
                    del self._missing[stream]
                    self._behind.discard(stream)

    def _take(self, stream: LogStream) -> None:
        descriptor = stream.fileno()
        self._poll.unregister(descriptor)
        del self._asked[descriptor]
        self._unread.discard(stream)
        self._missing.pop(stream, None)
        try:
            events = stream.receive()
        except LogdError as error:
            self.failures.append((stream, error))
            self._drop(stream)
            return
        if events:
            self._queues[stream].extend(events)
            heapq.heappush(self._heads, (events[0].time_ns, self._order[stream], stream))
        elif stream.ended:
            self._drop(stream)
        else:
            self._ask(stream)

    def _ask(self, stream: LogStream) -> None:
        descriptor = stream.fileno()  # another one after the stream connected again
        self._asked[descriptor] = stream
        self._poll.register(descriptor, select.POLLIN)
        if stream.pending:
            self._unread.add(stream)
        if stream in self._behind:
            self._missing[stream] = time.monotonic()

    def _drop(self, stream: LogStream) -> None:
        del self._queues[stream]
        self._behind.discard(stream)
        self._missing.pop(stream, None)
        stream.close()
