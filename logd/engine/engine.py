"""The engine: Docker's verbs on containers, by reference (id, name or the beginning of an id)."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from logd import plugins
from logd.config import DaemonConfig
from logd.container import Condition, Container
from logd.engine import create, inspect, top
from logd.engine.attach import Attachment, Positions
from logd.engine.deliveries import NOW, Deliveries
from logd.engine.execs import Execs
from logd.engine.files import Files
from logd.engine.health import HealthCounts
from logd.engine.launching import follow_networks
from logd.engine.lifecycle import Lifecycle
from logd.engine.logopts import max_line_bytes, resolve, store_options, try_plugins
from logd.engine.names import check_name
from logd.engine.network_settings import check_endpoint
from logd.engine.networks import Networks, is_member
from logd.engine.removal import Removal, folder_bytes
from logd.engine.restarts import check_not_restarting
from logd.engine.restore import Restore
from logd.engine.sealing import seal_in_idle_time
from logd.engine.volumes import Volumes
from logd.engine.world import World
from logd.errors import Conflict, InvalidParameter, LogdError
from logd.events import EventBus
from logd.forward.supervision import Forwarding
from logd.images.image import ContainerUse
from logd.images.store import ImageStore
from logd.logstore.follow import Watcher
from logd.network.naming import Naming
from logd.network.ports import Published, port_list, port_map
from logd.network.publishing import Publishing
from logd.runtime import cgroup
from logd.runtime.supervisor import Supervisor
from logd.sampling.registry import Samples
from logd.spec import ContainerSpec, EndpointSettings, HostConfig, LogConfig
from logd.usage import Counters, Sample

log = logging.getLogger(__name__)

SHUTDOWN_WAIT_S: Final = 10.0
"""What writes and deletions under way have to end when the daemon stops."""


class Engine:
    """All containers of a data-root. Call `restore` first; the containers outlive `shutdown`.

    All verbs raise errors of `logd.errors`, in dockerd's words; `NotModified` where there was nothing to do.
    """

    def __init__(
        self, config: DaemonConfig, images: ImageStore, supervisor: Supervisor, events: EventBus, watcher: Watcher
    ) -> None:
        deliveries = Deliveries(config, Forwarding(plugins.load()))
        self._world = World(config, images, supervisor, events, watcher, deliveries)
        self._publishing = Publishing(config)
        self._naming = Naming(config)
        self._world.networks.observers += [self._publishing, self._naming]
        self._removal = Removal(self._world)
        self._lifecycle = Lifecycle(self._world, self._removal.auto_remove)
        self._removal.lifecycle = self._lifecycle
        self._files = Files(self._world, self._lifecycle.freezer)

    async def restore(self) -> None:
        """Find the containers of earlier daemons again."""
        self._tell_remapping()
        await Restore(self._world, self._lifecycle, self._removal).run()
        self._world.tasks.start(seal_in_idle_time(self._world.registry), "sealing of logs", watches=True)

    def _tell_remapping(self) -> None:
        asked, idmap = self._world.config.userns_remap, self._world.idmap
        if idmap is not None:
            log.info("User namespaces: containers' root is %d:%d, as userns-remap %s says", *idmap.root, asked)
        elif asked:
            log.warning("User namespaces: root cannot be remapped with itself; user namespaces are OFF")

    async def shutdown(self) -> None:
        """Finish writing; containers and their standard input stay as they are. Attachments end."""
        self._world.closing = True
        await self._world.tasks.finish(SHUTDOWN_WAIT_S)
        await self._world.connections.close()
        await self._world.deliveries.close()
        self._lifecycle.execs.close()
        self._world.writer.close()
        self._world.samples.close()
        self._publishing.close()
        self._naming.close()

    @property
    def remaps(self) -> bool:
        """Whether new containers get user namespaces."""
        return self._world.idmap is not None

    @property
    def health_counts(self) -> HealthCounts:
        """How many probes of health checks were run."""
        return self._lifecycle.health.counts

    @property
    def execs(self) -> Execs:
        """The processes that were run in containers beside their first ones."""
        return self._lifecycle.execs

    @property
    def files(self) -> Files:
        """The containers' files: copied, compared, packed."""
        return self._files

    @property
    def samples(self) -> Samples:
        """What the containers that run use, by id."""
        return self._world.samples

    def use(self, container: Container) -> tuple[Sample | None, Counters]:
        """Return the present look at what a container uses, or its last, and the counters of all its runs."""
        return self._world.use.of(container)

    def cgroup_path(self, container: Container) -> str:
        """Return the path of a container's cgroup, `/logd/<id>` unless another parent is set (blocks)."""
        return self._world.use.cgroup_path(container)

    def departed(self) -> list[Container]:
        """Return the containers that were removed a short while ago: what they used is still to be seen."""
        return self._world.use.departed()

    def image_users(self, image_id: str) -> list[ContainerUse]:
        """Return the containers of an image: the `InUse` of the image store."""
        return self._world.image_users(image_id)

    @property
    def networks(self) -> Networks:
        """All networks."""
        return self._world.networks

    def bridges_in_use(self) -> list[str]:
        """Return the links of the networks that containers are in."""
        return sorted({network.bridge for network, _, _ in self.networks.view().endpoints() if network.bridge})

    def published(self, container: Container) -> tuple[Published, ...]:
        """Return the ports of the host that lead to a container."""
        return self._publishing.published(container.id)

    async def connect(self, network_ref: str, ref: str, settings: EndpointSettings) -> None:
        """Connect a container to a network; see `Connections.connect`."""
        container, network = self.get(ref), self.networks.get(network_ref)
        check_endpoint(network.name, network, settings)
        await self._world.connections.connect(network, container, settings)
        await asyncio.to_thread(follow_networks, self._world, container)

    async def disconnect(self, network_ref: str, ref: str) -> None:
        """Disconnect a container from a network; see `Connections.disconnect`."""
        container, network = self.get(ref), self.networks.get(network_ref)
        await self._world.connections.disconnect(network, container)
        await asyncio.to_thread(follow_networks, self._world, container)

    @property
    def volumes(self) -> Volumes:
        """All volumes."""
        return self._world.volumes

    def volume_users(self) -> dict[str, list[str]]:
        """Return the ids of the containers that have a volume, by its name."""
        return self._world.volume_users()

    def get(self, ref: str) -> Container:
        """Return a container; raises NotFound, and InvalidParameter for an ambiguous reference."""
        return self._world.registry.get(ref)

    def containers(self) -> list[Container]:
        """Return all containers, oldest first."""
        return self._world.registry.all()

    async def create(
        self, name: str | None, spec: ContainerSpec, host: HostConfig, networking: Mapping[str, Any]
    ) -> tuple[Container, list[str]]:
        """Create a container, and return it with warnings; see `create.create`. Goes on if the caller goes away."""
        creating = create.create(self._world, name, spec, host, networking)
        return await asyncio.shield(asyncio.ensure_future(creating))

    async def start(self, ref: str) -> None:
        """Start a container; a caller that goes away does not stop a start that is under way."""
        await asyncio.shield(asyncio.ensure_future(self._lifecycle.start(self.get(ref))))

    async def stop(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:  # noqa: ASYNC109 - seconds of Docker's stop
        """Stop a container: its stop signal (or `signal`), and after the timeout in seconds (-1: never) SIGKILL."""
        await asyncio.shield(asyncio.ensure_future(self._lifecycle.stop(self.get(ref), signal, timeout)))

    async def restart(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:  # noqa: ASYNC109
        """Stop and start a container."""
        container = self.get(ref)
        try:
            await asyncio.shield(asyncio.ensure_future(self._lifecycle.restart(container, signal, timeout)))
        except LogdError as error:
            wrapped = type(error)(f"Cannot restart container {ref}: {error}")
            wrapped.status = error.status  # a command that is missing is the request's mistake
            raise wrapped from error

    async def kill(self, ref: str, signal: str = "") -> None:
        """Send a signal, SIGKILL by default. Raises Conflict if the container does not run."""
        try:
            await self._lifecycle.kill(self.get(ref), signal)
        except LogdError as error:
            raise type(error)(f"cannot kill container: {ref}: {error}") from error

    async def pause(self, ref: str) -> None:
        """Freeze the processes of a container. Raises Conflict if it does not run, or is paused already."""
        await asyncio.shield(asyncio.ensure_future(self._lifecycle.freezer.pause(self.get(ref))))

    async def unpause(self, ref: str) -> None:
        """Let the processes of a paused container go on. Raises LogdError, as dockerd, if it is not paused."""
        await asyncio.shield(asyncio.ensure_future(self._lifecycle.freezer.unpause(self.get(ref))))

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, and with `volumes` the anonymous ones that came with it."""
        await asyncio.shield(asyncio.ensure_future(self._removal.remove(self.get(ref), force=force, volumes=volumes)))

    async def rename(self, ref: str, new: str) -> None:
        """Give a container another name."""
        new = new.strip()
        if not ref.strip().removeprefix("/") or not new.removeprefix("/"):
            raise InvalidParameter("Neither old nor new names may be empty")
        container = self.get(ref.strip())
        async with container.lock:
            if container.removed:
                raise Conflict(f"container {container.id} is removed")
            old = container.name
            if new.removeprefix("/") == old:
                raise InvalidParameter("Renaming a container with the same name as its current name")
            await self._rename(container, new)
            self._world.tell(container, "rename", {"oldName": f"/{old}"})

    async def _rename(self, container: Container, new: str) -> None:
        registry, old = self._world.registry, container.name
        try:
            new = check_name(new)
            registry.reserve(new, container.id)
        except (InvalidParameter, Conflict) as error:
            raise type(error)(f"Error when allocating new name: {error}") from error
        container.name = new
        try:
            await self._world.writer.saved(container)
        except LogdError:
            container.name = old
            registry.release(new, container.id)
            raise
        registry.release(old, container.id)
        await self._world.connections.renamed(container, old)

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> tuple[list[str], int]:
        """Remove all containers that do not run; returns their ids and how many bytes that freed."""
        return await self._removal.prune(filters)

    def waiter(self, ref: str, condition: str = "not-running") -> "asyncio.Future[int]":
        """Return a future of the exit code, registered now; cancel it to wait no more."""
        if condition not in get_args(Condition):
            raise InvalidParameter(f'invalid condition: "{condition}"')
        chosen: Condition = condition  # type: ignore[assignment]  # one of its values, as checked
        return self.get(ref).wait(chosen)

    async def top(self, ref: str, ps_args: str = "") -> tuple[list[str], list[list[str]]]:
        """Return ps' titles and lines for the container's processes. Raises Conflict if it does not run."""
        top.check_ps_args(ps_args)
        container = self.get(ref)
        pids = await asyncio.to_thread(self._pids, container)
        table = await top.processes(ps_args, pids)
        self._world.tell(container, "top")
        return table

    def _pids(self, container: Container) -> list[int]:
        pid = container.state.pid
        check_not_restarting(container)
        if not container.state.running or not pid:
            raise Conflict(f"container {container.id} is not running")
        with contextlib.suppress(OSError):
            membership = cgroup.parse_membership(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"))
            own = {name: path for name, path in membership.items() if container.id in path}
            for folder in cgroup.folders(cgroup.detect(), own).values():
                if found := cgroup.processes(folder):
                    return found
        return [pid]

    def attach(
        self,
        ref: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        start: Positions | None = None,
    ) -> Attachment:
        """Return an attachment to the present run, from `start` on (by default from now), or else to the next run."""
        container = self.get(ref)
        if container.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.removed or container.state.removing:
            raise Conflict(f"container {ref} is marked for removal and cannot be attached to")
        return Attachment(self._world, container, stdin=stdin, stdout=stdout, stderr=stderr, start=start)

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """Set the size of a container's terminal; one without is left as it is. Raises Conflict if it does not run."""
        container = self.get(ref)
        check_not_restarting(container)
        if not container.state.running or container.shim is None:
            raise Conflict(f"Container {container.id} is not running")
        if container.spec.tty:
            try:
                await container.shim.resize(rows, columns)
            except (LogdError, OSError) as error:
                raise Conflict(f"the terminal of container {container.id} is gone: {error}") from error
        self._world.tell(container, "resize", {"height": str(rows), "width": str(columns)})

    def inspect(self, container: Container, size: bool = False) -> dict[str, Any]:
        """Return Docker's ContainerJSON; with `size` the disk is walked, so call it in a thread."""
        shown = inspect.inspect(container, self._layers(container), self._world.networks)
        shown["ExecIDs"] = [*self.execs.ids(container), *self._lifecycle.health.exec_ids(container)] or None
        if is_member(container):
            shown["NetworkSettings"]["Ports"] = port_map(container.spec, self.published(container))
        return {**shown, **self._sizes(container)} if size else shown

    def summary(self, container: Container, size: bool = False) -> dict[str, Any]:
        """Return Docker's list item; with `size` the disk is walked, so call it in a thread."""
        shown = inspect.summary(container, self._world.networks)
        if is_member(container):
            shown["Ports"] = port_list(container.spec, self.published(container))
        if not self._names_its_image(container):
            shown["Image"] = container.image_id
        return {**shown, **self._sizes(container)} if size else shown

    def _names_its_image(self, container: Container) -> bool:
        """Tell whether the name by which the image was asked for still means it; Docker shows the id where not."""
        with contextlib.suppress(LogdError):
            return self._world.images.resolve(container.image_ref).id == container.image_id
        return False

    async def apply_default_logging(self, ref: str, begin: str = NOW, *, drain: bool = True) -> bool:
        """Give a container that was created with the daemon's default log driver the present default; see below.

        Log-opts that it was created with stay. False if it has that already. Raises Conflict for a container that was
        given a driver, InvalidParameter where its log-opts don't suit the new one.
        """
        container = self.get(ref)
        asked = container.asked_logging
        if asked is None or asked.type:
            raise Conflict(
                f"container {ref} was not created with the daemon's default log driver: "
                f"it has {container.host.log_config.type!r}, which can be changed by name only"
            )
        new = resolve(asked, self._world.config)
        if new == container.host.log_config:
            return False
        await self.change_logging(ref, new, begin, drain=drain, asked=asked)
        return True

    async def change_logging(
        self, ref: str, new: LogConfig, begin: str = NOW, *, drain: bool = True, asked: LogConfig | None = None
    ) -> None:
        """Change a container's log drivers and log-opts (checked) while it runs, or not.

        Drivers that are new begin at `begin`: see Deliveries.change. Those that go first deliver what there is now,
        unless `drain` is false. Its caller may go away; then they are not drained. `asked`: what `new` was made of, if
        the daemon's default had a part in it.
        """
        container = self.get(ref)
        if container.removed or container.state.removing:
            raise Conflict(f"container {ref} is marked for removal and cannot be changed")
        deliveries = self._world.deliveries
        await deliveries.check_begin(container, begin)
        await try_plugins(container, new, self._world.config, container.host.log_config)
        if drain:
            await deliveries.drain(container, deliveries.leaving(container, new))
        await asyncio.shield(asyncio.ensure_future(self._change_logging(container, new, begin, asked or new)))

    async def _change_logging(self, container: Container, new: LogConfig, begin: str, asked: LogConfig) -> None:
        async with container.lock:
            if container.removed:
                raise Conflict(f"container {container.id} is removed")
            await self._world.deliveries.change(container, new, begin)
            container.host = msgspec.structs.replace(container.host, log_config=new)
            container.asked_logging = asked
            await self._world.writer.saved(container)
            self._limit_store(container)
            if container.state.has_process:
                self._world.deliveries.begin(container)
            else:
                self._world.deliveries.resume(container)
            self._world.tell(container, "update")

    def _limit_store(self, container: Container) -> None:
        if container.shim is not None:
            container.shim.change_store(store_options(container.host.log_config, self._world.config))

    def limit_stores(self) -> None:
        """Have what runs go by the daemon's settings of the store as they are now."""
        for container in self._world.registry.all():
            self._limit_store(container)

    async def update(self, ref: str, asked: HostConfig) -> list[str]:
        """Change limits and restart policy of a container, which holds from its next exit on; returns warnings."""
        return await asyncio.shield(asyncio.ensure_future(self._lifecycle.updates.update(self.get(ref), asked)))

    async def deliveries(self, ref: str) -> list[dict[str, Any]]:
        """Return how each log driver of a container fares: see Deliveries.status."""
        return await self._world.deliveries.status(self.get(ref))

    async def ailing(self) -> list[dict[str, str]]:
        """Return the log drivers that can't deliver at present: see Deliveries.ailing."""
        return await self._world.deliveries.ailing()

    async def worst_deliveries(self) -> dict[str, tuple[str, float]]:
        """Return by container's id how the log driver that fares worst fares: see Deliveries.worst."""
        return await self._world.deliveries.worst()

    async def delivery_health(self) -> dict[str, tuple[str, int]]:
        """Return, by CONTAINER_ID/NAME, the deliveries that are not idle: see Forwarding.health."""
        return await self._world.deliveries.health()

    def forwarders(self) -> list[dict[str, Any]]:
        """Return the processes that run log drivers."""
        return self._world.deliveries.forwarders()

    def max_line_bytes(self, container: Container) -> int:
        """Return beyond how many bytes a line of this container's log is given out in parts."""
        return max_line_bytes(container.host.log_config)

    def _layers(self, container: Container) -> list[str]:
        image = self._world.images.by_id(container.image_id)
        return [str(path) for path in self._world.images.layers(image)] if image else []

    def _sizes(self, container: Container) -> dict[str, int]:
        own = folder_bytes(container.upper)
        image = self._world.images.by_id(container.image_id)
        return {"SizeRw": own, "SizeRootFs": own + (image.size if image else 0)}
