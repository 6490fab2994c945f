"""What is said to a Docker plugin: HTTP POST of JSON to its socket.

Source: https://docs.docker.com/engine/extend/plugin_api/ (activation, media type) and
https://docs.docker.com/engine/extend/plugins_logging/ (LogDriver.StartLogging, LogDriver.StopLogging).
"""

import json
from typing import Any, Final

import aiohttp

from logd.drivers.plugin_registry import Address, find

MEDIA_TYPE: Final = "application/vnd.docker.plugins.v1.2+json"
KINDS: Final = frozenset(("LogDriver", "LoggingDriver"))
"""What a log driver says that it implements: Docker's word, and the one that plugins say whose kind Docker reads from
their config.json (Grafana's for Loki, Splunk's)."""
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 30.0
"""Docker's."""
LONGEST_ANSWER: Final = 1 << 20
SHOWN_CHARS: Final = 500


class PluginError(OSError):
    """The plugin can't be reached, or does not do what it was asked to. Perhaps later."""


class PluginClient:
    """A plugin that can be reached at an address. Each call is a connection of its own: there are few."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self._address = address

    async def activate(self) -> None:
        """Shake hands. Raises PluginError if it is not there, or no log driver."""
        said = await self._call("Plugin.Activate")
        kinds = said.get("Implements")
        if not isinstance(kinds, list) or not KINDS.intersection(one for one in kinds if isinstance(one, str)):
            raise PluginError(
                f'Plugin does not implement the requested driver: plugin="{self.name}", requested '
                f'implementation="LogDriver"'
            )

    async def start_logging(self, pipe: str, info: dict[str, Any]) -> None:
        """Have it read a container's output from a pipe. Raises PluginError."""
        await self._call("LogDriver.StartLogging", {"File": pipe, "Info": info})

    async def stop_logging(self, pipe: str, timeout_s: float) -> None:
        """Tell it that nothing more will come through a pipe. Raises PluginError."""
        await self._call("LogDriver.StopLogging", {"File": pipe}, timeout_s)

    async def _call(self, method: str, body: Any = None, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """Return the answer, of which Err is empty. Raises PluginError."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(connector=self._connector(), timeout=timeout) as session:
                return await _post(session, f"{self._address.url}/{method}", body)
        except TimeoutError as error:
            raise PluginError(f"{self._address}: no answer to {method} within {timeout_s:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, PluginError):
                raise PluginError(f"{error}") from error
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise PluginError(f"{self._address}: {words}") from error

    def _connector(self) -> aiohttp.BaseConnector:
        if self._address.socket:
            return aiohttp.UnixConnector(self._address.socket, force_close=True)
        tls = self._address.tls
        return aiohttp.TCPConnector(ssl=tls.context() if tls else True, force_close=True)


async def activated(name: str) -> PluginClient:
    """Return the plugin of a name. Raises OSError in Docker's words if it is not there or no log driver."""
    try:
        plugin = PluginClient(name, find(name))
        await plugin.activate()
    except OSError as error:
        raise PluginError(f"error looking up logging plugin {name}: {error}") from error
    return plugin


async def _post(session: aiohttp.ClientSession, url: str, body: Any) -> dict[str, Any]:
    data = b"" if body is None else json.dumps(body).encode()  # surrogates, of bytes that are no UTF-8, are escaped
    headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
    async with session.post(url, data=data, headers=headers, allow_redirects=False) as response:
        raw = await response.content.read(LONGEST_ANSWER)
        while len(raw) < LONGEST_ANSWER and (more := await response.content.read(LONGEST_ANSWER - len(raw))):
            raw += more
    said = _parse(raw)
    if response.status != 200:
        text = shown(said.get("Err") or raw.decode(errors="replace"))
        raise PluginError(f"{url.rpartition('/')[2]}: {text or f'{response.status} {response.reason}'}")
    if error := said.get("Err"):
        raise PluginError(shown(error))
    return said


def _parse(raw: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one for an empty answer, as of StopLogging, and whatever else there is."""
    try:
        said = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def shown(said: Any) -> str:
    """Return the beginning of a stranger's words, as one line without control characters."""
    text = said if isinstance(said, str) else json.dumps(said)
    return "".join(one if one.isprintable() else " " for one in text.strip()[:SHOWN_CHARS])
