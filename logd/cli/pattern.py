"""Which containers are meant: names, ids, globs, labels, or all."""

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from logd.cli.client import Client, quote
from logd.cli.streams import Container
from logd.errors import NotFound

_GLOB = frozenset("*?[")


def is_glob(text: str) -> bool:
    """Say whether `text` is a pattern: container names have none of these characters."""
    return not _GLOB.isdisjoint(text)


def choose(client: Client, words: Sequence[str], labels: Sequence[str], *, every: bool) -> list[Container]:
    """Return the containers meant, without repeats: in the order of `words`, else the oldest first.

    Labels (`key` or `key=value`, all of them) narrow the choice. Raises NotFound for a word or a choice that is empty,
    but for `every` on a host without containers.
    """
    if not labels and not any(map(is_glob, words)) and not every:
        return _unique(_asked(client, word) for word in words)
    listed = [_listed(item) for item in _list(client, labels)]
    if not words:
        if not listed and not every:
            raise NotFound(f"no container has the label {' and '.join(map(repr, labels))}")
        return listed
    return _unique(container for word in words for container in _matching(word, listed, labels))


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


def _list(client: Client, labels: Sequence[str]) -> list[Any]:
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
