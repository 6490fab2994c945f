"""`docker save`: images as an archive.

Source: Docker Engine API 1.47, ImageGet, ImageGetAll.
"""

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from logd.api.call import Call, Route
from logd.errors import InvalidParameter
from logd.images.saving import choose, saved

TAR: Final = "application/x-tar"


async def save_image(call: Call) -> web.StreamResponse:
    """GET /images/{name}/get: one image."""
    return await _save(call, [call.name])


async def save_images(call: Call) -> web.StreamResponse:
    """GET /images/get?names=: several, in one archive; each name its own parameter, or with commas."""
    names = [name for text in call.query.getall("names", []) for name in text.split(",") if name]
    if not names:
        raise InvalidParameter("names is needed: the images to save")
    return await _save(call, names)


async def _save(call: Call, names: Sequence[str]) -> web.StreamResponse:
    chosen = choose(call.parts.images, names)
    async with saved(call.parts.images, chosen) as chunks:
        response = await call.stream(TAR)
        async for chunk in chunks:
            await response.write(chunk)
    for image, _ in chosen:
        call.parts.events.publish("image", "save", image.id, {**(image.labels or {}), "name": image.id})
    return response


ROUTES: Final = [
    Route("GET", "/images/get", save_images),
    Route("GET", "/images/{name:slashes}/get", save_image),
]
