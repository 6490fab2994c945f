"""docker-credential-NAME: programs that keep logins, asked by a verb and their standard input.

Source: the README of docker/docker-credential-helpers, "Usage": get, store, erase, list.
"""

import json
import os
import re
import subprocess
from typing import Any, Final, NamedTuple

from logd.errors import LogdError

NAME: Final = re.compile(r"\w[\w.-]*", re.ASCII)
NONE: Final = "credentials not found"
"""The beginning of what a helper says of a registry for which it has none."""
TOKEN: Final = "<token>"  # noqa: S105  # the name that stands for none
"""The user's name where the secret is a token of the registry."""
TIMEOUT_S: Final = 120.0
"""It may ask the person."""


class Kept(NamedTuple):
    """What a helper has for a registry."""

    username: str
    secret: str


class Helper:
    """One of them. Raises LogdError for what is no name."""

    def __init__(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise LogdError(f"docker's configuration names a credential helper {name!r}, which is no name of one")
        self._program = f"docker-credential-{name}"

    def get(self, registry: str) -> Kept | None:
        """Return a registry's login, None if there is none. Raises LogdError."""
        try:
            found = self._json("get", registry)
        except NotKept:
            return None
        return Kept(str(found.get("Username") or ""), str(found.get("Secret") or ""))

    def store(self, registry: str, kept: Kept) -> None:
        """Keep a login. Raises LogdError."""
        self._run("store", json.dumps({"ServerURL": registry, "Username": kept.username, "Secret": kept.secret}))

    def erase(self, registry: str) -> None:
        """Forget a login. Raises LogdError."""
        try:
            self._run("erase", registry)
        except NotKept:
            return

    def registries(self) -> list[str]:
        """Return those of which there is a login. Raises LogdError."""
        return list(self._json("list", "unused"))

    def _json(self, verb: str, text: str) -> dict[str, Any]:
        try:
            found = json.loads(self._run(verb, text) or b"{}")
        except ValueError:  # its message would have what was printed, perhaps a password
            found = None
        if not isinstance(found, dict):
            raise LogdError(f"{self._program} {verb} has not answered with a JSON object")
        return found

    def _run(self, verb: str, text: str) -> bytes:
        try:
            # A file in memory, for a helper that ends before it has read a pipe would end us by SIGPIPE. Its messages
            # to a person go where ours go.
            with open(os.memfd_create("login"), "wb+", buffering=0) as given:
                given.write(os.fsencode(text))
                given.seek(0)
                done = subprocess.run(
                    [self._program, verb], stdin=given, stdout=subprocess.PIPE, check=False, timeout=TIMEOUT_S
                )
        except FileNotFoundError as error:
            raise LogdError(f"docker's configuration wants {self._program}, which is not installed") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LogdError(f"{self._program} {verb}: {getattr(error, 'strerror', None) or 'no answer'}") from None
        if done.returncode == 0:
            return done.stdout
        said = done.stdout.decode(errors="replace").strip() if verb != "store" else ""
        if said.startswith(NONE):
            raise NotKept(said)
        raise LogdError(f"{self._program} {verb}: {said or f'exit status {done.returncode}'}")


class NotKept(LogdError):
    """The helper has no login for the registry."""
