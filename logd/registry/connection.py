"""HTTP with one endpoint of a registry: who asks is shown as the registry wants it, and its errors become ours.

Source: OCI distribution-spec, "API" and "Error Codes"; the registry's token and OAuth2 specifications
(distribution.github.io/distribution/spec/auth/).
"""

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final, Self

import aiohttp
import msgspec
from yarl import URL

from logd.errors import Forbidden, LogdError, NotFound, Unauthorized, Unavailable
from logd.registry.challenge import Challenge, read_challenges
from logd.registry.endpoint import Endpoint, proxy_of, tls_of
from logd.registry.settings import Credentials, Settings

TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
"""Seconds of silence that are borne."""
MAX_ERROR: Final = 64 << 10
"""Bytes that are read of an answer that is an error, and of one with a token at most."""
TOKEN_LIFE_S: Final = 60
"""Where the registry does not say, by the specification."""
CLIENT_ID: Final = "docker"


class Refused(LogdError):
    """The registry answered with an error that has no class of its own."""


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Problems(msgspec.Struct):
    errors: list[_Problem] | None = None
    details: str = ""


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float = TOKEN_LIFE_S


class Connection:
    """Requests to one endpoint, for one scope such as `repository:library/busybox:pull` ("" for none)."""

    def __init__(
        self, endpoint: Endpoint, settings: Settings, credentials: Credentials, scopes: Collection[str]
    ) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._credentials = credentials
        self._scopes = scopes
        self._tls: ssl.SSLContext | bool = tls_of(endpoint, settings) if endpoint.url.scheme == "https" else False
        self._http = aiohttp.ClientSession(
            auto_decompress=False,  # a blob is what its digest says, whatever encoding is put on top
            timeout=TIMEOUT,
            headers={"User-Agent": settings.user_agent, "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(limit=0),
        )
        self._header = ""
        self._expires = float("inf")
        self.identity_token = ""
        """What stands for name and password from now on, if the registry has given it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        where: str | URL,
        *,
        expect: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a path below the endpoint, or a URL that it gave. Any status that is not expected is raised.

        `data` must be readable again where the registry may ask first who it comes from.
        Raises NotFound, Unauthorized, Forbidden, Unavailable (try again), Refused; aiohttp's and OS errors of the line.
        """
        url = where if isinstance(where, URL) else URL(f"{str(self.endpoint.url).rstrip('/')}{where}", encoded=True)
        for again in (True, False):
            if time.monotonic() > self._expires:
                self._header = ""
            async with self._http.request(
                method,
                url,
                data=data,
                headers={**(headers or {}), **self._authorization(url)},
                ssl=self._tls,
                proxy=proxy_of(url, self._settings),
            ) as response:
                if response.status in expect:
                    yield response
                    return
                if response.status != 401 or not again:
                    raise await self._error(response)
                await self._answer(read_challenges(response.headers.getall("WWW-Authenticate", [])), response)

    def _authorization(self, url: URL) -> dict[str, str]:
        """Nothing of it goes to another host, where a registry may have its blobs."""
        shown = self._header and url.origin() == self.endpoint.url.origin()
        return {"Authorization": self._header} if shown else {}

    async def _answer(self, challenges: list[Challenge], response: aiohttp.ClientResponse) -> None:
        """Find out what to show, from the first challenge that can be met."""
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                token = self._credentials.registrytoken or await self._token(challenge)
                self._header = f"Bearer {token}"
                return
            if challenge.scheme == "basic" and self._credentials.basic:
                self._header = aiohttp.BasicAuth(*self._credentials.basic, encoding="utf-8").encode()
                return
        if any(challenge.scheme == "basic" for challenge in challenges):
            raise Unauthorized("no basic auth credentials")
        raise await self._error(response)

    async def _token(self, challenge: Challenge) -> str:
        realm = URL(challenge.parameters["realm"])
        if realm.scheme != "https" and (realm.scheme != "http" or self.endpoint.verified):
            raise Refused(f"the registry sends to {realm} for a token, which is not https")
        query = [("service", challenge.parameters[name]) for name in ("service",) if name in challenge.parameters]
        scopes = self._scopes or [scope for scope in [challenge.parameters.get("scope", "")] if scope]
        if self._credentials.identitytoken:
            form = [*query, ("grant_type", "refresh_token"), ("refresh_token", self._credentials.identitytoken)]
            form += [("client_id", CLIENT_ID), ("scope", " ".join(scopes))]
            asked = self._http.post(realm, data=aiohttp.FormData(form), **self._line(realm))
        else:
            query += [("scope", scope) for scope in scopes]
            basic = self._credentials.basic
            if basic:
                query += [("account", basic[0]), ("client_id", CLIENT_ID), ("offline_token", "true")]
            auth = aiohttp.BasicAuth(*basic, encoding="utf-8") if basic else None
            asked = self._http.get(realm.update_query(query), auth=auth, **self._line(realm))
        async with asked as response:
            if response.status != 200:
                raise await self._error(response)
            found = _decoded(await _start_of(response), _Token)
        token = found.token or found.access_token
        if not token:
            raise Refused(f"{realm} gave no token")
        self._expires = time.monotonic() + found.expires_in * 0.9
        self.identity_token = found.refresh_token
        return str(token)

    def _line(self, url: URL) -> dict[str, Any]:
        """TLS with who gives tokens is verified unless the registry is not."""
        return {
            "ssl": self._tls if url.scheme == "https" and self._tls else True,
            "proxy": proxy_of(url, self._settings),
        }

    async def _error(self, response: aiohttp.ClientResponse) -> LogdError:
        text = _problem_in(await _start_of(response)) or f"{response.status} {response.reason or ''}".strip()
        kinds = {401: Unauthorized, 403: Forbidden, 404: NotFound, 408: Unavailable, 429: Unavailable}
        kind = kinds.get(response.status, Unavailable if response.status >= 500 else Refused)
        return kind(text)


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    data = b""
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_ERROR:
            break
    return data[:MAX_ERROR]


def _decoded(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return kind()


def _problem_in(data: bytes) -> str:
    """Return the registry's errors as Docker writes them, printable: `manifest unknown: manifest unknown`."""
    found: _Problems = _decoded(data, _Problems)
    texts = [f"{one.code.lower().replace('_', ' ')}: {one.message}" for one in found.errors or []]
    shown = "; ".join(texts) or found.details
    return "".join(letter if letter.isprintable() else " " for letter in shown)[:1000]
