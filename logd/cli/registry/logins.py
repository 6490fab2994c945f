"""Logins at registries, kept where docker keeps them, and as the API's headers have them.

Source: Docker Engine API 1.47, "Authentication" (X-Registry-Auth), ImageBuild (X-Registry-Config).
"""

import base64
import binascii
import json
from typing import Any, Final, NamedTuple

from logd import references
from logd.cli.registry.docker_config import DockerConfig
from logd.cli.registry.helper import TOKEN, Helper, Kept
from logd.errors import LogdError

HUB: Final = "https://index.docker.io/v1/"
"""The name under which docker keeps logins at Docker Hub."""


class Login(NamedTuple):
    """A name and a password, or a token of the registry."""

    username: str = ""
    password: str = ""
    token: str = ""

    def auth(self, registry: str) -> dict[str, str]:
        """Return the API's AuthConfig."""
        found = {"username": self.username, "password": self.password, "identitytoken": self.token}
        return {**{key: value for key, value in found.items() if value}, "serveraddress": registry}


class Logins:
    """Those of the person who runs the command."""

    def __init__(self, config: DockerConfig | None = None) -> None:
        self.config = config or DockerConfig()

    def get(self, registry: str) -> Login | None:
        """Return the login at a registry, None if there is none. Raises LogdError."""
        helper = self.config.helper_for(registry)
        if not helper:
            return self._of_file(registry)
        kept = Helper(helper).get(registry)
        if kept is None:
            return None
        return Login(token=kept.secret) if kept.username == TOKEN else Login(kept.username, kept.secret)

    def keep(self, registry: str, login: Login) -> None:
        """Keep a login. Raises LogdError."""
        helper, entry = self.config.helper_for(registry), {}
        if helper:
            kept = Kept(TOKEN, login.token) if login.token else Kept(login.username, login.password)
            Helper(helper).store(registry, kept)
        else:
            text = f"{login.username}:{login.password}"
            entry = {"auth": base64.b64encode(text.encode()).decode()}
            if login.token:
                entry["identitytoken"] = login.token
        self.config.auths[registry] = entry
        self.config.save()

    def forget(self, registry: str) -> None:
        """Forget a login, by whatever form of the registry's name it is kept. Raises LogdError."""
        host = host_of(registry)
        names = [name for name in self.config.auths if registry == name or (registry != HUB and host_of(name) == host)]
        for name in {registry, *names}:
            if helper := self.config.helper_for(name):
                Helper(helper).erase(name)
        for name in names:
            del self.config.auths[name]
        if names:
            self.config.save()

    def every(self) -> dict[str, Login]:
        """Return all of them, by registry: which one a build needs, its Dockerfile says. Raises LogdError."""
        names = {*self.config.auths, *self.config.helpers}
        if self.config.store:
            names.update(Helper(self.config.store).registries())
        found = {name: self.get(name) for name in sorted(names)}
        return {name: login for name, login in found.items() if login is not None}

    def _of_file(self, registry: str) -> Login | None:
        host = host_of(registry)
        entry = self.config.auths.get(registry)
        if entry is None:  # as old clients wrote it: https://host/v1/
            entry = next((one for name, one in self.config.auths.items() if host_of(name) == host), None)
        if not isinstance(entry, dict) or not entry:
            return None
        token = str(entry.get("identitytoken") or "")
        try:
            text = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise LogdError(f"{self.config.path}: auth of {registry} is not base64 of NAME:PASSWORD") from None
        username, _, password = text.rstrip("\0").partition(":")
        return Login(username, password, token) if username or token else None


def registry_of(image: str) -> str:
    """Return the registry of an image's name, as logins are kept by. Raises InvalidParameter."""
    domain = references.parse(image).domain
    return HUB if domain == references.DEFAULT_DOMAIN else domain


def host_of(registry: str) -> str:
    """Return a registry's host of a name that may be a URL."""
    return registry.removeprefix("https://").removeprefix("http://").partition("/")[0]


def headers_for(image: str) -> dict[str, str]:
    """Return the header that tells the daemon who asks the image's registry; none without a login."""
    registry = registry_of(image)
    login = Logins().get(registry)
    return {"X-Registry-Auth": encoded(login.auth(registry))} if login else {}


def headers_for_build() -> dict[str, str]:
    """Return the header with all logins; none without one."""
    every = Logins().every()
    return {"X-Registry-Config": encoded({name: one.auth(name) for name, one in every.items()})} if every else {}


def encoded(value: Any) -> str:
    """Return the JSON in base64, with - and _."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
