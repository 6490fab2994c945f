"""Log tags: templates of the name that goes along with a container's lines, such as `{{.ImageName}}/{{.Name}}`.

Source: https://docs.docker.com/engine/logging/log_tags/; docs/log-tags.md has the whole of what they can say. Docker
finds a wrong template when the container starts, here it is refused when the options are read.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from logd.batch import ContainerInfo
from logd.gotemplate.functions import Moment, encoded
from logd.gotemplate.template import Field, Template

SHORT_ID: Final = 12
"""How many digits of an id Docker shows (its stringid.TruncateID)."""


class _Context(NamedTuple):
    container: ContainerInfo
    attributes: Mapping[str, str]


def _of_container(kind: str, get: Callable[[ContainerInfo], Any]) -> Field:
    return Field(kind, lambda context: get(context.container))  # type: ignore[attr-defined]  # it is a _Context


FIELDS: Final[Mapping[str, Field]] = {
    "ID": _of_container("string", lambda one: one.id[:SHORT_ID]),
    "FullID": _of_container("string", lambda one: one.id),
    "ContainerID": _of_container("string", lambda one: one.id),
    "Name": _of_container("string", lambda one: one.name),
    "ContainerName": _of_container("string", lambda one: f"/{one.name}"),
    "ImageID": _of_container("string", lambda one: one.image_id.removeprefix("sha256:")[:SHORT_ID]),
    "ImageFullID": _of_container("string", lambda one: one.image_id),
    "ContainerImageID": _of_container("string", lambda one: one.image_id),
    "ImageName": _of_container("string", lambda one: one.image_name),
    "ContainerImageName": _of_container("string", lambda one: one.image_name),
    "DaemonName": _of_container("string", lambda _: "docker"),
    "Command": _of_container("string", lambda one: " ".join((one.entrypoint, *one.args))),
    "ContainerEntrypoint": _of_container("string", lambda one: one.entrypoint),
    "ContainerArgs": _of_container("list", lambda one: one.args),
    "Hostname": _of_container("string", lambda _: os.uname().nodename),
    "ContainerEnv": _of_container("list", lambda one: one.env),
    "ContainerLabels": _of_container("map", lambda one: one.labels),
    "ContainerCreated": _of_container("time", lambda one: Moment(one.created_ns)),
    "Config": _of_container("map", lambda one: one.log_opts),
    "LogPath": _of_container("string", lambda one: one.log_path),
    "ExtraAttributes": Field("map", lambda context: dict(context.attributes), takes_nil=True),  # type: ignore[attr-defined]  # it is a _Context
}
"""Docker's names (the fields and methods of its logger.Info)."""


@dataclass(frozen=True)
class Tag:
    """A template; templates of equal text are equal. Raises ValueError that shows where it is wrong."""

    text: str
    template: Template = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", Template("log-tag", self.text, FIELDS))

    def expand(self, container: ContainerInfo, attributes: Mapping[str, str] | None = None) -> str:
        """Fill the template in for a container; `attributes` are the labels and variables that its options choose.

        Raises ValueError if the container's values don't suit, such as a list that is shorter than an index.
        """
        text = self.template.run(_Context(container, attributes or {}))
        return encoded(text).decode()  # a label may hold what no destination could be sent


def parse_tag(text: str) -> Tag | None:
    """Parse a template; empty text is no template. Raises ValueError that shows where it is wrong."""
    return Tag(text) if text else None
