"""Several containers' logs in one order: that of time, as far as it can be had without waiting for a silent one.

Up to the present it is a whole k-way merge: nothing is given out before every container has shown its next run. A
follower can't do that for ever, since a silent container would hold back all others: once a container has caught up
with the present, or has had nothing to say for a moment, it is no longer waited for, and what lies ready is merged.
"""

import heapq
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from logd.cli.client import Refused
from logd.cli.frames import Event, Failure
from logd.cli.streams import Container, LogStream
from logd.errors import LogdError

if TYPE_CHECKING:
    from logd.cli.arrivals import Arrivals

Opener = Callable[[Container, tuple[int, int] | None], LogStream]
"""Opens the stream of a container from the positions of stdout and stderr, or from its beginning."""

SETTLE_S: Final = 0.1
"""A container that sent nothing for so long has caught up: the daemon reads the past at gigabytes a second."""


class Merger:
    """Merges open streams. Each has at most the events of one receive waiting, so that a slow reader costs nothing."""

    def __init__(
        self,
        streams: Sequence[LogStream],
        *,
        follow: bool,
        arrivals: "Arrivals | None" = None,
        opener: Opener | None = None,
    ) -> None:
        """With `arrivals`, containers that start are joined; `opener` opens the stream of one."""
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
        self._arrivals = arrivals
        self._opener = opener
        self._latest: dict[str, LogStream] = {}  # by the container's id
        self._again: set[str] = set()  # ids of containers that started anew before their stream had ended
        for stream in streams:
            self._behind.add(stream)
            self._add(stream)
        if arrivals is not None:
            self._poll.register(arrivals.fileno(), select.POLLIN)

    def batches(self) -> Iterator[list[tuple[LogStream, Event]]]:
        """Yield the events of all streams, as many as can be had at once, until all end; with arrivals, for ever.

        A stream that breaks ends with a Failure; the others go on.
        """
        while self._queues or self._arrivals is not None:
            self._receive()
            if self._heads and not self._missing:
                yield self._ready()

    def _ready(self) -> list[tuple[LogStream, Event]]:
        """Return the earliest events until one of the queues is empty, when that stream must be asked again."""
        ready: list[tuple[LogStream, Event]] = []
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
            ready.append((stream, event))
            if not queue:
                return ready

    def _patience_ms(self) -> float | None:
        """Return how long to wait for more: 0 while something can be given out, None for ever."""
        arrived = self._arrivals is not None and self._arrivals.pending
        if arrived or self._unread or (self._heads and not self._missing):
            return 0
        if self._follow and self._missing:
            return max(0.0, min(self._missing.values()) + SETTLE_S - time.monotonic()) * 1000
        return None

    def _receive(self) -> None:
        """Take what has come on the streams that have nothing waiting."""
        ready = set(self._unread)
        if self._asked or self._arrivals is not None:
            found = {self._asked.get(number) for number, _ in self._poll.poll(self._patience_ms())}
            if None in found or (self._arrivals is not None and self._arrivals.pending):
                self._welcome()
            ready.update(stream for stream in found if stream is not None)
        now = time.monotonic()
        for stream in ready:
            self._take(stream)
        if self._follow:
            for stream, spoke in list(self._missing.items()):
                if now - spoke >= SETTLE_S and stream not in ready:
                    del self._missing[stream]
                    self._behind.discard(stream)

    def _welcome(self) -> None:
        """Join the containers that have started."""
        assert self._arrivals is not None
        self._poll.unregister(self._arrivals.fileno())
        started = self._arrivals.receive()
        self._poll.register(self._arrivals.fileno(), select.POLLIN)
        for container in started:
            if self._latest.get(container.id) in self._queues:
                self._again.add(container.id)
            else:
                self._join(container)

    def _join(self, container: Container) -> None:
        """Follow a container from its beginning, or from where its last stream ended."""
        assert self._opener is not None
        earlier = self._latest.get(container.id)
        try:
            self._add(self._opener(container, earlier.positions if earlier else None))
        except Refused as error:
            if error.status != 404:  # else it has ended and is removed already
                raise

    def _add(self, stream: LogStream) -> None:
        self._order[stream] = len(self._order)
        self._queues[stream] = deque()
        self._latest[stream.container.id] = stream
        self._ask(stream)

    def _take(self, stream: LogStream) -> None:
        descriptor = stream.fileno()
        self._poll.unregister(descriptor)
        del self._asked[descriptor]
        self._unread.discard(stream)
        self._missing.pop(stream, None)
        events: Sequence[Event]
        try:
            events = stream.receive()
        except LogdError as error:
            stream.ended = True
            events = [Failure(0, str(error))]
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
        if stream.container.id in self._again:
            self._again.discard(stream.container.id)
            self._join(stream.container)
