"""The `filters` parameter: {"name": ["value", …]}, or the older {"name": {"value": true}}.

Source: Docker Engine API 1.47, for the names of each list; how a value is compared, dockerd 27.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import orjson
import re2

from logd.errors import InvalidParameter


class Filters(Mapping[str, list[str]]):
    """What was asked for: a mapping of each filter's name to its values."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values
        self._patterns: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[str]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def only(self, accepted: Collection[str]) -> "Filters":
        """Return self if every filter is an accepted one. Raises InvalidParameter in Docker's words."""
        for name in self._values:
            if name not in accepted:
                raise InvalidParameter(f"invalid filter '{name}'")
        return self

    def single(self, name: str) -> str | None:
        """Return the value of a filter that may have but one."""
        values = self.get(name, [])
        if len(values) > 1:
            raise InvalidParameter(f"more than one {name} filter specified")
        return values[0] if values else None

    def flag(self, name: str) -> bool | None:
        """Return a boolean filter, None where it is absent."""
        if name not in self:
            return None
        truths = {"1": True, "true": True, "0": False, "false": False}
        meant = {truths.get(value) for value in self[name]}
        if len(meant) != 1 or None in meant:
            raise InvalidParameter(f"invalid filter '{name}=[{' '.join(self[name])}]'")
        return meant.pop()

    def equals(self, name: str, value: str) -> bool:
        """Say whether one of the values is `value`, or there is no such filter."""
        wanted = self.get(name)
        return not wanted or value in wanted

    def matches(self, name: str, *texts: str) -> bool:
        """Say whether one of the values is, or as a regular expression occurs in, one of the texts."""
        wanted = self.get(name)
        if not wanted or any(text in wanted for text in texts):
            return True
        if name not in self._patterns:
            self._patterns[name] = [pattern for value in wanted if (pattern := _compile(value)) is not None]
        return any(pattern.search(text) for pattern in self._patterns[name] for text in texts)

    def has_labels(self, name: str, labels: Mapping[str, str]) -> bool:
        """Say whether all the values, KEY or KEY=VALUE, are among `labels`."""
        for value in self.get(name, []):
            key, equals, wanted = value.partition("=")
            if key not in labels or (equals and labels[key] != wanted):
                return False
        return True


def parse_filters(text: str) -> Filters:
    """Read the parameter. Raises InvalidParameter."""
    if not text:
        return Filters({})
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid filter: {error}") from error
    if not isinstance(value, dict):
        raise InvalidParameter("invalid filter: has to be a JSON object")
    return Filters({name: _values(name, values) for name, values in value.items()})


def _values(name: str, values: object) -> list[str]:
    if isinstance(values, dict) and all(isinstance(truth, bool) for truth in values.values()):
        return [value for value, truth in values.items() if truth]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    raise InvalidParameter(f"invalid filter '{name}': has to be a list of strings")


def _compile(text: str) -> Any | None:
    """Compile Go's syntax; what is none matches nothing, as in dockerd."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error:
        return None
