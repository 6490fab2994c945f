"""What a conversation with a registry is told: settings of the daemon, and who asks."""

import base64
import binascii
from typing import Final

import msgspec

from logd.errors import InvalidParameter

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
"""Registries on this host are always taken without TLS too, as in Docker."""


class Settings(msgspec.Struct, frozen=True):
    """The daemon's settings for registries, under the names of dockerd's keys where it has them."""

    registry_mirrors: tuple[str, ...] = ()
    """Base URLs that stand in for Docker Hub, in the order in which they are asked."""
    insecure_registries: tuple[str, ...] = ()
    """`host`, `host:port` or subnets: spoken to with any certificate or none."""
    certificates: tuple[str, ...] = ("/etc/logd/certs.d", "/etc/docker/certs.d")
    """Folders in which HOST[:PORT]/ has authorities (*.crt) and client certificates (*.cert with *.key)."""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    attempts: int = 5
    """How often a transfer is tried that breaks off without having got any further."""
    timeout: int = 60
    """Seconds of silence that are borne."""
    user_agent: str = "logd"


class Credentials(msgspec.Struct, frozen=True):
    """Docker's AuthConfig: a name and password, or a token of the registry; all empty for nobody in particular."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    @property
    def basic(self) -> tuple[str, str] | None:
        """The name and the password, None where there are none."""
        return (self.username, self.password) if self.username or self.password else None


NOBODY: Final = Credentials()


def read_credentials(data: bytes | str) -> Credentials:
    """Return Docker's AuthConfig from its JSON. Raises InvalidParameter."""
    try:
        found = msgspec.json.decode(data, type=Credentials, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"invalid registry credentials: {error}") from error
    if found.auth and found.basic is None:
        try:
            user, _, password = base64.b64decode(found.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidParameter("invalid registry credentials: auth is not base64 of NAME:PASSWORD") from error
        found = msgspec.structs.replace(found, username=user, password=password)
    if any(letter in found.username + found.password for letter in "\0\r\n") or ":" in found.username:
        raise InvalidParameter("invalid registry credentials: a name without colon, both without line breaks")
    return found


def credentials_of_header(text: str) -> Credentials:
    """Return what the header X-Registry-Auth has: base64 (with - and _) of the JSON. Raises InvalidParameter."""
    data = decoded(text, "X-Registry-Auth")
    return read_credentials(data) if data.strip() else NOBODY


def decoded(text: str, header: str) -> bytes:
    """Return what a header has in base64, with - and _. Raises InvalidParameter."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidParameter(f"invalid {header} header: {error}") from error
