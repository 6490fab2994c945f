"""A repository of a registry: its manifests and blobs, read from whichever endpoint has them, written to the one.

Source: OCI distribution-spec, "Pull" and "Push".
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple, Self

import aiohttp
import msgspec
from yarl import URL

from logd.errors import InvalidParameter, LogdError, NotFound, Unauthorized
from logd.registry.connection import Connection, Refused
from logd.registry.endpoint import Endpoint, endpoints
from logd.registry.settings import NOBODY, Credentials, Settings
from logd.registry.words import told

MAX_MANIFEST: Final = 4 << 20
"""Bytes; the specification has registries take at least as much."""
LINE_ERRORS: Final = (aiohttp.ClientError, OSError, TimeoutError)
ACCEPTED: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
"""Asked for; those of schema 1 too, so that they can be refused by name."""
SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
MAX_TAGS: Final = 100_000
"""Of one repository."""
COMMIT_PATIENCE: Final = 5
"""A registry may move and digest gigabytes before it answers: so many times as silent as otherwise."""
TAGS_AT_ONCE: Final = 1000
TAG: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_NEXT: Final = re.compile(r'\s*<([^>]*)>\s*;(?:.*;)?\s*rel="?next"?\s*(?:;.*)?', re.IGNORECASE)
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class Found(NamedTuple):
    """A manifest or an index as the registry has it: verified if it was asked for by digest."""

    data: bytes
    media_type: str
    digest: str


class Rest(NamedTuple):
    """The bytes of a blob from `start` on; `length` is how many there are, if the registry says so."""

    start: int
    length: int | None
    chunks: AsyncIterator[bytes]


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Repository:
    """`path` in the registry `domain`; `actions` are pull, or push and pull. To be closed, as a context manager."""

    def __init__(self, domain: str, path: str, settings: Settings, credentials: Credentials, actions: str) -> None:
        self._domain = domain
        self._path = path
        self._settings = settings
        self._credentials = credentials
        self._actions = actions
        self._scopes: list[str] = []
        self._endpoints: list[Endpoint] = []
        self._connections: list[Connection] = []
        self._connecting = asyncio.Lock()
        self._problem: LogdError = Refused("there is no endpoint")
        self._current: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            await connection.__aexit__()

    async def open(self, *, mirrors: bool = True, mount_from: Sequence[str] = ()) -> None:
        """Find an endpoint that answers. `mount_from` are repositories of the registry whose blobs are to be read too.

        Raises LogdError with what the last one said.
        """
        if self._path:
            mounts = [f"repository:{one}:pull" for one in mount_from]
            self._scopes = [f"repository:{self._path}:{self._actions}", *mounts]
        self._endpoints = await endpoints(self._domain, self._settings, mirrors=mirrors)
        self._current = await self._connect()

    async def _connect(self) -> Connection:
        """Return the next endpoint that answers. Raises LogdError with what the last one said.

        Credentials are the registry's, and its mirrors don't get them.
        """
        while self._endpoints:
            endpoint = self._endpoints[0]
            credentials = NOBODY if endpoint.mirror else self._credentials
            connection = Connection(endpoint, self._settings, credentials, self._scopes)
            try:
                await _greet(connection)
            except LINE_ERRORS as error:
                self._problem = Refused(f'Get "{endpoint.url}/v2/": {told(error)}')
                del self._endpoints[0]
            except LogdError as error:
                self._problem = error
                self._endpoints = self._endpoints[1:] if endpoint.mirror else []
            else:
                self._connections.append(connection)
                self._endpoints = self._endpoints[1:] if endpoint.mirror else []
                return connection
            await connection.__aexit__()
        raise self._problem

    async def _from_current_on(self) -> AsyncIterator[Connection]:
        """Yield the endpoint that answers now, and then those to ask if that one lacks something."""
        number = self._connections.index(self._connection)
        while True:
            async with self._connecting:  # several blobs may turn to the next one at once
                if number == len(self._connections):
                    await self._connect()
            yield self._connections[number]
            number += 1

    def _is_last(self, connection: Connection) -> bool:
        return connection is self._connections[-1] and not self._endpoints

    @property
    def endpoint(self) -> Endpoint:
        """The one that answers now."""
        return self._connection.endpoint

    @property
    def identity_token(self) -> str:
        """See Connection."""
        return self._connection.identity_token

    @property
    def _connection(self) -> Connection:
        assert self._current is not None
        return self._current

    async def check(self) -> None:
        """Ask for nothing but whether the credentials are good. Raises Unauthorized."""
        try:
            async with self._connection.request("GET", "/v2/"):
                pass
        except Unauthorized as error:
            raise Unauthorized(f'Get "{self._connection.endpoint.url}/v2/": {error}') from error

    async def manifest(self, wanted: str) -> Found:
        """Return what a tag or digest names, of the first endpoint that has it. Raises NotFound, InvalidParameter."""
        async for connection in self._from_current_on():
            try:
                found = await self._manifest(connection, wanted)
            except (*LINE_ERRORS, LogdError):
                if self._is_last(connection):
                    raise
                continue
            self._current = connection
            return found
        raise AssertionError

    async def _manifest(self, connection: Connection, wanted: str) -> Found:
        headers = {"Accept": ", ".join(ACCEPTED)}
        async with connection.request("GET", f"/v2/{self._path}/manifests/{wanted}", headers=headers) as response:
            data = await _whole(response, f"the manifest of {wanted}")
            media_type = response.content_type
            said = response.headers.get("Docker-Content-Digest", "")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if wanted.startswith("sha256:"):
            said = wanted
        elif media_type.startswith(SCHEMA_1):  # whose digest is not that of all its bytes
            said = ""
        if said.startswith("sha256:") and digest != said:
            raise InvalidParameter(f"manifest verification failed for digest {said}: it has {digest}")
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise InvalidParameter(f"the manifest of {wanted} is not JSON: {error}") from error
        return Found(data, media_type, digest)

    async def tags(self) -> list[str]:
        """Return all tags of the repository, in the registry's order. Raises NotFound, InvalidParameter."""
        where: str | URL = f"/v2/{self._path}/tags/list?n={TAGS_AT_ONCE}"
        found: dict[str, None] = {}
        while True:
            async with self._connection.request("GET", where) as response:
                data = await _whole(response, f"the list of {self._path}'s tags")
                links = [_NEXT.fullmatch(part) for part in response.headers.getall("Link", [])]
                base = response.url
            try:
                new = msgspec.json.decode(data, type=_Tags).tags or []
            except msgspec.DecodeError as error:
                raise InvalidParameter(f"the registry's list of tags: {error}") from error
            if wrong := [tag for tag in new if not TAG.fullmatch(tag)]:
                raise InvalidParameter(f"the registry has a tag that can't be one: {wrong[0][:200]!r}")
            before = len(found)
            found |= dict.fromkeys(new)
            if len(found) > MAX_TAGS:
                raise InvalidParameter(f"{self._path} has more than {MAX_TAGS} tags")
            link = next((match[1] for match in links if match), "")
            if not link or len(found) == before:
                return list(found)
            where = self._connection.target(base, link)

    async def has_manifest(self, wanted: str) -> bool:
        """Say whether the registry has a manifest."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        try:
            async with self._connection.request("HEAD", f"/v2/{self._path}/manifests/{wanted}", headers=headers):
                return True
        except NotFound:
            return False

    @contextlib.asynccontextmanager
    async def blob(self, digest: str, offset: int) -> AsyncIterator["Rest"]:
        """Give a blob from `offset` on, or from its beginning if the registry has no ranges.

        Raises NotFound, Unavailable and the line's errors.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        where = f"/v2/{self._path}/blobs/{digest}"
        async with contextlib.AsyncExitStack() as stack:
            async for connection in self._from_current_on():
                asked = connection.request("GET", where, headers=headers, expect=(200, 206, 416))
                try:
                    response = await stack.enter_async_context(asked)
                except (*LINE_ERRORS, LogdError):
                    if self._is_last(connection):
                        raise
                else:
                    break
            if response.status == 416:
                raise Refused(f"the registry has no byte {offset} of {digest}")
            start = 0
            if response.status == 206:
                match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
                start = int(match[1]) if match else -1
                if start != offset:
                    raise Refused(f"the registry answers with byte {start} of {digest}, where {offset} was asked for")
            yield Rest(start, response.content_length, response.content.iter_any())

    async def has_blob(self, digest: str) -> bool:
        """Say whether the registry has a blob."""
        try:
            async with self._connection.request("HEAD", f"/v2/{self._path}/blobs/{digest}"):
                return True
        except NotFound:
            return False

    async def begin_upload(self, digest: str, mount_from: str = "") -> URL | None:
        """Have `digest` from another repository of the registry, or return where to send it; None: it is there."""
        query = {"mount": digest, "from": mount_from} if mount_from else {}
        where = URL.build(path=f"/v2/{self._path}/blobs/uploads/", query=query)
        async with self._connection.request("POST", str(where), expect=(201, 202)) as response:
            return None if response.status == 201 else self._location(response)

    async def upload(
        self, where: URL, digest: str, size: int, chunks: Callable[[Callable[[], None]], AsyncIterator[bytes]]
    ) -> None:
        """Send a blob of `size` bytes in one piece, and have the registry verify it.

        `chunks` gets what it has to call when a chunk is gone. Raises TimeoutError where none goes for too long.
        """
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        patience_s = self._settings.timeout * COMMIT_PATIENCE
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(patience_s) as silence:

            def goes_on() -> None:
                with contextlib.suppress(RuntimeError):  # it is over just now
                    silence.reschedule(now() + patience_s)

            asked = self._connection.request(
                "PATCH", where, headers=headers, data=lambda: chunks(goes_on), expect=(202,), patience_s=patience_s
            )
            async with asked as response:
                where = self._location(response)
        where = where.update_query(digest=digest)
        async with self._connection.request("PUT", where, expect=(201,), patience_s=patience_s):
            pass

    async def put_manifest(self, name: str, data: bytes, media_type: str) -> str:
        """Give the manifest the name `name`, a tag or its digest; return the digest."""
        headers = {"Content-Type": media_type}
        where = f"/v2/{self._path}/manifests/{name}"
        async with self._connection.request("PUT", where, headers=headers, data=data, expect=(201, 202)):
            return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def _location(self, response: aiohttp.ClientResponse) -> URL:
        text = response.headers.get("Location", "")
        if not text:
            raise Refused("the registry does not say where to send the blob")
        return self._connection.target(response.url, text)


async def _greet(connection: Connection) -> None:
    """Find out whether there is a registry; that it wants to know who asks is answer enough."""
    async with connection.request("GET", "/v2/", expect=(200, 401)):
        pass


async def _whole(response: aiohttp.ClientResponse, what: str) -> bytes:
    data = b""
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_MANIFEST:
            raise InvalidParameter(f"{what} is longer than {MAX_MANIFEST} bytes")
    return data
