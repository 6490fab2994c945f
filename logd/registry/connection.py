"""HTTP with one endpoint of a registry: who asks is shown as the registry wants it, and its errors become ours.

Source: OCI distribution-spec, "API" and "Error Codes"; the registry's token and OAuth2 specifications
(distribution.github.io/distribution/spec/auth/).
"""

import base64
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, Final, Self

import aiohttp
import msgspec
from yarl import URL

from logd.errors import Forbidden, LogdError, NotFound, Unauthorized, Unavailable
from logd.registry.challenge import Challenge, read_challenges
from logd.registry.endpoint import Endpoint, proxy_of, tls_of
from logd.registry.settings import Credentials, Settings
from logd.registry.words import printable

MAX_CONNECT_S: Final = 30
MAX_HOPS: Final = 5
"""Redirects, one after the other."""
MAX_PAUSE_S: Final = 60
"""How long a registry may ask us to wait."""
MAX_ERROR: Final = 64 << 10
"""Bytes that are read of an answer that is an error, and of one with a token at most."""
TOKEN_LIFE_S: Final = 60
"""Where the registry does not say, by the specification."""
CLIENT_ID: Final = "docker"


class Refused(LogdError):
    """The registry answered with an error that has no class of its own."""


class Busy(Unavailable):
    """The registry asks to be left alone for `pause_s` seconds."""

    def __init__(self, message: str, pause_s: int) -> None:
        super().__init__(message)
        self.pause_s = pause_s


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
            timeout=self._timeout(),
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
        data: Callable[[], Any] | bytes | None = None,
        patience_s: float = 0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a path below the endpoint, or a URL that it gave. Any status that is not expected is raised.

        `data` is called for each time that it is sent: the registry may ask first who it comes from. `patience_s`,
        where it is given, is how long the answer may take.
        Raises NotFound, Unauthorized, Forbidden, Unavailable (try again), Refused; aiohttp's and OS errors of the line.
        """
        url = where if isinstance(where, URL) else URL(f"{str(self.endpoint.url).rstrip('/')}{where}", encoded=True)
        for again in (True, False):
            if time.monotonic() > self._expires:
                self._header = ""
            async with self._followed(method, url, headers or {}, data, patience_s) as response:
                if response.status in expect:
                    yield response
                    return
                if response.status != 401 or not again or not self._is_own(response.url):
                    raise await self._error(response)
                await self._answer(_challenges(response), response)

    @contextlib.asynccontextmanager
    async def _followed(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        data: Callable[[], Any] | bytes | None,
        patience_s: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give the answer at the end of redirects, each of which gets what is meant for it and no more."""
        for _ in range(MAX_HOPS + 1):
            async with self._http.request(
                method,
                url,
                data=data() if callable(data) else data,
                headers={**headers, **self._authorization(url)},
                allow_redirects=False,
                timeout=self._timeout(patience_s),
                **self._line(url),
            ) as response:
                location = response.headers.get("Location", "")
                if not location or response.status not in ((307, 308) if data else (301, 302, 303, 307, 308)):
                    yield response
                    return
                url = self.target(url, location)
        raise Refused(f"the registry redirects more than {MAX_HOPS} times, last to {shown(url)}")

    def target(self, base: URL, text: str) -> URL:
        """Return what a header Location means. Raises Refused for what no registry should send to."""
        try:
            url = base.join(URL(text, encoded=text.isascii()))
            fine = url.scheme in {"http", "https"} and url.host and not url.raw_user and not url.raw_password
        except ValueError:
            fine = False
        if not fine:
            raise Refused(f"the registry sends to {printable(text)!r}, which is no address of a registry")
        if (base.scheme, url.scheme) == ("https", "http") and self.endpoint.verified:
            raise Refused(f"the registry sends to {shown(url)}, which is not https")
        return url

    def _timeout(self, patience_s: float = 0) -> aiohttp.ClientTimeout:
        silence = self._settings.timeout
        return aiohttp.ClientTimeout(
            total=None, sock_connect=min(silence, MAX_CONNECT_S), sock_read=patience_s or silence
        )

    def _is_own(self, url: URL) -> bool:
        return bool(url.origin() == self.endpoint.url.origin())

    def _authorization(self, url: URL) -> dict[str, str]:
        """Nothing of it goes to another host, where a registry may have its blobs."""
        return {"Authorization": self._header} if self._header and self._is_own(url) else {}

    async def _answer(self, challenges: list[Challenge], response: aiohttp.ClientResponse) -> None:
        """Find out what to show, from the first challenge that can be met."""
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                token = self._credentials.registrytoken or await self._token(challenge)
                self._header = f"Bearer {token}"
                return
            if challenge.scheme == "basic" and self._credentials.basic:
                self._header = _basic(*self._credentials.basic)
                return
        if any(challenge.scheme == "basic" for challenge in challenges):
            raise Unauthorized("no basic auth credentials")
        raise await self._error(response)

    async def _token(self, challenge: Challenge) -> str:
        realm = self.target(self.endpoint.url, challenge.parameters["realm"])
        query = [("service", challenge.parameters[name]) for name in ("service",) if name in challenge.parameters]
        scopes = self._scopes or [scope for scope in [challenge.parameters.get("scope", "")] if scope]
        if self._credentials.identitytoken:
            form = [*query, ("grant_type", "refresh_token"), ("refresh_token", self._credentials.identitytoken)]
            form += [("client_id", CLIENT_ID), ("scope", " ".join(scopes))]
            data = aiohttp.FormData(form)
            asked = self._http.post(realm, data=data, allow_redirects=False, **self._line(realm))
        else:
            query += [("scope", scope) for scope in scopes]
            basic = self._credentials.basic
            if basic:
                query += [("account", basic[0]), ("client_id", CLIENT_ID), ("offline_token", "true")]
            headers = {"Authorization": _basic(*basic)} if basic else {}
            realm = realm.update_query(query)
            asked = self._http.get(realm, headers=headers, allow_redirects=False, **self._line(realm))
        async with asked as response:
            if response.status != 200:
                raise await self._error(response)
            found = _decoded(await _start_of(response), _Token)
        token = found.token or found.access_token
        if not token:
            raise Refused(f"{shown(realm)} gave no token")
        if not (token.isascii() and token.isprintable() and found.refresh_token.isprintable()):
            raise Refused(f"{shown(realm)} gave a token that can't be sent")
        self._expires = time.monotonic() + found.expires_in * 0.9
        self.identity_token = found.refresh_token
        return str(token)

    def _line(self, url: URL) -> dict[str, Any]:
        """TLS with whom a registry sends to is verified unless the registry is not."""
        return {
            "ssl": self._tls if url.scheme == "https" and self._tls else True,
            "proxy": proxy_of(url, self._settings),
        }

    async def _error(self, response: aiohttp.ClientResponse) -> LogdError:
        text = _problem_in(await _start_of(response)) or printable(f"{response.status} {response.reason or ''}").strip()
        if response.status in {429, 503} and "Retry-After" in response.headers:
            return Busy(text, _pause(response.headers["Retry-After"]))
        if any(one.parameters.get("error") == "insufficient_scope" for one in _challenges(response)):
            return Forbidden("denied: requested access to the resource is denied")
        kinds = {401: Unauthorized, 403: Forbidden, 404: NotFound, 408: Unavailable, 429: Unavailable}
        kind = kinds.get(response.status, Unavailable if response.status >= 500 else Refused)
        return kind(text)


def _basic(name: str, password: str) -> str:
    """Return the header Authorization of a name and password. Source: RFC 7617."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def _challenges(response: aiohttp.ClientResponse) -> list[Challenge]:
    return read_challenges(response.headers.getall("WWW-Authenticate", []))


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
    return printable("; ".join(texts) or found.details)


def shown(url: URL) -> str:
    """Return a URL without its query, which may hold secrets."""
    return printable(str(url.with_query(None).with_fragment(None)))


def _pause(text: str) -> int:
    """Return the seconds that Retry-After asks for; a date is as good as nothing."""
    return min(int(text), MAX_PAUSE_S) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
