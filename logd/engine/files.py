"""The files of containers: `docker cp`, `diff`, `export`, `commit`.

Reading disturbs nobody: a container may start, stop and go meanwhile. Who extracts into a container, or commits one
that does not run, holds its lock, so that its layer is never mounted twice to be written. A commit pauses a running
container, unless it is told not to.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from logd.container import Container
from logd.engine.freezing import Freezer
from logd.engine.mounting import settled, translates
from logd.engine.restarts import check_not_restarting
from logd.engine.world import World
from logd.errors import Conflict, LogdError, NotFound
from logd.files.client import Answer, answered
from logd.files.request import Extraction, MountRequest, Place
from logd.images.changes import apply
from logd.images.image import Image
from logd.mounted import Bind, Volume
from logd.runtime.network_files import FILES
from logd.spec import ContainerSpec, convert, to_docker
from logd.turns import while_nobody_waits

_numbers: Final = itertools.count()


class Files:
    """The verbs on a container's files. `freezer` pauses for a commit."""

    def __init__(self, world: World, freezer: Freezer) -> None:
        self._world = world
        self._freezer = freezer

    async def stat(self, container: Container, ref: str, path: str) -> dict[str, Any]:
        """Return Docker's ContainerPathStat. Raises NotFound, InvalidParameter."""
        async with (
            self._mounted(container),
            _named(path, ref),
            answered("stat", self.place(container), path=path) as it,
        ):
            found: dict[str, Any] = it.result["found"]
            return found

    @contextlib.asynccontextmanager
    async def pack(self, container: Container, ref: str, path: str) -> AsyncIterator[Answer]:
        """Give a tar of a path; its result is {"found": ContainerPathStat}. Raises NotFound, InvalidParameter."""
        async with (
            self._mounted(container),
            _named(path, ref),
            answered("pack", self.place(container), path=path) as it,
        ):
            self._world.tell(container, "archive-path")
            yield it

    async def extract(
        self,
        container: Container,
        ref: str,
        path: str,
        body: AsyncIterator[bytes],
        *,
        keep_kinds: bool,
        owner: str = "",
        with_mounts: bool = True,
    ) -> None:
        """Unpack a tar into a folder, `with_mounts` also of a volume. Raises NotFound, InvalidParameter.

        `keep_kinds`: no directory is replaced by a file, nor the other way round. `owner`: the user, as in --user,
        whose the files become; "" for those that the tar names. Raises TooSlow for a client that sends hardly anything
        while others wait for the container.
        """
        extraction = Extraction(
            keep_kinds=keep_kinds,
            owner=owner,
            read_only_root=container.host.readonly_rootfs,
        )
        async with container.lock:
            _check_there(container, "extract to")
            if container.cleanup is not None:
                await asyncio.shield(container.cleanup)
            place = self.place(container, with_mounts=with_mounts)
            arriving = while_nobody_waits(container.lock, body)
            async with (
                self._mounted(container),
                _named(path, ref),
                answered("extract", place, path=path, extraction=extraction, body=arriving),
            ):
                self._world.tell(container, "extract-to-dir")

    async def changes(self, container: Container) -> list[dict[str, Any]]:
        """Return what the container changed of its image's files."""
        if not await asyncio.to_thread(container.upper.is_dir):
            return []
        async with answered("changes", self.place(container)) as it:
            found: list[dict[str, Any]] = it.result["changes"]
            return found

    @contextlib.asynccontextmanager
    async def export(self, container: Container) -> AsyncIterator[Answer]:
        """Give a tar of all files of the container's root; what is mounted in it is not in there."""
        _check_there(container, "export")
        place = self.place(container, with_mounts=False)
        async with answered("export", place) as it:
            self._world.tell(container, "export")
            yield it

    async def commit(
        self,
        container: Container,
        *,
        repository: str = "",
        tag: str = "",
        author: str = "",
        comment: str = "",
        changes: Sequence[str] = (),
        config: dict[str, Any] | None = None,
        pause: bool = True,
        created_by: str = "",
        step: str = "",
    ) -> Image:
        """Make an image of the container's files and settings. Raises InvalidParameter, Conflict, LogdError.

        `changes` are Dockerfile instructions; `config` has the settings (Docker's `Config`) if not the container's.
        `created_by` is shown in the history in the place of the command; `step` is that of a build (ImageStore).
        """
        _check_there(container, "commit")
        spec = convert(config, ContainerSpec, "Config.") if config else container.spec
        run_config = apply(changes, to_docker(spec))
        async with self._still(container, pause=pause):
            base = self._world.images.by_id(container.image_id)
            if base is None:
                raise LogdError(f"No such image: {container.image_id}, of which the container was made")
            async with self._layer(container) as layer:
                image = await self._world.images.commit(
                    base,
                    layer,
                    repository=repository,
                    tag=tag,
                    run_config=run_config,
                    created_by=created_by or " ".join(container.spec.cmd),
                    author=author,
                    message=comment,
                    step=step,
                )
        name = image.names[0].familiar if repository and image.names else ""
        self._world.tell(container, "commit", {"comment": comment, "imageID": image.id, "imageRef": name})
        return image

    @contextlib.asynccontextmanager
    async def _layer(self, container: Container) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """Give the tar of what the container changed, None if that is nothing."""
        if not await asyncio.to_thread(container.upper.is_dir):
            yield None
            return
        async with answered("layer", self.place(container)) as it:
            yield None if it.result["empty"] else it.chunks()

    @contextlib.asynccontextmanager
    async def _still(self, container: Container, *, pause: bool) -> AsyncIterator[None]:
        """Hold a container still: paused, if asked for, or not started."""
        if not container.state.running:
            async with container.lock:
                _check_there(container, "commit")
                yield
            return
        check_not_restarting(container)
        if not pause or container.state.paused:
            yield
            return
        async with self._freezer.held(container):
            yield

    @contextlib.asynccontextmanager
    async def _mounted(self, container: Container) -> AsyncIterator[None]:
        """Hold the container's volumes mounted."""
        holder, names = f"{container.id}/files/{next(_numbers)}", container.volume_names
        try:
            await self._world.volumes.hold(names, holder)
            yield
        finally:
            await self._world.volumes.release(names, holder)

    def place(self, container: Container, *, with_mounts: bool = True) -> Place:
        """Return where a container's root is, for the process that works on it."""
        image = self._world.images.by_id(container.image_id)
        if image is None:
            raise LogdError(f"No such image: {container.image_id}, of which the container was made")
        return Place(
            rootfs=str(container.rootfs.absolute()),
            point=str((container.dir / "rootfs").absolute()),
            layers=[str(path.absolute()) for path in self._world.images.layers(image)],
            upper=str(container.upper.absolute()),
            work=str((container.dir / "work").absolute()),
            mounts=self._mounts(container) if with_mounts else [],
            idmap=msgspec.to_builtins(container.idmap) if container.idmap is not None else None,
        )

    def _mounts(self, container: Container) -> list[MountRequest]:
        entries = settled(container).entries
        taken = {entry.destination for entry in entries}
        found = [
            MountRequest(source=str((container.dir / name).absolute()), destination=f"/etc/{name}")
            for name in FILES
            if f"/etc/{name}" not in taken
        ]
        for entry in entries:
            is_mapped = False
            if isinstance(entry, Bind):
                source, recursive, subpath = entry.source, entry.recursive, ""
            elif isinstance(entry, Volume):
                source, recursive, subpath = (
                    str(self._world.volumes.content(entry.name).absolute()),
                    True,
                    entry.subpath,
                )
                is_mapped = translates(self._world, container, entry)
            else:
                continue  # what a tmpfs holds is to be seen in the container only
            found.append(
                MountRequest(
                    source=source,
                    destination=entry.destination,
                    read_only=entry.read_only,
                    recursive=recursive,
                    subpath=subpath,
                    is_mapped=is_mapped,
                )
            )
        return found


@contextlib.asynccontextmanager
async def _named(path: str, ref: str) -> AsyncIterator[None]:
    """Say errors of the files as dockerd does."""
    try:
        yield
    except NotFound as error:
        raise NotFound(f"Could not find the file {path} in container {ref}") from error


def _check_there(container: Container, verb: str) -> None:
    if container.state.dead:
        raise Conflict(f"You cannot {verb} container {container.id} which is Dead")
    if container.removed or container.state.removing:
        raise Conflict(f"You cannot {verb} container {container.id} which is being removed")
