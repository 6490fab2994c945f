"""Docker's client configuration, $DOCKER_CONFIG/config.json: what it says of registries. Other keys stay as they are.

Source: docker(1), "Configuration files"; the docker documentation of `docker login`, "Credential stores".
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, Final

from logd.errors import LogdError

MODE: Final = 0o600


def config_path() -> str:
    """Return where docker's client has its configuration."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(folder, "config.json")


class DockerConfig:
    """The file as it is now; `auths`, `store` and `helpers` are what it says of logins."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path or config_path()
        self._content = _read(self.path)
        self.auths: dict[str, Any] = _object(self.path, self._content, "auths")
        """By registry: {"auth": base64 of NAME:PASSWORD, "identitytoken": …}."""
        self.store = str(self._content.get("credsStore") or "")
        """The helper that keeps all logins; "" is none."""
        self.helpers: dict[str, Any] = _object(self.path, self._content, "credHelpers")
        """Helpers that keep those of one registry each."""

    def helper_for(self, registry: str) -> str:
        """Return the helper that keeps a registry's login; "" is this file."""
        return str(self.helpers.get(registry) or self.store)

    def save(self) -> None:
        """Write the file, with `auths` as they are now: at once or not at all. Raises LogdError."""
        content = {**self._content, "auths": self.auths}
        data = json.dumps(content, indent="\t").encode()
        place = os.path.realpath(self.path)  # a link stays one
        try:
            os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
            with _replacing(place) as descriptor, open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise LogdError(f"{self.path}: {error.strerror}") from error


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read() or b"{}")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LogdError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise LogdError(f"{path} is no JSON (docker's configuration, from which logins are taken)") from error
    if not isinstance(content, dict):
        raise LogdError(f"{path} is no JSON object (docker's configuration, from which logins are taken)")
    return content


def _object(path: str, content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key) or {}
    if not isinstance(found, dict):
        raise LogdError(f"{path}: {key} is no JSON object")
    return dict(found)


@contextlib.contextmanager
def _replacing(place: str) -> Iterator[int]:
    """Give a new file that takes the place of another, with its owner, when the block has ended well."""
    name = f"{place}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    try:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            status = os.stat(place)
            if stat.S_ISREG(status.st_mode):
                os.fchown(descriptor, status.st_uid, status.st_gid)
        yield descriptor
        os.rename(name, place)
    except BaseException:
        os.unlink(name)
        raise
