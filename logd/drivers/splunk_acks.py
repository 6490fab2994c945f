"""Indexer acknowledgement: channels, and what was posted over them and is not known to be indexed.

Each opening of the driver has a channel of its own. A collector that starts anew numbers anew: a number that comes a
second time says that what was posted before is forgotten. So no acknowledgement is taken for that of another request.

A request whose sender gave up waiting stays known, and is waited for again when the same records are sent once more.
"""

import asyncio
import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from logd.drivers.splunk_collector import Collector
from logd.drivers.splunk_records import Key

log = logging.getLogger(__name__)

FIRST_POLL_S: Final = 0.1
LONGEST_POLL_S: Final = 2.0
SLOWER: Final = 1.5
WAIT_S: Final = 120.0
"""So long after it was posted a request that is not acknowledged is posted again."""
STOP_TIMEOUT_S: Final = 1.0


@dataclass
class Channel:
    """A client's name for a series of requests."""

    name: str = field(default_factory=lambda: str(uuid.uuid4()))
    numbers: set[int] = field(default_factory=set)
    """All that were given on it."""
    waiting: "dict[int, Posted]" = field(default_factory=dict)


@dataclass(eq=False)
class Posted:
    """A request that the collector has, but perhaps not the index."""

    channel: Channel
    ack_id: int
    until: float
    """The event loop's time at which it is given up."""
    indexed: "asyncio.Future[None]"


class Acknowledgements:
    """All that is waited for. Asks while there is something, between `start` and `stop`."""

    def __init__(self) -> None:
        self.channel = Channel()
        self._posted: dict[Key, Posted] = {}
        self._polling: asyncio.Task[None] | None = None
        self._collector: Collector | None = None
        self._stopped = asyncio.Event()

    def start(self, collector: Collector) -> None:
        """Begin a channel; ask for what is left of others."""
        self._collector, self.channel = collector, Channel()
        self._stopped = asyncio.Event()
        self._poll_if_needed()

    async def stop(self) -> None:
        """Ask no more. What is posted stays known."""
        self._collector = None
        self._stopped.set()
        polling, self._polling = self._polling, None
        if polling is not None:
            # An answer that is not heard is lost: the collector gives each once.
            await asyncio.wait({polling}, timeout=STOP_TIMEOUT_S)
            polling.cancel()
            with suppress(asyncio.CancelledError):
                await polling

    def find(self, key: Key) -> Posted | None:
        """Return the request with these records, if the collector has it already."""
        return self._posted.get(key)

    def add(self, key: Key, channel: Channel, ack_id: int) -> Posted:
        """Note that a request was posted."""
        if ack_id in channel.numbers:
            self._void(channel, "the collector has started anew")
            if channel is self.channel:
                self.channel = Channel()
            raise ConnectionError("the collector has started anew, what it had not acknowledged is sent again")
        loop = asyncio.get_running_loop()
        posted = Posted(channel, ack_id, loop.time() + WAIT_S, loop.create_future())
        channel.numbers.add(ack_id)
        channel.waiting[ack_id] = self._posted[key] = posted
        self._poll_if_needed()
        return posted

    async def wait(self, key: Key, posted: Posted) -> None:
        """Return once the request is indexed. Raises OSError; cancelled, the request stays known."""
        await asyncio.wait({posted.indexed})
        self._posted.pop(key, None)
        posted.indexed.result()

    def void(self, reason: str) -> None:
        """Take nothing for posted: the collector may have gone, and what it had in its hands with it."""
        for channel in {one.channel.name: one.channel for one in self._posted.values()}.values():
            self._void(channel, reason)
        self.channel = Channel()

    def forget(self, container_id: str) -> None:
        """Let go of a container's."""
        for key in [key for key in self._posted if key[0] == container_id]:
            posted = self._posted.pop(key)
            posted.channel.waiting.pop(posted.ack_id, None)

    def _void(self, channel: Channel, reason: str) -> None:
        for posted in channel.waiting.values():
            _settle(posted, ConnectionError(f"not acknowledged: {reason}"))
        channel.waiting.clear()
        self._posted = {key: one for key, one in self._posted.items() if one.channel is not channel}

    def _poll_if_needed(self) -> None:
        if self._collector and self._posted and (self._polling is None or self._polling.done()):
            polling = self._poll(self._collector, self._stopped)
            self._polling = asyncio.create_task(polling, name="splunk acknowledgements")

    async def _poll(self, collector: Collector, stopped: asyncio.Event) -> None:
        try:
            await self._ask(collector, stopped)
        except Exception:
            log.exception("a mistake: what is posted is not known to be indexed, and posted again")
            self.void("a mistake of logd's")

    async def _ask(self, collector: Collector, stopped: asyncio.Event) -> None:
        wait_s = FIRST_POLL_S
        while not stopped.is_set() and self._open_channels():
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await stopped.wait()
            wait_s = min(wait_s * SLOWER, LONGEST_POLL_S)
            for channel in self._open_channels():
                if stopped.is_set():
                    return
                try:
                    async with collector.use():
                        indexed = await collector.acknowledged(channel.name, list(channel.waiting))
                except OSError as error:
                    log.debug("asking for acknowledgements failed: %s", error)
                    self._void(channel, str(error))
                    continue
                for ack_id in indexed:
                    _settle(channel.waiting.pop(ack_id))
                    wait_s = FIRST_POLL_S
            self._give_up()

    def _open_channels(self) -> list[Channel]:
        return list({one.channel.name: one.channel for one in self._posted.values() if one.channel.waiting}.values())

    def _give_up(self) -> None:
        now = asyncio.get_running_loop().time()
        for key, posted in [(key, one) for key, one in self._posted.items() if one.until <= now]:
            posted.channel.waiting.pop(posted.ack_id, None)
            _settle(posted, TimeoutError(f"not indexed within {WAIT_S:.0f} s, posted again"))
            self._posted.pop(key, None)


def _settle(posted: Posted, error: OSError | None = None) -> None:
    if posted.indexed.done():
        return
    if error is None:
        posted.indexed.set_result(None)
    else:
        posted.indexed.set_exception(error)
        posted.indexed.exception()  # it may be that nobody waits any more
