"""The labels of containers: rendered once, and again when a name, an image or the allow-list has changed."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from logd.config import DaemonConfig
from logd.container import Container
from logd.metrics.families import Subject, sanitised

LABEL_PREFIX: Final = "container_label_"
"""cAdvisor's."""


class _Rendered(NamedTuple):
    key: tuple[object, ...]
    path: str
    container: Subject
    log: Subject


class Subjects:
    """The subjects of all containers, for all collectors. Used by one scrape at a time.

    `path_of` gives the path of a container's cgroup, and may read a file for it.
    """

    def __init__(self, config: DaemonConfig, path_of: Callable[[Container], str]) -> None:
        self._config = config
        self._path_of = path_of
        self._known: dict[str, _Rendered] = {}

    def path(self, container: Container) -> str:
        """Return the path of a container's cgroup, which is the `id` of its series: `/logd/<64 hex>`."""
        return self._rendered(container).path

    def container(self, container: Container) -> Subject:
        """Return what container_* series carry: `id`, `name`, `image` and the allow-listed labels."""
        return self._rendered(container).container

    def log(self, container: Container) -> Subject:
        """Return what logd_* series of a container carry: `id` and `name`."""
        return self._rendered(container).log

    def forget_others(self, containers: Iterable[Container]) -> None:
        """Drop what is kept of other containers than these."""
        ids = {container.id for container in containers}
        for gone in self._known.keys() - ids:
            del self._known[gone]

    def _rendered(self, container: Container) -> _Rendered:
        allowed = self._config.metrics_labels
        key = (container.name, container.image_ref, container.image_id, allowed)
        known = self._known.get(container.id)
        if known is None or known.key != key:
            path = known.path if known is not None else self._path_of(container)
            named = {"id": path, "name": container.name}
            labels = {**named, "image": container.image_ref or container.image_id}
            for label in allowed:
                if label in container.spec.labels:
                    labels.setdefault(LABEL_PREFIX + sanitised(label), container.spec.labels[label])
            known = _Rendered(key, path, Subject(labels), Subject(named))
            self._known[container.id] = known
        return known
