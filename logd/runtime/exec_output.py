"""The output of an exec that goes into its container's log, and, beside that, to a client.

It is read here, and goes to the log and into a pipe whose other end a client has. The process waits for the slower of
the two; a client that is gone is no concern of the log's.
"""

import os
import select
from collections.abc import Callable
from typing import Final

from logd.runtime.exec_log import ExecLog
from logd.runtime.handlers import Handlers

READ_BYTES: Final = 64 << 10


class Pump:
    """One output: `source` is read, `name` is its stream in the log, `client` a pipe to a client or -1."""

    def __init__(self, source: int, name: str, client: int, log: ExecLog, handlers: Handlers) -> None:
        self.source = source
        self.name = name
        self._client = client
        self._log = log
        self._handlers = handlers
        self._pending = b""
        """What the client has no room for."""
        self.has_ended = False
        os.set_blocking(source, False)
        if client >= 0:
            os.set_blocking(client, False)
        self.look_after()

    def look_after(self) -> None:
        """Read as long as log and client have taken what came before."""
        wants_more = not (self.has_ended or self._pending or self._log.is_full(self.name))
        if wants_more and not self._handlers.is_watched(self.source):
            self._handlers.watch(self.source, self._read)
        elif not wants_more:
            self._handlers.unwatch(self.source)

    def _read(self) -> None:
        try:
            data = os.read(self.source, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal open
            data = b""
        if data:
            self._log.add(self.name, data)
            self._pending = data if self._client >= 0 else b""
            self._give()
        else:
            self.end()

    def _give(self) -> None:
        """Give the client what it has room for, and the rest when it has more."""
        if self._client < 0:
            return
        try:
            self._pending = self._pending[os.write(self._client, self._pending) :] if self._pending else b""
        except BlockingIOError:
            pass
        except OSError:  # EPIPE
            self.leave_client()
            return
        if self._pending and not self._handlers.is_watched(self._client):
            self._handlers.watch(self._client, self._give, select.EPOLLOUT)
        elif not self._pending:
            self._handlers.unwatch(self._client)
            if self.has_ended:
                self.leave_client()

    def leave_client(self) -> None:
        """The client is gone, or has all."""
        self._pending = b""
        if self._client >= 0:
            self._handlers.close(self._client)
            self._client = -1

    def end(self) -> None:
        """There is nothing more to be read."""
        if not self.has_ended:
            self.has_ended = True
            self._handlers.close(self.source)
            self._log.end(self.name)
            self._give()

    @property
    def is_over(self) -> bool:
        """Whether all has gone where it goes."""
        return self.has_ended and self._client < 0


class LoggedOutput:
    """All outputs of one exec."""

    def __init__(self, log: ExecLog, handlers: Handlers) -> None:
        self._log = log
        self._handlers = handlers
        self._pumps: list[Pump] = []

    def pump(self, source: int, name: str, *, for_client: bool) -> int:
        """Read an output from here on; return a pipe's end for a client, -1 if there is none."""
        theirs, ours = os.pipe() if for_client else (-1, -1)
        self._pumps.append(Pump(source, name, ours, self._log, self._handlers))
        return theirs

    def leave_clients(self) -> None:
        """There is no client any more."""
        self._each(Pump.leave_client)

    def end(self) -> None:
        """The process was not started."""
        self._each(Pump.end)

    def _each(self, do: Callable[[Pump], None]) -> None:
        for one in self._pumps:
            do(one)

    def look_after(self) -> None:
        """Whatever is due after a round."""
        self._log.look_after()
        self._each(Pump.look_after)

    @property
    def due(self) -> float:
        """When `look_after` is to be called at the latest (monotonic clock), 0 if that can wait."""
        return self._log.retry_at

    @property
    def is_over(self) -> bool:
        """Whether all is in the log, and with its client."""
        return all(one.is_over for one in self._pumps) and self._log.is_done

    def close(self) -> None:
        """It is over."""
        self._log.close()
