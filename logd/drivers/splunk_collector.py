"""What is said to Splunk's HTTP Event Collector, and what its answers mean.

Sources: https://docs.splunk.com/Documentation/Splunk/latest/Data/TroubleshootHTTPEventCollector (status codes),
https://docs.splunk.com/Documentation/Splunk/latest/Data/AboutHECIDXAck (channels, /services/collector/ack).
"""

import io
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

EVENT_PATH: Final = "/services/collector/event/1.0"
"""Docker's; the same as /services/collector/event."""
ACK_PATH: Final = "/services/collector/ack"
CHANNEL_HEADER: Final = "X-Splunk-Request-Channel"
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 60.0
"""How long a collector that has all of a request may say nothing; delivery's deadline is shorter by default."""
KEEPALIVE_S: Final = 5.0
"""Less than the 12 s after which Splunk closes a connection that is not used (busyKeepAliveIdleTimeout)."""
LONGEST_ANSWER: Final = 1 << 20
SHOWN_CHARS: Final = 200

HTTP_OK: Final = 200
HTTP_BAD_REQUEST: Final = 400
HTTP_TOO_LARGE: Final = 413
CODE_SUCCESS: Final = 0
OF_AN_EVENT: Final = frozenset((5, 6, 12, 13, 15))
"""No data, invalid data format, event field is required, event field cannot be blank, error in indexed fields."""
ADVICE: Final = {
    1: "splunk-token: enable it",
    2: "splunk-token",
    3: "splunk-token",
    4: "splunk-token",
    7: "splunk-index: one that the token may write to",
    10: "the token asks for splunk-index-acknowledgment=true",
    11: "the token asks for splunk-index-acknowledgment=true",
    14: "the token has no indexer acknowledgement: splunk-index-acknowledgment=false",
}
"""What a person can do about it. These pass, once it is done, so they are tried again."""


class RefusedError(Exception):
    """The collector takes one of the events never. `event` is its number in the request, None if it does not say."""

    def __init__(self, event: int | None, reason: str) -> None:
        super().__init__(reason)
        self.event = event


class TooLargeError(Exception):
    """The collector, or what is before it, takes no request of this size."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    reason: str
    said: dict[str, Any]
    """The JSON object; empty if it was something else."""
    text: str
    """The beginning of it."""

    def __str__(self) -> str:
        """Return it for a person."""
        code = self.said.get("code")
        said = f"{self.said.get('text', '')} (code {code})" if code is not None else self.text
        advice = f": {ADVICE[code]}" if code in ADVICE else ""
        return f"{self.status} {self.reason} - {said}{advice}"

    def check(self) -> None:
        """Return if the events were taken. Raises RefusedError, TooLargeError or ConnectionError (again later)."""
        code = self.said.get("code")
        if self.status == HTTP_OK and code == CODE_SUCCESS:
            return
        if self.status == HTTP_TOO_LARGE:
            raise TooLargeError(str(self))
        if self.status == HTTP_BAD_REQUEST and code in OF_AN_EVENT:
            event = self.said.get("invalid-event-number")
            raise RefusedError(event if type(event) is int and event >= 0 else None, str(self))
        raise ConnectionError(f"failed to send event - {self}")

    @property
    def ack_id(self) -> int:
        """By which to ask for the acknowledgement. Raises ConnectionError if there is none."""
        ack_id = self.said.get("ackId")
        if type(ack_id) is not int:
            raise ConnectionError(f"the answer has no ackId (splunk-index-acknowledgment) - {self}")
        return ack_id


class Collector:
    """HTTP connections to a collector. Raises OSError, whatever aiohttp raises.

    `close` lets the requests that are on their way come to their end: each stands for itself, and one that was cut off
    would only have to be sent again.
    """

    def __init__(self, url: str, token: str, tls: ssl.SSLContext | None, server_name: str) -> None:
        self._url = URL(url)
        self._server_name = server_name or None
        self._proxy = proxy_of(self._url)
        self._users = 0
        self._is_closed = False
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls or True, limit=0, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # a load balancer's: acknowledgements are known to one server
            headers={"Authorization": f"Splunk {token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=ANSWER_TIMEOUT_S),
        )

    async def verify(self) -> None:
        """Ask whether there is a collector, as Docker does."""
        answer = await self._ask("OPTIONS", self._url.with_path(EVENT_PATH), b"", {})
        if answer.status != HTTP_OK:
            raise ConnectionError(f"failed to verify connection - {answer}")

    async def post(self, body: bytes, channel: str, *, is_gzip: bool) -> Answer:
        """Post events."""
        headers = {"Content-Type": "application/json"}
        if channel:
            headers[CHANNEL_HEADER] = channel
        if is_gzip:
            headers["Content-Encoding"] = "gzip"
        return await self._ask("POST", self._url.with_path(EVENT_PATH), body, headers)

    async def acknowledged(self, channel: str, ack_ids: Sequence[int]) -> set[int]:
        """Return which of the requests are indexed. The collector forgets what it has said so about."""
        url = self._url.with_path(ACK_PATH).with_query(channel=channel)
        headers = {"Content-Type": "application/json", CHANNEL_HEADER: channel}
        answer = await self._ask("POST", url, orjson.dumps({"acks": ack_ids}), headers)
        acks = answer.said.get("acks")
        if answer.status != HTTP_OK or not isinstance(acks, dict):
            raise ConnectionError(f"failed to ask for acknowledgements - {answer}")
        return {ack_id for ack_id in ack_ids if acks.get(str(ack_id)) is True}

    async def close(self) -> None:
        """Close, at once or after the last request."""
        self._is_closed = True
        if not self._users:
            await self._session.close()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[None]:
        """Keep the connections from being closed."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._is_closed and not self._users:
                await self._session.close()

    async def _ask(self, method: str, url: URL, body: bytes, headers: dict[str, str]) -> Answer:
        try:
            async with self._session.request(
                method,
                url,
                data=io.BytesIO(body) if body else None,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
                server_hostname=self._server_name,
            ) as response:
                text = await _read(response)
                return Answer(response.status, response.reason or "", _object(text), _shown(text))
        except TimeoutError as error:
            raise TimeoutError(str(error) or "no answer in time") from error
        except OSError as error:
            raise ConnectionError(_words(error)) from error
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error


def proxy_of(url: URL) -> str | None:
    """Return the proxy that the environment names for an address, as Go does: none for this host itself."""
    host = url.host or ""
    if host == "localhost" or _is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _read(response: aiohttp.ClientResponse) -> bytes:
    text = b""
    async for part in response.content.iter_any():
        text += part
        if len(text) > LONGEST_ANSWER:
            raise ConnectionError("an answer without end")
    return text


def _object(text: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _shown(text: bytes) -> str:
    shown = " ".join(text[: 4 * SHOWN_CHARS].decode(errors="replace").split())[:SHOWN_CHARS]
    return "".join(one if one.isprintable() else "?" for one in shown)


def _words(error: OSError) -> str:
    """Say what went wrong, for a person."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return f"the server's certificate is not trusted: {getattr(cause, 'verify_message', '') or cause}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return error.strerror or str(error) or type(error).__name__
