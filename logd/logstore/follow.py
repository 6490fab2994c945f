"""Waiting for a store to grow, for the process's asyncio loop: one inotify instance for all stores.

    subscription = watcher.subscribe(folder)
    while not done:
        items = reader.read()
        if items: …
        else: await subscription.wait(timeout)

No wake-up is lost in that loop: `wait` remembers what the store looked like when it last returned (at first: when
`subscribe` was called), which was before the reads that followed. It sets its watch, looks again, and sleeps only if
the store has not changed since. It may return although nothing is new.
"""

import asyncio
import errno
import logging
import os
from typing import Final

from logd.logstore.inotify import (
    IN_CREATE,
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

FOLDER_MASK: Final = IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW
INDEX_MASK: Final = IN_MODIFY | IN_ONESHOT | IN_DONT_FOLLOW
"""One event, then quiet until the watch is set again: a busy store can't fill the queue."""
POLL_S: Final = 0.1
"""How often to look where a watch can't be had (fs.inotify.max_user_watches)."""


class _Folder:
    """The watches of one store and who waits for it."""

    def __init__(self, inotify: Inotify, path: str) -> None:
        self.path = path
        self.subscriptions: set[Subscription] = set()
        self.is_gone = False
        self.newest = 0
        self.index_watch: int | None = None
        self._inotify = inotify
        self.watch = inotify.add(path, FOLDER_MASK)
        self.find_newest()

    def find_newest(self) -> None:
        """Find the newest segment in the folder itself."""
        try:
            self.newest = max(segment_numbers(self.path), default=0)
        except FileNotFoundError:
            self.is_gone = True

    def arm(self) -> bool:
        """Watch the newest index, if there is one; false when no watch is to be had."""
        if self.index_watch is not None or not self.newest:
            return True
        try:
            self.index_watch = self._inotify.add(os.path.join(self.path, index_name(self.newest)), INDEX_MASK)
        except FileNotFoundError:
            return True  # removed; the folder's watch tells of the next
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        return True

    def state(self) -> tuple[int, int]:
        """Return what changes when the store grows: the newest segment and the size of its index."""
        try:
            return self.newest, os.stat(os.path.join(self.path, index_name(self.newest))).st_size
        except FileNotFoundError:
            return self.newest, 0

    def wake(self) -> None:
        """Wake all who wait."""
        for subscription in self.subscriptions:
            subscription._wake()

    def disarm(self) -> int | None:
        """Forget the index's watch; return it."""
        watch, self.index_watch = self.index_watch, None
        return watch


class Subscription:
    """One reader's interest in one store. For one task. Call `close`."""

    def __init__(self, watcher: "Watcher", folder: _Folder) -> None:
        self._watcher = watcher
        self._folder = folder
        self._waiter: asyncio.Future[bool] | None = None
        self._seen = folder.state()
        self._saw_gone = False

    @property
    def is_gone(self) -> bool:
        """Whether the folder was deleted: nothing will come any more."""
        return self._folder.is_gone

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # a timeout is no error here
        """Return when the store may have grown or rotated, or its folder was deleted, since the last return.

        `timeout` is in seconds, None for no limit. True if there may be something new, false after the timeout.
        """
        assert self._waiter is None, "a subscription is for one task"
        is_watched = self._watcher._arm(self._folder)
        if self._folder.state() == self._seen and self._saw_gone == self._folder.is_gone:
            if not is_watched:
                timeout = POLL_S if timeout is None else min(timeout, POLL_S)
            await self._sleep(timeout)
        state = self._folder.state()
        is_new = state != self._seen or self._saw_gone != self._folder.is_gone
        self._seen, self._saw_gone = state, self._folder.is_gone
        return is_new

    async def _sleep(self, timeout: float | None) -> None:  # noqa: ASYNC109  # as above
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def close(self) -> None:
        """End the interest; wake who waits."""
        self._wake()
        self._watcher._leave(self, self._folder)


class Watcher:
    """The process's one inotify instance; `start` it in the loop that waits, `close` it at the end."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._folders: dict[str, _Folder] = {}
        self._watches: dict[int, _Folder] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warned = False

    async def start(self) -> None:
        """Begin to watch. Raises OSError when the system has no inotify instance left."""
        self._inotify = Inotify()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify.fileno(), self._on_events)

    def close(self) -> None:
        """End all watches; who waits is woken."""
        if self._inotify is None or self._loop is None:
            return
        self._loop.remove_reader(self._inotify.fileno())
        self._inotify.close()
        self._inotify = None
        for folder in self._folders.values():
            folder.wake()
        self._folders.clear()
        self._watches.clear()

    def subscribe(self, folder: str) -> Subscription:
        """Return a subscription to the store in `folder`; subscriptions to the same one share its watches.

        Raises FileNotFoundError when there is no such folder.
        """
        assert self._inotify is not None, "start the watcher first"
        path = os.path.realpath(folder)
        known = self._folders.get(path)
        if known is None or known.is_gone:
            known = self._folders[path] = _Folder(self._inotify, path)
            self._watches[known.watch] = known
        subscription = Subscription(self, known)
        known.subscriptions.add(subscription)
        return subscription

    def _arm(self, folder: _Folder) -> bool:
        if self._inotify is None or folder.is_gone or not folder.arm():
            if self._inotify is not None and not folder.is_gone and not self._warned:
                self._warned = True
                logger.warning("no inotify watch left, polling instead (raise fs.inotify.max_user_watches)")
            return folder.is_gone
        if folder.index_watch is not None:
            self._watches[folder.index_watch] = folder
        return True

    def _leave(self, subscription: Subscription, folder: _Folder) -> None:
        folder.subscriptions.discard(subscription)
        if folder.subscriptions or self._inotify is None:
            return
        for watch in (folder.watch, folder.disarm()):
            if watch is not None and self._watches.pop(watch, None) is not None:
                self._inotify.remove(watch)
        if self._folders.get(folder.path) is folder:
            del self._folders[folder.path]

    def _on_events(self) -> None:
        assert self._inotify is not None
        for event in self._inotify.read():
            if event.mask & IN_Q_OVERFLOW:
                self._look_at_all()
            elif (folder := self._watches.get(event.watch)) is not None:
                self._on_event(event, folder)

    def _on_event(self, event: Event, folder: _Folder) -> None:
        if event.mask & IN_IGNORED:  # that watch has ended
            del self._watches[event.watch]
            if event.watch == folder.index_watch:
                folder.disarm()
        elif event.watch == folder.watch and event.mask & IN_DELETE_SELF:
            folder.is_gone = True
            folder.wake()
        elif event.watch == folder.watch:
            self._on_new_file(os.fsdecode(event.name), folder)
        elif event.mask & IN_MODIFY:
            if event.watch == folder.index_watch:
                folder.disarm()
            folder.wake()

    def _on_new_file(self, name: str, folder: _Folder) -> None:
        match = INDEX_NAME.fullmatch(name)
        if match is None:
            return
        folder.newest = max(folder.newest, int(match[1]))
        old = folder.disarm()  # the next wait watches the newest
        if old is not None and self._inotify is not None:
            self._watches.pop(old, None)
            self._inotify.remove(old)
        folder.wake()

    def _look_at_all(self) -> None:
        """Events were lost: look for new segments everywhere, set all watches again, wake all."""
        for folder in self._folders.values():
            folder.find_newest()
            if self._inotify is not None and (old := folder.disarm()) is not None:
                self._watches.pop(old, None)
                self._inotify.remove(old)
            folder.wake()
