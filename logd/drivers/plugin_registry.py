"""Docker's plugins on this host: by a plugin's name, where it listens.

Source: https://docs.docker.com/engine/extend/plugin_api/#plugin-discovery: a socket in /run/docker/plugins; else, in
/etc/docker/plugins or /usr/lib/docker/plugins, a .spec file that holds an address or a .json file with address and TLS
settings. Each may stand in a folder that is named like the plugin.
"""

import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

SOCKETS: Final = Path("/run/docker/plugins")
SPECS: Final = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
LARGEST_SPEC: Final = 1 << 16
SCHEMES: Final = ("unix", "tcp", "http", "https")
LOCAL_HOST: Final = "plugin.moby.localhost"
"""Docker's name for the host in requests over a unix socket, which has none."""
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)
"""No path, and no tag behind a colon: those name plugins that Docker itself runs as containers."""


class RegistryError(OSError):
    """A plugin that is not there, or whose file says nothing of use. Whoever keeps the plugin can mend it."""


@dataclass(frozen=True)
class Address:
    """Where a plugin listens."""

    url: str
    """Of its root, without a slash at the end."""
    socket: str = ""
    """The unix socket, if it is one."""
    tls: "Tls | None" = None

    def __str__(self) -> str:
        """Return it for a person."""
        return self.socket or self.url


@dataclass(frozen=True)
class Tls:
    """TLSConfig of a .json file."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    is_unverified: bool = False

    def context(self) -> ssl.SSLContext:
        """Return what it means. Raises OSError (ssl.SSLError too) for files that can't be used."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file or None)
        if self.is_unverified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def is_name(name: str) -> bool:
    """Whether a plugin can have the name."""
    return _NAME.fullmatch(name) is not None


def find(name: str) -> Address:
    """Return where the plugin listens, if it is there at all: that is not tried. Raises RegistryError."""
    if is_name(name):
        for path in _places(SOCKETS, name, ".sock"):
            if path.is_socket():
                return Address(f"http://{LOCAL_HOST}", str(path))
        for folder in SPECS:
            for path in (*_places(folder, name, ".spec"), *_places(folder, name, ".json")):
                if path.is_file():
                    return _read(path)
    raise RegistryError(f'plugin "{name}" not found')


def names() -> list[str]:
    """Return the names under which there are sockets and files, of log drivers and other plugins."""
    found = {path.stem for path in _entries(SOCKETS) if path.suffix == ".sock" and path.is_socket()}
    for folder in SPECS:
        found |= {path.stem for path in _entries(folder) if path.suffix in {".spec", ".json"} and path.is_file()}
    return sorted(filter(is_name, found))


def _places(folder: Path, name: str, suffix: str) -> tuple[Path, Path]:
    return folder / f"{name}{suffix}", folder / name / f"{name}{suffix}"


def _entries(folder: Path) -> Iterator[Path]:
    """Give what stands in a folder, and in folders in it under the folder's own name."""
    try:
        found = list(folder.iterdir())
    except OSError:
        return
    for path in found:
        if path.is_dir():
            yield from (path / f"{path.name}{suffix}" for suffix in (".sock", ".spec", ".json"))
        else:
            yield path


def _read(path: Path) -> Address:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_SPEC).decode()
        return _parse_json(content) if path.suffix == ".json" else parse_address(content.strip())
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # of decoding, too
        raise RegistryError(f"{path}: {error}") from error


def _parse_json(content: str) -> Address:
    """Read {"Name", "Addr", "TLSConfig": {"InsecureSkipVerify", "CAFile", "CertFile", "KeyFile"}}."""
    said = json.loads(content)
    address = said.get("Addr") if isinstance(said, dict) else None
    if not isinstance(address, str):
        raise ValueError('an object with the text "Addr" is needed')  # noqa: TRY004 - what is in the file is wrong
    tls = said.get("TLSConfig")
    return parse_address(address, None if tls is None else _parse_tls(tls))


def _parse_tls(said: Any) -> Tls:
    files = {"ca_file": "CAFile", "cert_file": "CertFile", "key_file": "KeyFile"}
    if not isinstance(said, dict) or not all(isinstance(said.get(key, ""), str) for key in files.values()):
        raise ValueError("TLSConfig: an object of InsecureSkipVerify (true, false), CAFile, CertFile, KeyFile (paths)")
    return Tls(
        **{field: said.get(key, "") for field, key in files.items()},
        is_unverified=said.get("InsecureSkipVerify") is True,
    )


def parse_address(text: str, tls: Tls | None = None) -> Address:
    """Return the address that `unix:///path`, `tcp://host:port`, `http://…` or `https://…` is. Raises ValueError."""
    url = urlsplit(text)
    if url.scheme not in SCHEMES:
        raise ValueError(f"address {text!r}: unsupported scheme (supported: {', '.join(SCHEMES)})")
    if url.scheme == "unix":
        if url.netloc or not url.path.startswith("/"):
            raise ValueError(f"address {text!r}: unix:// and the absolute path of a socket is needed")
        return Address(f"http://{LOCAL_HOST}", url.path)
    if not url.hostname or (_port(url) is None and url.scheme == "tcp"):
        raise ValueError(f"address {text!r}: {url.scheme}://HOST:PORT is needed")
    scheme = "https" if url.scheme == "https" else "http"
    return Address(f"{scheme}://{url.netloc}", tls=(tls or Tls()) if scheme == "https" else None)


def _port(url: SplitResult) -> int | None:
    """Return the port; raises ValueError if it is none."""
    return url.port
