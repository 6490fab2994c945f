"""Remove containers: the folder is renamed into the trash, which is the moment of removal, and deleted later.

So the name is free and the answer given before a large folder is gone, and a removal that was interrupted is
finished by the next start of the daemon.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from logd import units
from logd.container import Container, sync_folder
from logd.engine.attach import end_attachments
from logd.engine.lifecycle import Lifecycle
from logd.engine.world import World
from logd.errors import Conflict, InvalidParameter, LogdError
from logd.runtime.rootfs import unmount

log = logging.getLogger(__name__)

FORCE_WAIT_S: Final = 12.0
"""How long `rm -f` waits for the exit after SIGKILL (dockerd's 10 s and 2 s more)."""
PRUNE_FILTERS: Final = frozenset(("until", "label", "label!"))


class Removal:
    """The verbs that remove. `lifecycle` is set once both exist, since an exit may lead to a removal."""

    lifecycle: Lifecycle

    def __init__(self, world: World) -> None:
        self._world = world
        self._pruning = False

    async def remove(self, container: Container, *, force: bool, volumes: bool) -> None:
        """Remove a container, a running one by force only (Conflict); volumes that it brought with it if asked."""
        state = container.state
        if state.removing:
            raise Conflict(f"removal of container {container.name} is already in progress")
        _check_stopped(container, force)
        state.removing = True
        try:
            await self._kill(container)
            async with container.lock:  # a start that is under way ends first
                if container.removed:
                    return
                _check_stopped(container, force)
                await self._kill(container)
                if container.cleanup is not None:
                    await asyncio.shield(container.cleanup)
                await self._vanish(container, volumes=volumes)
        finally:
            state.removing = False

    async def auto_remove(self, container: Container) -> None:
        """Remove a container that has ended, with its volumes; not an error if that is under way already."""
        if container.state.removing or container.removed:
            return
        container.state.removing = True
        try:
            await self._vanish(container, volumes=True)
        except LogdError as error:
            log.error("%s", error, extra={"container": container.id})  # noqa: TRY400 - the reason is enough
        finally:
            container.state.removing = False

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> tuple[list[str], int]:
        """Remove all containers that don't run, as filtered; returns their ids and the bytes of their own layers."""
        if unknown := sorted(set(filters) - PRUNE_FILTERS):
            raise InvalidParameter(f"invalid filter '{unknown[0]}' (accepted: {', '.join(sorted(PRUNE_FILTERS))})")
        until_ns = _until(filters.get("until", ()))
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        removed, reclaimed = [], 0
        try:
            for container in self._world.registry.all():
                if container.state.running or container.created_ns > until_ns or not _labels_match(container, filters):
                    continue
                size = await asyncio.to_thread(folder_bytes, container.upper)
                try:
                    await self.remove(container, force=False, volumes=False)
                except LogdError as error:
                    log.warning("prune: %s", error, extra={"container": container.id})
                    continue
                removed.append(container.id)
                reclaimed += size
        finally:
            self._pruning = False
        self._world.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return removed, reclaimed

    async def _kill(self, container: Container) -> None:
        if not container.state.running and not container.settling:
            return
        container.state.manually_stopped = True
        if not await self.lifecycle.restarts.give_up(container):
            with contextlib.suppress(Conflict):
                await self.lifecycle.signal(container, signal.SIGKILL)
        if not await self.lifecycle.await_exit(container, FORCE_WAIT_S):
            raise LogdError(
                f'cannot remove container "/{container.name}": could not kill container: '
                "tried to kill container, but did not receive an exit event"
            )

    async def _vanish(self, container: Container, *, volumes: bool) -> None:
        """Make the removal final and delete behind it. On a failure raises LogdError, and the container is "dead"."""
        world = self._world
        try:
            container.removed = True
            owes = await asyncio.to_thread(world.deliveries.owes, container)
            target = (world.draining_dir if owes else world.trash_dir) / container.dir.name
            await asyncio.to_thread(container.dir.rename, target)
        except OSError as error:
            container.removed, container.state.dead = False, True
            container.tell_waiters(removed=True)
            raise LogdError(f'cannot remove container "/{container.name}": {error}') from error
        container.dir = target
        names = container.anonymous_volumes if volumes else []
        trash = await world.volumes.remove_with(container.id, names)
        world.registry.discard(container)
        world.use.depart(container)
        end_attachments(container, waiting=True)
        world.tell(container, "destroy")
        container.tell_waiters(removed=True)
        log.info("removed container %s", container.name, extra={"container": container.id})
        world.tasks.start(self._delete(container, trash), f"deletion of {container.id[:12]}")

    async def _delete(self, container: Container, trash: Sequence[Path]) -> None:
        with contextlib.suppress(LogdError):  # a stuck shim has no say in a removal
            await self.lifecycle.end_lingering(container)
        if container.exec_dir.exists() or container.endpoints or container.id in self._world.samples:
            await self.lifecycle.clean_up(container)
        for folder in trash:
            await asyncio.to_thread(delete_folder, folder)
        await container.unread()  # clients that still read get all of it
        if container.dir.parent == self._world.draining_dir:
            self._world.tasks.start(self.settle(container), f"delivery of {container.id[:12]}", watches=True)
        else:
            await self._delete_rest(container)

    async def settle(self, container: Container) -> None:
        """Have what a removed container printed delivered, then delete what is left of it."""
        for folder in (container.upper, container.dir / "work"):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await self._delete_rest(container)

    async def _delete_rest(self, container: Container) -> None:
        await self._world.deliveries.settle(container)
        await asyncio.to_thread(delete_folder, container.dir)
        await asyncio.to_thread(self._world.images.collect, self._world.image_users)


def _check_stopped(container: Container, force: bool) -> None:
    if container.state.running and not force:
        words = "paused and must be unpaused first"
        if not container.state.paused:
            words = f"{container.state.status}: stop the container before removing or force remove"
        raise Conflict(f'cannot remove container "/{container.name}": container is {words}')


def delete_folder(folder: Path) -> None:
    """Delete a folder in the trash for good; what can't be deleted stays for the next start of the daemon."""
    try:
        unmount(folder / "rootfs")
        shutil.rmtree(folder)
        sync_folder(folder.parent)
    except FileNotFoundError:
        return
    except (OSError, LogdError) as error:
        log.warning("can't delete %s, at the next start again: %s", folder, error)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder, hard links once (blocks)."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                info = os.lstat(os.path.join(root, name))
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    return total


def _until(values: Sequence[str]) -> int:
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    if not values:
        return time.time_ns()
    try:
        return units.parse_time(values[0])
    except ValueError as error:
        raise InvalidParameter(f"until: {error}") from error


def _labels_match(container: Container, filters: Mapping[str, Sequence[str]]) -> bool:
    labels = container.spec.labels
    if not all(_has_label(labels, wanted) for wanted in filters.get("label", ())):
        return False
    unwanted = filters.get("label!", ())
    return not unwanted or not all(_has_label(labels, wanted) for wanted in unwanted)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
