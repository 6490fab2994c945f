"""Which containers are meant: names, ids, globs, labels, or all."""

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from logd.cli.client import Client, quote
from logd.cli.options import GLOB
from logd.cli.streams import Container
from logd.errors import NotFound


def is_glob(text: str) -> bool:
    """Say whether `text` is a pattern."""
    return not GLOB.isdisjoint(text)


class Choice(NamedTuple):
    """What was asked for: words are names, ids, beginnings of ids and globs; labels (all of them) narrow it."""

    words: tuple[str, ...]
    labels: tuple[str, ...]
    every: bool

    @property
    def open_ended(self) -> bool:
        """Say whether a container that does not exist yet may belong to it."""
        return self.every or bool(self.labels) or any(map(is_glob, self.words))

    def fits(self, container: Container) -> bool:
        """Say whether a container that has the labels belongs to it."""
        return not self.words or any(
            fnmatchcase(container.name, word) if is_glob(word) else word in {container.name, container.id}
            for word in self.words
        )


def choose(client: Client, choice: Choice) -> list[Container]:
    """Return the containers meant, without repeats: in the order of the words, else the oldest first.

    Raises NotFound for a word or a choice that fits none, but for all on a host without containers.
    """
    words, labels = choice.words, choice.labels
    if not choice.open_ended:
        return _unique(_asked(client, word) for word in words)
    listed = [_listed(item) for item in listing(client, labels)]
    if not words:
        if not listed and not choice.every:
            raise NotFound(f"no container has the label {' and '.join(map(repr, labels))}")
        return listed
    return _unique(container for word in words for container in _matching(word, listed, labels))


def running(client: Client, choice: Choice) -> list[Container]:
    """Return the containers of the choice that run."""
    found = [_listed(item) for item in listing(client, choice.labels) if item.get("State") == "running"]
    return [one for one in found if choice.fits(one)]


def _matching(word: str, listed: list[Container], labels: Sequence[str]) -> list[Container]:
    found = [one for one in listed if fnmatchcase(one.name, word)] if is_glob(word) else _named(word, listed)
    if not found:
        among = f" among those with the label {' and '.join(map(repr, labels))}" if labels else ""
        raise NotFound(
            f"no container matches {word!r}{among}" if is_glob(word) or labels else f"No such container: {word}"
        )
    return found


def _named(word: str, listed: list[Container]) -> list[Container]:
    """Return the container with this name, id or beginning of an id, as the daemon would understand it."""
    exact = [one for one in listed if word in {one.name, f"/{one.name}", one.id}]
    begun = [one for one in listed if one.id.startswith(word)]
    if not exact and len(begun) > 1:
        raise NotFound(f"multiple containers begin with {word!r}: {', '.join(one.name for one in begun)}")
    return exact or begun


def listing(client: Client, labels: Sequence[str]) -> list[Any]:
    """Return Docker's items of all containers with the labels, the oldest first."""
    filters = json.dumps({"label": list(labels)}) if labels else None
    items: list[Any] = client.json("GET", "/containers/json", {"all": True, "filters": filters})
    return sorted(items, key=lambda item: int(item.get("Created", 0)))


def _listed(item: Any) -> Container:
    names = item.get("Names") or [item["Id"][:12]]
    return Container(item["Id"], item["Id"], names[0].removeprefix("/"))


def _asked(client: Client, word: str) -> Container:
    detail = client.json("GET", f"/containers/{quote(word)}/json")
    return Container(detail["Id"], detail["Id"], detail["Name"].removeprefix("/"))


def _unique(containers: Iterable[Container]) -> list[Container]:
    return list({one.id: one for one in containers}.values())
