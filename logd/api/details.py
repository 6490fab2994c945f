"""What `logs --details` shows of a container: the labels, variables and tag that its log-opts choose.

Source: https://docs.docker.com/engine/logging/log_tags/ and the log-opts labels, labels-regex, env, env-regex.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import re2

if TYPE_CHECKING:
    from logd.container import Container

FIELD: Final = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
SHORT_ID: Final = 12
TAG_FIELDS: "Final[Mapping[str, Callable[[Container], str]]]" = {
    "ID": lambda container: container.id[:SHORT_ID],
    "FullID": lambda container: container.id,
    "Name": lambda container: container.name,
    "ImageID": lambda container: container.image_id.removeprefix("sha256:")[:SHORT_ID],
    "ImageFullID": lambda container: container.image_id,
    "ImageName": lambda container: container.image_ref,
    "Command": lambda container: " ".join((container.path, *container.args)),
    "Hostname": lambda container: container.spec.hostname,
    "DaemonName": lambda _: "docker",
}


def details(container: "Container") -> dict[str, str]:
    """Return the pairs; later kinds of option overwrite earlier ones, as in dockerd."""
    options = container.host.log_config.config
    labels = container.spec.labels
    variables = dict(pair.partition("=")[::2] for pair in container.spec.env)
    chosen: dict[str, str] = {}
    chosen |= _named(options.get("labels", ""), labels)
    chosen |= _matching(options.get("labels-regex", ""), labels)
    chosen |= _named(options.get("env", ""), variables)
    chosen |= _matching(options.get("env-regex", ""), variables)
    if options.get("tag"):
        chosen["tag"] = FIELD.sub(lambda match: _field(container, match), options["tag"])
    return chosen


def _named(names: str, values: Mapping[str, str]) -> dict[str, str]:
    return {name: values[name] for name in names.split(",") if name in values}


def _matching(pattern: str, values: Mapping[str, str]) -> dict[str, str]:
    if not pattern:
        return {}
    expression: Any = re2.compile(pattern)
    return {name: value for name, value in values.items() if expression.search(name)}


def _field(container: "Container", match: re.Match[str]) -> str:
    """Return a field's value; what this version does not know stays as it was written."""
    field = TAG_FIELDS.get(match[1])
    return field(container) if field else match[0]
