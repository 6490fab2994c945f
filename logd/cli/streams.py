"""One container's log over one connection, with the place up to which it has been read.

A follower outlives the daemon: containers do not notice a restart, so neither does `logs -f`. It connects again and
goes on after the last byte it was given.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from logd.cli.client import Broken, Client, Query, Refused, Response, Unreachable, quote
from logd.cli.frames import End, Event, Failure, FrameDecoder, Start
from logd.record import STDOUT, Gap, Run

RECONNECT_S: Final = 30.0
"""How long a follower waits for a daemon that went away; a restart takes about a second."""
RECONNECT_PAUSE_S: Final = 0.1


class Container(NamedTuple):
    """Whose log it is: `ref` is what the daemon is asked for, `name` what a person reads."""

    ref: str
    id: str
    name: str


def patiently(connect: Callable[[], None]) -> None:
    """Connect again to a daemon that went away. Raises what the last try met, after RECONNECT_S."""
    deadline = time.monotonic() + RECONNECT_S
    while True:
        time.sleep(RECONNECT_PAUSE_S)
        try:
            connect()
        except (Unreachable, Broken):
            if time.monotonic() > deadline:
                raise
        except Refused as error:
            if error.status < 500 or time.monotonic() > deadline:
                raise
        else:
            return


def positions_after(event: Event, positions: tuple[int, int]) -> tuple[int, int]:
    """Return the positions of stdout and stderr behind `event`, which were `positions` before it."""
    if isinstance(event, Start):
        return event.positions
    if isinstance(event, (Run, Gap)):
        end = event.position + (len(event.data) if isinstance(event, Run) else event.length)
        return (end, positions[1]) if event.stream == STDOUT else (positions[0], end)
    return positions


class Listening:
    """What waits for the bytes of one answer after another: a Source, to be waited for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._response: Response | None = None

    def fileno(self) -> int:
        """Return the descriptor, for poll."""
        assert self._response is not None
        return self._response.fileno()

    @property
    def pending(self) -> bool:
        """Say whether `receive` has something although the descriptor is not readable."""
        return self._response is not None and self._response.pending


class LogStream(Listening):
    """The log of one container, as events. `open` first; then `receive` until `ended`."""

    def __init__(self, client: Client, container: Container, query: Query, after: tuple[int, int] | None) -> None:
        super().__init__(client)
        self.container = container
        self.ended = False
        self.positions = after or (0, 0)
        """Positions of stdout and stderr after what has been given out by `receive`."""
        self._query = dict(query)
        self.after = after
        self._decoder = FrameDecoder()

    def open(self) -> None:
        """Send the request. Raises what Client.request raises."""
        query = dict(self._query)
        if self.after is not None:
            query["after"] = f"{self.after[0]},{self.after[1]}"
        self._decoder = FrameDecoder()
        self._response = self._client.request("GET", f"/logd/containers/{quote(self.container.ref)}/logs", query)

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()

    def receive(self) -> list[Event]:
        """Wait for bytes and return the events in them: none, if they completed none. Sets `ended` at the end."""
        assert self._response is not None
        try:
            events = self._decoder.feed(self._response.receive())
            if not events and self._response.ended:
                raise Broken("the daemon closed the connection before the end of the log")
        except Broken:
            if not self._query.get("follow"):
                raise
            self._reconnect()
            return []
        return self._take(events)

    def cursor_around(self, stream: int, positions: tuple[int, int]) -> tuple[str, str]:
        """Return what stands before and after the position of one stream in the cursor for --after.

        A cursor is CONTAINER@1:OUT:ERR; the other stream's position is that of `positions`.
        """
        head = f"{self.container.id or self.container.ref}@1:"
        return (head, f":{positions[1]}") if stream == STDOUT else (f"{head}{positions[0]}:", "")

    def _take(self, events: list[Event]) -> list[Event]:
        """Keep the place, and return what is for whoever prints."""
        out, err = self.positions
        for event in events:
            if type(event) is Run:  # nearly always: written out, since it is met a million times
                if event.stream == STDOUT:
                    out = event.position + len(event.data)
                else:
                    err = event.position + len(event.data)
            else:
                out, err = positions_after(event, (out, err))
        self.positions = (out, err)
        last = events[-1] if events else None
        self.ended = isinstance(last, (End, Failure))
        return events[:-1] if isinstance(last, End) else events

    def _reconnect(self) -> None:
        """Go on after the last byte."""
        self.close()
        self.after = self.positions
        self._query.pop("tail", None)
        self._query.pop("since", None)
        try:
            patiently(self.open)
        except Refused as error:
            if error.status != 404:
                raise
            self.ended = True  # removed while the daemon was away: what there was has been read
