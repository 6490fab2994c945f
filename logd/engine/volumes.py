"""The volumes of a data-root: made, filled, mounted while containers use them, removed. The verbs of `docker volume`.

What is known of them is kept in memory and on disk alike; each volume has a lock, since several containers may be made
or started with it at once. Changed only in the event loop; what touches the disk runs in threads.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from logd.engine.volume_files import (
    ANONYMOUS_LABEL,
    VolumeRecord,
    check_place,
    copy_up,
    is_mounted,
    read_volumes,
    take_away,
    write_volume,
)
from logd.errors import Conflict, InvalidParameter, LogdError, NotFound
from logd.events import EventBus
from logd.mounted import Volume
from logd.runtime.local_volume import check_options, mount_volume
from logd.runtime.mount_calls import detach
from logd.runtime.mounts import check_volume_name

log = logging.getLogger(__name__)

DRIVER: Final = "local"


class Volumes:
    """All volumes. `users` returns the ids of the containers that have a volume, by its name. Call `load` first."""

    def __init__(
        self, root: Path, trash_dir: Path, events: EventBus, users: Callable[[], Mapping[str, list[str]]]
    ) -> None:
        self._root = root
        self._trash_dir = trash_dir
        self._events = events
        self._users = users
        self._known: dict[str, VolumeRecord] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._holders: dict[str, set[str]] = {}
        self._pruning = False

    def load(self) -> None:
        """Find the volumes on the disk (blocks)."""
        self._known = {record.name: record for record in read_volumes(self._root)}

    def all(self) -> list[VolumeRecord]:
        """Return all volumes, by name."""
        return [record for _, record in sorted(self._known.items())]

    def get(self, name: str) -> VolumeRecord:
        """Return a volume; raises NotFound."""
        record = self._known.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def content(self, name: str) -> Path:
        """Return where a volume's content is, or would be."""
        return self._root / name / "_data"

    async def create(
        self,
        name: str,
        *,
        driver: str = "",
        options: Mapping[str, str] = {},
        labels: Mapping[str, str] = {},
        made_for: str = "",
    ) -> VolumeRecord:
        """Make a volume, or return the one of that name. Without a name, or made for a container, it is anonymous.

        Raises InvalidParameter, NotFound for another driver than `local`, LogdError when the disk refuses.
        """
        if made_for or not name:
            name, labels = name or secrets.token_hex(32), {**labels, ANONYMOUS_LABEL: ""}
        check_volume_name(name)
        if driver not in {"", DRIVER}:
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        try:
            check_options(options)
        except InvalidParameter as error:
            raise InvalidParameter(f"create {name}: {error}") from error
        record = VolumeRecord(
            name=name, created_ns=time.time_ns(), labels={**labels}, options={**options}, made_for=made_for
        )
        async with self._lock(name):
            if name in self._known:
                return self._known[name]
            try:
                await asyncio.to_thread(write_volume, self._root, record)
            except OSError as error:
                raise LogdError(f"create {name}: {error.strerror or error}") from error
            self._known[name] = record
        self._events.publish("volume", "create", name, {"driver": DRIVER})
        log.info("created volume %s", name)
        return record

    async def fill(self, volume: Volume, rootfs: Path, container_id: str) -> None:
        """Give an empty volume what an image has in its place; `rootfs` is mounted. A file there is refused."""
        name = volume.name
        if not await asyncio.to_thread(check_place, rootfs, volume.destination) or not volume.copy:
            return
        async with self._lock(name):
            options = self.get(name).options
            in_use = bool(self._holders.get(name))
            await self._hold(name, container_id)
            try:
                await asyncio.to_thread(
                    copy_up,
                    rootfs,
                    volume.destination,
                    self._root / name,
                    volume.subpath,
                    in_place=in_use or bool(options),
                )
            finally:
                await self._release(name, container_id)

    async def hold(self, names: Iterable[str], container_id: str) -> None:
        """Mount what a container's volumes have options for; until `release` they stay so. Raises LogdError."""
        for name in names:
            async with self._lock(name):
                await self._hold(name, container_id)

    def note_holder(self, names: Iterable[str], container_id: str) -> None:
        """Enter a container that was started by an earlier daemon."""
        for name in names:
            self._holders.setdefault(name, set()).add(container_id)

    async def release(self, names: Iterable[str], container_id: str) -> None:
        """Give up what `hold` took, if it did, and unmount what no other container holds."""
        for name in names:
            async with self._lock(name):
                await self._release(name, container_id)

    async def release_strays(self) -> None:
        """Unmount what an earlier daemon mounted for containers that have ended since."""
        for name, record in list(self._known.items()):
            if record.options and not self._holders.get(name):
                await self.release([name], "")

    async def _hold(self, name: str, container_id: str) -> None:
        record, data = self.get(name), self.content(name)
        self._holders.setdefault(name, set()).add(container_id)
        if not record.options:
            return
        try:
            if not await asyncio.to_thread(is_mounted, data):
                await asyncio.to_thread(mount_volume, record.options, data)
        except BaseException:
            self._holders[name].discard(container_id)
            raise

    async def _release(self, name: str, container_id: str) -> None:
        holders = self._holders.get(name, set())
        holders.discard(container_id)
        if holders:
            return
        self._holders.pop(name, None)
        record = self._known.get(name)
        if record is not None and record.options:
            try:
                await asyncio.to_thread(detach, self.content(name))
            except OSError as error:
                log.warning("volume %s is not unmounted: %s", name, error)

    async def remove(self, name: str, but: str = "") -> Path:
        """Remove a volume that no container has, except for the container `but`; returns what is left to be deleted.

        Raises NotFound, Conflict, LogdError.
        """
        async with self._lock(name):
            record = self.get(name)
            users = [user for user in self._users().get(name, ()) if user != but]
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            del self._known[name]
            try:
                trash = await asyncio.to_thread(take_away, self._root, record, self._trash_dir)
            except OSError as error:
                self._known[name] = record
                raise LogdError(f"remove {name}: {error}") from error
        self._events.publish("volume", "destroy", name, {"driver": DRIVER})
        log.info("removed volume %s", name)
        return trash

    @contextlib.contextmanager
    def pruning(self) -> Iterator[None]:
        """Hold while volumes are pruned; raises Conflict if that is under way."""
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        try:
            yield
        finally:
            self._pruning = False

    async def remove_with(self, container_id: str, names: Iterable[str]) -> list[Path]:
        """Remove the volumes that go with a container, but for those that another one has taken over."""
        trash = []
        for name in names:
            try:
                trash.append(await self.remove(name, but=container_id))
            except (NotFound, Conflict):
                continue
            except LogdError as error:
                log.warning("%s", error, extra={"container": container_id})
        return trash

    def made_for(self, container_ids: Iterable[str]) -> list[str]:
        """Return the anonymous volumes that were made with these containers."""
        ids = set(container_ids)
        return [record.name for record in self.all() if record.made_for in ids and record.anonymous]

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
