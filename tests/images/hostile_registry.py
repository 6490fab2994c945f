"""A registry on loopback, whose every answer a test may spoil; it keeps what it was asked."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from image_archives import COMPRESS, Picture, sha256

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def digest_of(data: bytes) -> str:
    return f"sha256:{sha256(data)}"


class Registry:
    """Serves what is put into it. `spoilers` are asked first, by a part of the path; None leaves it to the others."""

    def __init__(self) -> None:
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.spoilers: dict[str, Handler] = {}
        self.seen: list[web.Request] = []
        self.ranges = True
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Registry":
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def requests(self, part: str) -> list[web.Request]:
        return [one for one in self.seen if part in one.path]

    # what it has

    def put_blob(self, data: bytes) -> dict[str, Any]:
        """Keep a blob and return its descriptor."""
        self.blobs[digest_of(data)] = data
        return {"digest": digest_of(data), "size": len(data)}

    def put_manifest(self, name: str, document: Any, media_type: str = MANIFEST) -> dict[str, Any]:
        """Keep a manifest under a tag and its digest, and return its descriptor."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.manifests[name] = self.manifests[digest_of(data)] = (data, media_type)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def manifest_of(self, picture: Picture, squeeze: str = "gzip") -> dict[str, Any]:
        """Keep the blobs of an image and return its manifest."""
        layers = [{"mediaType": LAYER} | self.put_blob(COMPRESS[squeeze](layer)) for layer in picture.layers]
        config = {"mediaType": CONFIG} | self.put_blob(picture.config)
        return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}

    def put(self, name: str, picture: Picture, squeeze: str = "gzip") -> dict[str, Any]:
        """Keep an image under a tag and return its manifest's descriptor."""
        return self.put_manifest(name, self.manifest_of(picture, squeeze))

    # what it answers

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        for part, handler in self.spoilers.items():
            if part in request.path and (answer := await handler(request)) is not None:
                return answer
        if request.path == "/v2/":
            return web.json_response({})
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)", request.path)
        if match is None:
            return problem(404, "NAME_UNKNOWN")
        if match[2] == "tags":
            return web.json_response({"tags": [name for name in self.manifests if ":" not in name]})
        if match[2] == "manifests":
            if match[3] not in self.manifests:
                return problem(404, "MANIFEST_UNKNOWN")
            data, media_type = self.manifests[match[3]]
            return web.Response(body=data, headers={"Content-Type": media_type})
        if match[3] not in self.blobs:
            return problem(404, "BLOB_UNKNOWN")
        return self._blob(request, self.blobs[match[3]])

    def _blob(self, request: web.Request, data: bytes) -> web.Response:
        begin = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if not begin or not self.ranges:
            return web.Response(body=data)
        start = int(begin[1])
        if start >= len(data):
            return web.Response(status=416)
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return web.Response(status=206, body=data[start:], headers=headers)


def problem(status: int, code: str, message: str = "", **headers: str) -> web.Response:
    """An error as the specification has it."""
    errors = [{"code": code, "message": message or code.lower().replace("_", " ")}]
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"errors": errors}, status=status, headers=sent)


def redirect(where: str) -> web.Response:
    return web.Response(status=307, headers={"Location": where})


async def hang(_: web.Request) -> None:
    await asyncio.Event().wait()


def answers(make: Callable[[], web.StreamResponse], times: int = 1000) -> Handler:
    """Answer so, so many times."""
    left = [None] * times

    async def answer(_: web.Request) -> web.StreamResponse | None:
        if not left:
            return None
        left.pop()
        return make()

    return answer


def breaks_off(data: bytes, count: int, times: int = 1) -> Handler:
    """Begin to send `data`, and end the connection after `count` bytes, so many times."""
    left = [None] * times

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if not left:
            return None
        left.pop()
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:count])
        assert request.transport is not None
        request.transport.close()  # what is written already is still sent
        return response

    return answer
