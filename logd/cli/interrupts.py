"""Waiting for bytes such that a signal's handler runs at once.

Python runs handlers between its own instructions. A signal that comes just before a blocking call has begun does not
end that call, so its handler would run when bytes come: perhaps never.
"""

import os
import select
import signal
from typing import Protocol


class Source(Protocol):
    """What bytes are received from: a Response or a LogStream."""

    def fileno(self) -> int:
        """Return the descriptor."""

    @property
    def pending(self) -> bool:
        """Say whether bytes are there although the descriptor is not readable."""


class Waiter:
    """Made in the main thread, before the handlers are set; one in a process."""

    def __init__(self) -> None:
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)  # a byte for each signal that has a handler

    def wait(self, source: Source) -> None:
        """Return when `source` has bytes, or an end, to receive; handlers run meanwhile."""
        poll = select.poll()
        poll.register(source.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not source.pending:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._wake in ready:
                os.read(self._wake, 4096)
            if source.fileno() in ready:
                return
