"""What the verbs share: settings, neighbours, the registry, and where things are kept on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from logd.config import DaemonConfig
from logd.container import Container
from logd.engine.connections import Connections
from logd.engine.deliveries import Deliveries
from logd.engine.names import Registry
from logd.engine.networks import Networks
from logd.engine.saving import StateWriter
from logd.engine.tasks import Tasks
from logd.engine.use import Use
from logd.engine.volumes import Volumes
from logd.events import EventBus
from logd.idmap import IdMap
from logd.images.image import ContainerUse
from logd.images.store import ImageStore
from logd.logstore.follow import Watcher
from logd.runtime import subids
from logd.runtime.supervisor import Supervisor
from logd.sampling.registry import Samples


@dataclass
class World:
    """Built once by the engine, handed to each part of it."""

    config: DaemonConfig
    images: ImageStore
    supervisor: Supervisor
    events: EventBus
    watcher: Watcher
    deliveries: Deliveries
    registry: Registry = field(default_factory=Registry)
    tasks: Tasks = field(default_factory=Tasks)
    creating: set[Container] = field(default_factory=set)
    """Not in the registry yet, but their images are in use."""
    samples: Samples = field(default_factory=Samples)
    """What the containers that run use."""
    closing: bool = False
    """The daemon stops: containers and their standard input stay as they are."""
    idmap: IdMap | None = field(init=False)
    """The mapping that new containers get, None if they are to be in the host's user namespace."""
    writer: StateWriter = field(init=False)
    volumes: Volumes = field(init=False)
    networks: Networks = field(init=False)
    connections: Connections = field(init=False)
    use: Use = field(init=False)

    def __post_init__(self) -> None:
        self.idmap = subids.load(self.config.userns_remap)
        self.writer = StateWriter(self.tasks)
        self.volumes = Volumes(self.volumes_dir, self.trash_dir, self.events, self.volume_users)
        self.networks = Networks(self.config, self.events, self.registry)
        self.connections = Connections(self.networks, self.registry, self.writer, self.tasks)
        self.use = Use(self.config, self.samples)

    @property
    def containers_dir(self) -> Path:
        """Where each container has its folder."""
        return self.config.data_root / "containers"

    @property
    def volumes_dir(self) -> Path:
        """Where the content of volumes is."""
        return self.config.data_root / "volumes"

    @property
    def trash_dir(self) -> Path:
        """Where folders wait for their deletion."""
        return self.config.data_root / "trash"

    @property
    def draining_dir(self) -> Path:
        """Where what removed containers printed waits for its delivery."""
        return self.config.data_root / "draining"

    @property
    def exec_dir(self) -> Path:
        """Where what belongs to processes is, a folder for each container."""
        return self.config.exec_root / "containers"

    def image_users(self, image_id: str) -> list[ContainerUse]:
        """Return the containers of an image, those that are being made too (the images' `InUse`)."""
        containers = (*self.registry.all(), *self.creating)
        return [ContainerUse(one.id, one.state.running) for one in containers if one.image_id == image_id]

    def volume_users(self) -> dict[str, list[str]]:
        """Return the ids of the containers that have a volume, by its name; those that are being made count too."""
        users: dict[str, list[str]] = {}
        for container in (*self.registry.all(), *self.creating):
            for name in container.volume_names:
                users.setdefault(name, []).append(container.id)
        return users

    def tell(self, container: Container, action: str, attributes: Mapping[str, str] | None = None) -> None:
        """Publish an event of a container with the attributes that Docker gives each: labels, image, name."""
        named = {**(attributes or {}), **container.spec.labels}
        if container.spec.image:
            named["image"] = container.spec.image
        named["name"] = container.name
        self.events.publish("container", action, container.id, named)

    def tell_volumes(self, container: Container, action: str) -> None:
        """Publish an event of each volume that a container has: mount or unmount."""
        for mount in container.mounts:
            if mount.type != "volume":
                continue
            attributes = {"driver": mount.driver, "container": container.id}
            if action == "mount":
                attributes |= {"destination": mount.destination, "propagation": mount.propagation}
                attributes["read/write"] = str(mount.rw).lower()
            self.events.publish("volume", action, mount.name, attributes)
