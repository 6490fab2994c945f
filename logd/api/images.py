"""Images: list, inspect, history, tag, delete, prune, load, import.

Source: Docker Engine API 1.47, Image; the shapes of progress lines, dockerd 27.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from logd import references
from logd.api import viewers
from logd.api.call import Call, Route, Version, answer, done
from logd.api.filters import parse_filters
from logd.api.progress import Progress
from logd.api.registries import pull
from logd.errors import InvalidParameter, LogdError, Unsupported
from logd.images.image import ContainerUse

NO_NAME: Final = ("<none>:<none>", "<none>@<none>")
"""What API versions before 1.43 show for an image without a name."""


async def list_images(call: Call) -> web.Response:
    """GET /images/json."""
    filters = dict(parse_filters(call.text("filters")))
    if call.version < Version(1, 41) and call.text("filter"):
        filters["reference"] = [*filters.get("reference", []), call.text("filter")]
    shared = call.version >= Version(1, 42) and call.flag("shared-size")
    chosen = call.parts.images.summaries(filters, everything=call.flag("all"), shared_size=shared)
    return answer([as_of(call.version, item) for item in chosen])


def as_of(version: Version, item: dict[str, Any]) -> dict[str, Any]:
    """Return a list's item as the client's version knows it."""
    if version < Version(1, 43) and not item["RepoTags"] and not item["RepoDigests"]:
        item |= {"RepoTags": [NO_NAME[0]], "RepoDigests": [NO_NAME[1]]}
    if version < Version(1, 44):
        item["VirtualSize"] = item["Size"]
    return item


async def inspect_image(call: Call) -> web.Response:
    """GET /images/{name}/json."""
    shown = call.parts.images.inspect(call.name)
    if call.version < Version(1, 44):
        shown["VirtualSize"] = shown["Size"]
    if call.version < Version(1, 45):
        shown |= {"Container": "", "ContainerConfig": None}
    return answer(viewers.image(shown) if call.viewer else shown)


async def history(call: Call) -> web.Response:
    """GET /images/{name}/history."""
    return answer(call.parts.images.history(call.name))


async def tag(call: Call) -> web.Response:
    """POST /images/{name}/tag."""
    if not call.text("repo"):
        raise InvalidParameter("invalid reference: repo is needed: a name to give to the image")
    image = await asyncio.to_thread(call.parts.images.tag, call.name, call.text("repo"), call.text("tag"))
    _tell(call, "tag", image.id, references.parse_repository(call.text("repo"), call.text("tag")).familiar)
    return done(201)


async def delete_image(call: Call) -> web.Response:
    """DELETE /images/{name}."""
    if not call.name.strip():
        raise InvalidParameter("image name cannot be blank")
    image, before = call.parts.images.resolve(call.name), _labels(call)
    removed = await asyncio.to_thread(
        call.parts.images.remove,
        call.name,
        force=call.flag("force"),
        prune=not call.flag("noprune"),
        in_use=users_of(call),
    )
    _tell_removed(call, removed, before, image.id)
    return answer(removed)


async def prune(call: Call) -> web.Response:
    """POST /images/prune."""
    filters = parse_filters(call.text("filters"))
    before = _labels(call)
    report = await asyncio.to_thread(call.parts.images.prune, in_use=users_of(call), filters=filters)
    _tell_removed(call, report["ImagesDeleted"] or [], before)
    call.parts.events.publish("image", "prune", "", {"reclaimed": str(report["SpaceReclaimed"])})
    return answer(report)


def users_of(call: Call) -> Callable[[str], list[ContainerUse]]:
    """Return the function that tells the containers of an image, by its id; those that are being made too."""
    return call.engine.image_users


def _labels(call: Call) -> dict[str, dict[str, str]]:
    """Return the labels of all images, by their id."""
    return {image.id: image.labels or {} for image in call.parts.images.list()}


def _tell(call: Call, action: str, image_id: str, name: str, labels: Mapping[str, str] | None = None) -> None:
    """Publish an event of an image, with its labels."""
    if labels is None:
        image = call.parts.images.by_id(image_id)
        labels = (image.labels if image else None) or {}
    call.parts.events.publish("image", action, image_id, {**labels, "name": name})


def _tell_removed(
    call: Call, items: Sequence[dict[str, str]], before: Mapping[str, dict[str, str]], named: str = ""
) -> None:
    """Publish what was removed of the images that there were `before`, as Docker reports it.

    Names stand before the image that had them, or are those of `named`. Layers, which are listed too, are no images.
    """
    names = 0
    for item in items:
        removed = item.get("Deleted", "")
        if not removed:
            names += 1
        elif removed in before:
            for _ in range(names):
                _tell(call, "untag", removed, removed, before[removed])
            _tell(call, "delete", removed, removed, {})
            names = 0
    for _ in range(names):
        _tell(call, "untag", named, named, before.get(named, {}))


async def load(call: Call) -> web.StreamResponse:
    """POST /images/load: an archive in the body; how it goes on comes back line by line, errors too."""
    progress = Progress(call)

    try:
        loaded = await call.parts.images.load(_body(call), progress.send, quiet=call.flag("quiet", default=True))
    except LogdError as error:
        await progress.fail(error)
    else:
        for image_id in loaded:
            _tell(call, "load", image_id, image_id)
    return await progress.end()


async def create_image(call: Call) -> web.StreamResponse:
    """POST /images/create: with `fromImage`, pull; with `fromSrc=-`, make an image of the files in the body."""
    if call.text("fromImage"):
        return await pull(call)
    source = call.text("fromSrc")
    if source != "-":
        raise Unsupported(f"importing from {source or 'nothing'} is not supported: send the archive (fromSrc=-)")
    progress = Progress(call)
    try:
        image = await call.parts.images.import_(
            _body(call),
            repository=call.text("repo"),
            tag=call.text("tag"),
            message=call.text("message") or f"Imported from {source}",
            changes=call.query.getall("changes", []),
            platform=call.text("platform") if call.version >= Version(1, 32) else "",
        )
    except LogdError as error:
        await progress.fail(error)
    else:
        if call.text("repo"):
            _tell(call, "tag", image.id, references.parse_repository(call.text("repo"), call.text("tag")).familiar)
        _tell(call, "import", image.id, image.id)
        await progress.send({"status": image.id})
    return await progress.end()


def _body(call: Call) -> AsyncIterator[bytes]:
    return call.request.content.iter_any()


ROUTES: Final = [
    Route("GET", "/images/json", list_images, viewers=True),
    Route("GET", "/images/{name:slashes}/json", inspect_image, viewers=True),
    Route("GET", "/images/{name:slashes}/history", history, action=("image", "history")),
    Route("POST", "/images/load", load, action=("image", "load")),
    Route("POST", "/images/create", create_image, action=("image", "import")),
    Route("POST", "/images/prune", prune, lasting=True),
    Route("POST", "/images/{name:slashes}/tag", tag),
    Route("DELETE", "/images/{name:slashes}", delete_image, lasting=True, action=("image", "delete")),
]
