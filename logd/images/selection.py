"""The filters of `docker images` and `docker image prune`, with Docker's messages.

Source: Docker Engine API 1.47, GET /images/json and POST /images/prune; how values combine, dockerd 27.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from logd import references, units
from logd.errors import InvalidParameter
from logd.images.image import Image, summary

Filters = Mapping[str, Collection[str]]

LIST_FILTERS: Final = ("dangling", "label", "label!", "before", "since", "reference", "until")
PRUNE_FILTERS: Final = ("dangling", "label", "label!", "until")


def check(filters: Filters, accepted: Collection[str]) -> None:
    """Raise InvalidParameter for a filter that does not exist."""
    for name in filters:
        if name not in accepted:
            raise InvalidParameter(f"invalid filter '{name}'")


def flag(filters: Filters, name: str) -> bool | None:
    """Return a boolean filter, None where it is not given."""
    values = list(filters.get(name, ()))
    if not values:
        return None
    truths = {"1": True, "true": True, "0": False, "false": False}
    meant = {truths.get(value) for value in values}
    if len(meant) != 1 or None in meant:
        raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")
    return meant.pop()


def until(filters: Filters) -> int | None:
    """Return the time of the filter `until`, Unix nanoseconds, None where it is not given."""
    values = list(filters.get("until", ()))
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    try:
        return units.parse_time(values[0], time.time_ns()) if values else None
    except ValueError as error:
        raise InvalidParameter(f"invalid value for 'until' filter: {error}") from error


def labels_fit(image: Image, filters: Filters) -> bool:
    """Say whether the image has all of `label` (name or name=value) and not all of `label!`."""
    labels = image.labels or {}

    def has(wanted: str) -> bool:
        name, equals, value = wanted.partition("=")
        return name in labels and (not equals or labels[name] == value)

    if not all(has(wanted) for wanted in filters.get("label", ())):
        return False
    unwanted = filters.get("label!", ())
    return not unwanted or not all(has(wanted) for wanted in unwanted)


def select(
    images: list[Image],
    filters: Filters,
    resolve: Callable[[str], Image],
    has_children: Callable[[str], bool],
    *,
    everything: bool,
) -> list[dict[str, Any]]:
    """Return the summaries of the images that fit, the newest first. Raises InvalidParameter, NotFound.

    `everything` also shows images that have no name but children (those in between of a build).
    """
    check(filters, LIST_FILTERS)
    dangling = flag(filters, "dangling")
    before = min((resolve(text).created for text in filters.get("before", ())), default=None)
    since = max((resolve(text).created for text in filters.get("since", ())), default=None)
    latest = until(filters)
    chosen = []
    for image in images:
        if (before is not None and image.created >= before) or (since is not None and image.created <= since):
            continue
        if (latest is not None and image.created > latest) or not labels_fit(image, filters):
            continue
        names = [name for name in image.names if _fits(name, filters)]
        tags, digests = ([n.familiar for n in names if n.tag], [n.familiar for n in names if n.digest])
        if names:
            if dangling is True and tags:
                continue
        elif "reference" in filters or dangling is False or (has_children(image.id) and (dangling or not everything)):
            continue
        chosen.append(summary(image, tags, digests))
    return sorted(chosen, key=lambda item: item["Created"], reverse=True)


def _fits(name: references.Reference, filters: Filters) -> bool:
    patterns = filters.get("reference", ())
    return not patterns or any(references.matches(pattern, name) for pattern in patterns)
