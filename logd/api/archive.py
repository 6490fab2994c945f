"""The files of containers: archive (`docker cp`), changes (`diff`), export, commit.

Source: Docker Engine API 1.47, ContainerArchive and its neighbours, ImageCommit; the words are dockerd's.
"""

import base64
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from aiohttp import web

from logd.api.call import Call, Route, answer, done
from logd.errors import InvalidParameter
from logd.files.client import Answer

TAR: Final = "application/x-tar"
STAT_HEADER: Final = "X-Docker-Container-Path-Stat"


async def stat_path(call: Call) -> web.Response:
    """HEAD /containers/{name}/archive: what is at a path."""
    container, path = call.engine.get(call.name), _path(call)
    return web.Response(headers=_stat_header(await call.engine.files.stat(container, call.name, path)))


async def get_archive(call: Call) -> web.StreamResponse:
    """GET /containers/{name}/archive: a tar of a path."""
    container, path = call.engine.get(call.name), _path(call)
    async with call.engine.files.pack(container, call.name, path) as packed:
        return await _send(call, packed, TAR, _stat_header(packed.result["found"]))


async def put_archive(call: Call) -> web.Response:
    """PUT /containers/{name}/archive: unpack the tar in the body into a folder."""
    container, path = call.engine.get(call.name), _path(call)
    await call.engine.files.extract(
        container,
        call.name,
        path,
        _body(call),
        keep_kinds=call.flag("noOverwriteDirNonDir"),
        owner=container.spec.user if call.flag("copyUIDGID") else "",
    )
    return done(200)


async def changes(call: Call) -> web.Response:
    """GET /containers/{name}/changes."""
    return answer(await call.engine.files.changes(call.engine.get(call.name)) or None)


async def export(call: Call) -> web.StreamResponse:
    """GET /containers/{name}/export: a tar of the whole root."""
    async with call.engine.files.export(call.engine.get(call.name)) as packed:
        return await _send(call, packed, "application/octet-stream", {})


async def commit(call: Call) -> web.Response:
    """POST /commit: make an image of a container."""
    if not call.text("container"):
        raise InvalidParameter('invalid name or ID supplied: ""')
    image = await call.engine.files.commit(
        call.engine.get(call.text("container")),
        repository=call.text("repo"),
        tag=call.text("tag"),
        author=call.text("author"),
        comment=call.text("comment"),
        changes=call.query.getall("changes", []),
        config=await _config(call),
        pause=call.flag("pause", default=True),
    )
    for name in image.tags if call.text("repo") else ():
        call.parts.events.publish("image", "tag", image.id, {**(image.labels or {}), "name": name})
    return answer({"Id": image.id}, 201)


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidParameter("bad parameter: path has a NUL in it")
    return path


def _stat_header(found: dict[str, Any]) -> dict[str, str]:
    return {STAT_HEADER: base64.b64encode(orjson.dumps(found)).decode()}


def _body(call: Call) -> AsyncIterator[bytes]:
    return call.request.content.iter_any()


async def _config(call: Call) -> dict[str, Any] | None:
    """Return the settings in the body; nothing, null and {} are none."""
    body = await call.body()
    if body.strip() in {b"", b"null"}:
        return None
    try:
        value = orjson.loads(body)
    except ValueError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidParameter("invalid JSON: the body has to be an object")
    return value


async def _send(call: Call, packed: Answer, content_type: str, headers: dict[str, str]) -> web.StreamResponse:
    call.begin()
    response = web.StreamResponse(headers={"Content-Type": content_type, **headers})
    await response.prepare(call.request)
    async for chunk in packed.chunks():
        await response.write(chunk)
    return response


ROUTES: Final = [
    Route("HEAD", "/containers/{name}/archive", stat_path),
    Route("GET", "/containers/{name}/archive", get_archive),
    Route("PUT", "/containers/{name}/archive", put_archive),
    Route("GET", "/containers/{name}/changes", changes, action=("container", "changes")),
    Route("GET", "/containers/{name}/export", export),
    Route("POST", "/commit", commit, lasting=True, action=("container", "commit")),
]
