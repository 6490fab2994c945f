"""An event loop's descriptors and who is called for them."""

import os
import select
import socket
from collections.abc import Callable


class Handlers:
    """Descriptors that are watched, each with its handler."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, handler: Callable[[], None], events: int = select.EPOLLIN) -> None:
        """Have `handler` called whenever there is something to read, or what `events` says."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, events)

    def is_watched(self, descriptor: int) -> bool:
        """Tell whether it is."""
        return descriptor in self._handlers

    def unwatch(self, descriptor: int) -> None:
        """Undo `watch`."""
        if self._handlers.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def close(self, descriptor: int, owner: socket.socket | None = None) -> None:
        """Close a descriptor, or the socket whose it is."""
        self.unwatch(descriptor)
        if owner is None:
            os.close(descriptor)
        else:
            owner.close()

    def serve(self, timeout_s: float) -> None:
        """Wait until something happens, at most for so long (-1: for ever), and call the handlers."""
        for descriptor, _ in self._poll.poll(timeout_s):
            if handler := self._handlers.get(descriptor):
                handler()
