"""Waiting for a store to grow, for the process's asyncio loop: one inotify instance for all stores.

    subscription = watcher.subscribe(folder)
    while not done:
        items = reader.read()
        if items: …
        else: await subscription.wait(timeout)

No wake-up is lost in that loop: `wait` remembers what the store looked like when it last returned (at first: when
`subscribe` was called), which was before the reads that followed. It sets its watch, looks again, and sleeps only if
the store has not changed since.

While a reader is busy its store has no watch, so that a busy store can't fill the kernel's queue of events; should it
overflow all the same, every subscriber looks.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable
from typing import Final

from logd.logstore.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_DONT_FOLLOW,
    IN_IGNORED,
    IN_MODIFY,
    IN_MOVED_TO,
    IN_ONESHOT,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Event,
    Inotify,
)
from logd.logstore.segment import INDEX_NAME, index_name, segment_numbers

logger = logging.getLogger(__name__)

FOLDER_MASK: Final = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW
INDEX_MASK: Final = IN_MODIFY | IN_ONESHOT | IN_DONT_FOLLOW
"""One event, then quiet until the watch is set again: a busy store can't fill the queue."""
POLL_S: Final = 0.05
"""How often to look where there is no watch: no folder yet, or fs.inotify.max_user_watches is reached."""


class _Folder:
    """The watches of one store and who waits for it."""

    def __init__(self, inotify: Inotify, path: str) -> None:
        self.path = path
        self.subscriptions: set[Subscription] = set()
        self.newest = 0
        self._descriptor = -1
        self.watch: int | None = None
        self.index_watch: int | None = None
        self._inotify = inotify
        self._may_warn = True

    def arm(self) -> bool:
        """Watch the folder and its newest index, so far as they exist; false when polling is needed."""
        try:
            if self.watch is None:
                self.watch = self._inotify.add(self.path, FOLDER_MASK)
                self.find_newest()
            if self.index_watch is None and self.newest:
                path = os.path.join(self.path, index_name(self.newest))
                self.index_watch = self._inotify.add(path, INDEX_MASK)
        except FileNotFoundError:
            return self.watch is not None  # the folder's watch tells of the next index
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            if self._may_warn:
                self._may_warn = False
                logger.warning("%s: no inotify watch left, polling (raise fs.inotify.max_user_watches)", self.path)
            self.find_newest()
            return False
        return True

    def find_newest(self) -> None:
        """Find the newest segment in the folder itself."""
        try:
            self.turn_to(max(segment_numbers(self.path), default=0))
        except FileNotFoundError:
            self.turn_to(0)

    def state(self) -> tuple[int, int]:
        """Return what changes when the store grows: the newest segment and the size of its index."""
        if self._descriptor < 0 and not self._open():
            return self.newest, 0
        return self.newest, os.lseek(self._descriptor, 0, os.SEEK_END)  # ten times as fast as stat

    def _open(self) -> bool:
        if self.newest:
            with contextlib.suppress(FileNotFoundError):
                self._descriptor = os.open(os.path.join(self.path, index_name(self.newest)), os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor >= 0

    def wake(self) -> None:
        """Have all who wait look."""
        for subscription in self.subscriptions:
            subscription.look()

    def turn_to(self, number: int) -> None:
        """Take a segment for the newest."""
        if number != self.newest:
            self.close()
            self.newest = number

    def close(self) -> None:
        """Close the newest segment's index."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Subscription:
    """One reader's interest in one store; for one waiting task at a time. Call `close`."""

    def __init__(self, watcher: "Watcher", folder: _Folder) -> None:
        self._watcher = watcher
        self._folder = folder
        self._waiter: asyncio.Future[None] | None = None
        self._serve: Callable[[], bool] | None = None
        self._seen = folder.state()
        self._is_woken = False

    async def wait(self, timeout: float | None = None, serve: Callable[[], bool] | None = None) -> bool:  # noqa: ASYNC109
        """Return when the store has changed since the last return, or after `timeout` seconds (None: no limit).

        True if it has changed. A `wake` ends it too, one before the call at once. `serve` is called while it waits,
        when something new has come, right from where the loop learns of it: a turn of the loop earlier than the
        waiting task could run. If it returns true it has taken all there was, and the wait goes on; what it raises,
        the wait raises.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while (state := self._folder.state()) == self._seen and not self._is_woken:
            is_watched = self._watcher.arm(self._folder)
            if self._folder.state() != self._seen:
                continue
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                break
            self._serve = serve
            await self._sleep(left if is_watched else POLL_S if left is None else min(left, POLL_S))
        is_new = state != self._seen
        self._seen, self._is_woken = state, False
        return is_new

    async def _sleep(self, timeout: float | None) -> None:  # noqa: ASYNC109  # the loop's own timer is cheaper
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, self._end_sleep)
        try:
            await self._waiter
        finally:
            self._waiter = self._serve = None
            if timer is not None:
                timer.cancel()

    def _end_sleep(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def look(self) -> None:
        """Have the wait that is under way look at the store, or serve what is new without ending it."""
        if self._waiter is None or self._waiter.done():
            return
        try:
            if self._serve is None or not self._served(self._serve):
                self._waiter.set_result(None)
        except Exception as error:  # the waiting task's, not the loop's
            self._waiter.set_exception(error)

    def _served(self, serve: Callable[[], bool]) -> bool:
        """Serve once, and set the watch again; false if there is more, so that a busy store can't hold up the loop."""
        state = self._folder.state()
        if self._is_woken or state == self._seen:
            return False
        self._seen = state
        self._is_woken = not serve()
        return not self._is_woken and self._watcher.arm(self._folder) and self._folder.state() == state

    def wake(self) -> None:
        """End the wait that is under way, or else the next one at once."""
        self._is_woken = True
        self._end_sleep()

    def close(self) -> None:
        """End the interest; the watches go with the store's last subscription."""
        self.wake()
        self._watcher.leave(self, self._folder)


class Watcher:
    """The process's one inotify instance; `start` it in the loop that waits, `close` it at the end."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._folders: dict[str, _Folder] = {}
        self._watches: dict[int, _Folder] = {}

    async def start(self) -> None:
        """Begin to watch. Raises OSError when the host's limit of inotify instances is reached."""
        self._inotify = Inotify()
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._on_events)

    def close(self) -> None:
        """End all watches. Who waits is woken; later waits poll."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
        for folder in self._folders.values():
            for subscription in folder.subscriptions:
                subscription.wake()

    def subscribe(self, folder: str) -> Subscription:
        """Return a subscription to the store in `folder`, which need not exist yet. Those to one share watches."""
        assert self._inotify is not None, "start the watcher first"
        path = os.path.realpath(folder)
        store = self._folders.setdefault(path, _Folder(self._inotify, path))
        self.arm(store)
        subscription = Subscription(self, store)
        store.subscriptions.add(subscription)
        return subscription

    def arm(self, folder: _Folder) -> bool:
        """Set the watches of a store that are not set; false when polling is needed."""
        if self._inotify is None:
            return False
        is_armed = folder.arm()
        for watch in (folder.watch, folder.index_watch):
            if watch is not None:
                self._watches[watch] = folder
        return is_armed

    def leave(self, subscription: Subscription, folder: _Folder) -> None:
        """Forget a subscription."""
        folder.subscriptions.discard(subscription)
        if not folder.subscriptions and self._folders.get(folder.path) is folder:
            del self._folders[folder.path]
            self._remove(folder.watch)
            self._remove(folder.index_watch)
            folder.close()

    def _remove(self, watch: int | None) -> None:
        if watch is not None and self._watches.pop(watch, None) is not None and self._inotify is not None:
            self._inotify.remove(watch)

    def _on_events(self) -> None:
        assert self._inotify is not None
        for event in self._inotify.read():
            if event.mask & IN_Q_OVERFLOW:
                self._look_at_all()
            elif (folder := self._watches.get(event.watch)) is not None:
                self._on_event(event, folder)

    def _on_event(self, event: Event, folder: _Folder) -> None:
        if event.watch == folder.index_watch:  # it has ended, having fired, or with what it watched
            del self._watches[event.watch]
            folder.index_watch = None
            folder.wake()
        elif event.mask & IN_IGNORED:  # the folder is gone
            del self._watches[event.watch]
            folder.watch = None
            folder.turn_to(0)
            folder.wake()
        elif match := INDEX_NAME.fullmatch(os.fsdecode(event.name)):
            self._on_index(event, folder, int(match[1]))

    def _on_index(self, event: Event, folder: _Folder, number: int) -> None:
        """An index has come, or gone: the newest goes with its whole store, which an open file in it keeps alive."""
        if event.mask & IN_DELETE and number != folder.newest:
            return  # retention
        folder.turn_to(0 if event.mask & IN_DELETE else max(folder.newest, number))
        self._remove(folder.index_watch)  # the next wait watches the newest
        folder.index_watch = None
        folder.wake()

    def _look_at_all(self) -> None:
        """Events were lost: look for new segments everywhere, have all watches set again, wake all."""
        for folder in self._folders.values():
            folder.find_newest()
            self._remove(folder.index_watch)
            folder.index_watch = None
            folder.wake()
