"""Addresses of servers of the Fluent forward protocol, as `fluentd-address` takes them.

Source: moby daemon/logger/fluentd/fluentd.go (parseAddress), also for the words about what is wrong. Several addresses
are logd's own.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 24224
MAX_PORT: Final = 65535
MAX_UNIX_PATH_BYTES: Final = 107  # unix(7): 108 with the NUL


class Address(NamedTuple):
    """Where a server is."""

    scheme: str
    """`tcp`, `tls` or `unix`."""
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


DEFAULT_ADDRESS: Final = Address("tcp", DEFAULT_HOST, DEFAULT_PORT)


def parse_addresses(value: str) -> tuple[Address, ...]:
    """Parse one or more addresses, comma-separated: `host`, `host:port`, `tcp://…`, `tls://…`, `unix:///path`."""
    try:
        return tuple(parse_address(one.strip()) for one in value.split(","))
    except ValueError as error:
        raise ValueError(f"invalid fluentd-address ({value}): {error}") from error


def parse_address(value: str) -> Address:
    """Parse one address, with Docker's words for what is wrong."""
    if not value:
        raise ValueError("an address is empty")
    if not value.isprintable() or " " in value:
        raise ValueError("invalid character in address")
    url = urlsplit(value if "://" in value else f"tcp://{value}")
    if not url.scheme:
        raise ValueError("missing protocol scheme")
    if url.scheme == "unix":
        return Address("unix", path=_unix_path(unquote(url.path)))
    if url.scheme not in {"tcp", "tls"}:
        raise ValueError(f"unsupported scheme: '{url.scheme}' (supported: tcp, tls, unix)")
    if url.path:
        raise ValueError("should not contain a path element")
    try:
        port = url.port
    except ValueError:
        raise ValueError(f"invalid port: {value!r} (0 to {MAX_PORT})") from None
    return Address(url.scheme, parse_host(url.hostname or DEFAULT_HOST), DEFAULT_PORT if port is None else port)


def parse_host(value: str) -> str:
    """Parse a host's name or address."""
    try:
        value.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"invalid host name: {value!r}") from error
    return value


def _unix_path(path: str) -> str:
    if not path.lstrip("/"):
        raise ValueError("path is empty")
    if len(path.encode(errors="replace")) > MAX_UNIX_PATH_BYTES or "\0" in path:
        raise ValueError(f"path is longer than the {MAX_UNIX_PATH_BYTES} bytes that a socket's path may have")
    return path
