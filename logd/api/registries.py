"""Images from registries and back: pull, push, login, and a look at what a registry has.

Source: Docker Engine API 1.47, ImageCreate, ImagePush, SystemAuth, DistributionInspect, ImageSearch; words and progress
lines are those of dockerd 27.
"""

from typing import Final

from aiohttp import web

from logd import references
from logd.api.call import Call, Route, answer
from logd.api.progress import Progress
from logd.errors import InvalidParameter, LogdError, Unsupported
from logd.images.image import Image
from logd.references import Reference
from logd.registry.settings import Credentials, credentials_of_header, read_credentials


def credentials_of(call: Call) -> Credentials:
    """Return who asks the registry, from the header X-Registry-Auth. Raises InvalidParameter."""
    return credentials_of_header(call.request.headers.get("X-Registry-Auth", ""))


async def pull(call: Call) -> web.StreamResponse:
    """POST /images/create?fromImage=: take an image from its registry, or without a tag those of all tags."""
    wanted, credentials = _wanted(call.text("fromImage"), call.text("tag")), credentials_of(call)
    platform, registries = call.text("platform"), call.parts.registries
    progress = Progress(call)
    take = registries.pull if wanted.tag or wanted.digest else registries.pull_all
    try:
        taken: Image | list[Image] = await progress.follow(lambda report: take(wanted, credentials, platform, report))
    except LogdError as error:
        await progress.fail(error)
    else:
        labels = (taken.labels or {}) if isinstance(taken, Image) else {}
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


async def login(call: Call) -> web.Response:
    """POST /auth: say whether a registry takes a name and password, for `docker login`, which keeps them."""
    credentials = read_credentials(await call.body() or b"{}")
    token = await call.parts.registries.login(credentials)
    return answer({"Status": "Login Succeeded", "IdentityToken": token})


async def distribution(call: Call) -> web.Response:
    """GET /distribution/{name}/json: what a registry has under a name, without taking it."""
    wanted = references.parse(call.name).with_default_tag()
    return answer(await call.parts.registries.look(wanted, credentials_of(call)))


async def search(call: Call) -> web.Response:
    """GET /images/search: the distribution protocol has no search."""
    term = call.text("term")
    raise Unsupported(
        f"search for {term!r}: registries can't be searched by the distribution protocol; Docker Hub's website can"
    )


def _wanted(name: str, tag: str) -> Reference:
    """Return the reference that a client sends in two parts; the tag may be a digest."""
    reference = references.parse(name.removesuffix(":"))
    if not tag:
        return reference
    if ":" in tag:
        return references.parse(f"{reference.name}@{tag}")
    if reference.digest:
        raise InvalidParameter(f"tag {tag}: the name {name} has a digest already")
    return references.parse_repository(reference.name, tag)


ROUTES: Final = [
    Route("POST", "/auth", login),
    Route("GET", "/distribution/{name:slashes}/json", distribution),
    Route("GET", "/images/search", search),
    Route("POST", "/images/{name:slashes}/push", push),
]
