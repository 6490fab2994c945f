"""Which labels and environment variables of a container go along with its output.

Source: the log-opts labels, labels-regex, env and env-regex of Docker, https://docs.docker.com/engine/logging/. They
apply in that order; where two choose the same name the later one's value stays.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from logd.batch import ContainerInfo
from logd.pattern import Pattern


def parse_names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names; as in Docker, blanks belong to a name."""
    return tuple(name for name in text.split(",") if name)


def parse_regex(text: str) -> Pattern | None:
    """Parse a pattern of names; empty text is none. Raises ValueError."""
    return Pattern(text) if text else None


@dataclass(frozen=True)
class Attributes:
    """The choice."""

    labels: tuple[str, ...] = ()
    labels_regex: Pattern | None = None
    env: tuple[str, ...] = ()
    env_regex: Pattern | None = None

    def of(self, container: ContainerInfo) -> dict[str, str]:
        """Return the pairs that are chosen."""
        variables = dict(pair.split("=", 1) for pair in container.env if "=" in pair)
        return {
            **_named(self.labels, container.labels),
            **_matching(self.labels_regex, container.labels),
            **_named(self.env, variables),
            **_matching(self.env_regex, variables),
        }


def _named(names: Iterable[str], values: Mapping[str, str]) -> dict[str, str]:
    return {name: values[name] for name in names if name in values}


def _matching(pattern: Pattern | None, values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if pattern and pattern.found_in(name)}
