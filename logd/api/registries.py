"""Images from registries and back: pull, push.

Source: Docker Engine API 1.47, ImageCreate, ImagePush; the shapes of progress lines, dockerd 27.
"""

from typing import Final

from aiohttp import web

from logd import references
from logd.api.call import Call, Route
from logd.api.progress import Progress
from logd.errors import InvalidParameter, LogdError
from logd.references import Reference
from logd.registry.settings import Credentials, credentials_of_header


def credentials_of(call: Call) -> Credentials:
    """Return who asks the registry, from the header X-Registry-Auth. Raises InvalidParameter."""
    return credentials_of_header(call.request.headers.get("X-Registry-Auth", ""))


async def pull(call: Call) -> web.StreamResponse:
    """POST /images/create?fromImage=: take an image from its registry."""
    wanted, credentials = _wanted(call.text("fromImage"), call.text("tag")), credentials_of(call)
    platform, registries = call.text("platform"), call.parts.registries
    progress = Progress(call)
    try:
        image = await progress.follow(lambda report: registries.pull(wanted, credentials, platform, report))
    except LogdError as error:
        await progress.fail(error)
    else:
        labels = image.labels or {}
        call.parts.events.publish("image", "pull", wanted.familiar, {**labels, "name": wanted.familiar_name})
    return await progress.end()


async def push(call: Call) -> web.StreamResponse:
    """POST /images/{name}/push: give an image to its registry, by one tag, or without by all of its tags."""
    wanted = references.parse(call.name)
    if call.text("tag"):
        wanted = references.parse_repository(wanted.name, call.text("tag"))
    credentials, registries = credentials_of(call), call.parts.registries
    progress = Progress(call)
    try:
        await progress.follow(lambda report: registries.push(wanted, credentials, report))
    except LogdError as error:
        await progress.fail(error)
    else:
        call.parts.events.publish("image", "push", wanted.familiar, {"name": wanted.familiar_name})
    return await progress.end()


def _wanted(name: str, tag: str) -> Reference:
    """Return the reference that a client sends in two parts; the tag may be a digest."""
    reference = references.parse(name.removesuffix(":"))
    if not tag:
        return reference.with_default_tag()
    if ":" in tag:
        return references.parse(f"{reference.name}@{tag}")
    if reference.digest:
        raise InvalidParameter(f"tag {tag}: the name {name} has a digest already")
    return references.parse_repository(reference.name, tag)


ROUTES: Final = [Route("POST", "/images/{name:slashes}/push", push)]
