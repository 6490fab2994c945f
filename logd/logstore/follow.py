"""Wait until a store has grown: one inotify instance for the whole process (inotify(7)).

The protocol, which loses no wake-up: subscribe, then read until nothing comes, then `wait`, then read again, and so
on. What happens between the last read and `wait` is remembered by the subscription.

The newest index of a store is watched with IN_ONESHOT and armed again on each wake, so that a busy store makes one
event a wake and the queue can't overflow; should it all the same, every subscriber looks.
"""

import asyncio
import ctypes
import os
import struct
from typing import Final

from logd.logstore.segment import index_name, segment_numbers

IN_MODIFY: Final = 0x2
IN_MOVED_TO: Final = 0x80
IN_DELETE_SELF: Final = 0x400
IN_Q_OVERFLOW: Final = 0x4000
IN_ONLYDIR: Final = 0x01000000
IN_ONESHOT: Final = 0x80000000
EVENT: Final = struct.Struct("iIII")
READ_BYTES: Final = 64 << 10
MISSING_S: Final = 0.05
"""How often a store that does not exist yet is looked for."""

_libc = ctypes.CDLL(None, use_errno=True)


class Subscription:
    """One reader's interest in one store; for one waiting task at a time."""

    def __init__(self, watcher: "Watcher", folder: str) -> None:
        self._watcher = watcher
        self.folder = folder
        self._grown = False
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the loop's own timer is cheaper
        """Return when the store may have grown since the last return, or after `timeout` seconds."""
        if not self._watcher.arm(self.folder):
            timeout = MISSING_S if timeout is None else min(timeout, MISSING_S)
        if not self._grown:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = None if timeout is None else loop.call_later(timeout, self.wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._grown = False

    def wake(self) -> None:
        """Say that there may be something new."""
        self._grown = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """End the interest."""
        self._watcher.unsubscribe(self)


class _Watched:
    """A store with subscribers."""

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []
        self.folder_watch = -1
        self.index_watch = -1


class Watcher:
    """The process's one inotify instance; `start` it in the event loop that uses it."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._stores: dict[str, _Watched] = {}
        self._by_watch: dict[int, str] = {}

    async def start(self) -> None:
        """Open the instance. Raises OSError where the host's limit of instances is reached."""
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        """Close it; subscriptions no longer wake."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def subscribe(self, folder: str) -> Subscription:
        """Begin to watch the store in `folder`, which may not exist yet."""
        subscription = Subscription(self, folder)
        self._stores.setdefault(folder, _Watched()).subscriptions.append(subscription)
        self.arm(folder)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription, and its store with the last one."""
        store = self._stores.get(subscription.folder)
        if store is None or subscription not in store.subscriptions:
            return
        store.subscriptions.remove(subscription)
        if not store.subscriptions:
            del self._stores[subscription.folder]
            for watch in (store.folder_watch, store.index_watch):
                if self._by_watch.pop(watch, None):
                    _libc.inotify_rm_watch(self._descriptor, watch)

    def arm(self, folder: str) -> bool:
        """Watch what is not being watched; false where the store does not exist."""
        store = self._stores.get(folder)
        if store is None:
            return False
        if store.folder_watch < 0:
            store.folder_watch = self._add(folder, folder, IN_MOVED_TO | IN_DELETE_SELF | IN_ONLYDIR)
        if store.folder_watch >= 0 and store.index_watch < 0:
            self._arm_index(folder, store)
        return store.index_watch >= 0

    def _arm_index(self, folder: str, store: _Watched) -> None:
        try:
            numbers = segment_numbers(folder)
        except FileNotFoundError:
            return
        if numbers:
            path = os.path.join(folder, index_name(numbers[-1]))
            store.index_watch = self._add(path, folder, IN_MODIFY | IN_ONESHOT)
            for subscription in store.subscriptions:  # it may have grown before it was watched
                subscription.wake()

    def _add(self, path: str, folder: str, mask: int) -> int:
        watch: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask))
        if watch >= 0:
            self._by_watch[watch] = folder
        return watch

    def _readable(self) -> None:
        try:
            raw = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        touched: set[str] = set()
        at = 0
        while at < len(raw):
            watch, mask, _, length = EVENT.unpack_from(raw, at)
            at += EVENT.size + length
            if mask & IN_Q_OVERFLOW:
                touched.update(self._stores)
            elif folder := self._by_watch.get(watch):
                touched.add(folder)
                self._fired(folder, watch, mask)
        for folder in touched:
            self._wake(folder)

    def _fired(self, folder: str, watch: int, mask: int) -> None:
        store = self._stores[folder]
        if watch == store.index_watch:
            del self._by_watch[watch]  # oneshot
            store.index_watch = -1
        elif mask & IN_DELETE_SELF:
            del self._by_watch[watch]
            store.folder_watch = -1
        elif mask & IN_MOVED_TO and store.index_watch >= 0:  # the next segment
            del self._by_watch[store.index_watch]
            _libc.inotify_rm_watch(self._descriptor, store.index_watch)
            store.index_watch = -1

    def _wake(self, folder: str) -> None:
        self.arm(folder)
        store = self._stores.get(folder)
        for subscription in store.subscriptions if store else ():
            subscription.wake()


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
