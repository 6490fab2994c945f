"""`logd login` and `logout`: who one is at a registry."""

import getpass
import sys
from typing import Final

import click

from logd.cli.client import Client
from logd.cli.command import Command
from logd.cli.completion import REGISTRY
from logd.cli.registry.docker_config import DockerConfig
from logd.cli.registry.logins import HUB, Login, Logins, host_of
from logd.cli.terminal import is_terminal, visible
from logd.errors import InvalidParameter, LogdError
from logd.references import DEFAULT_DOMAIN

STDIN_FD: Final = 0
MAX_PASSWORD: Final = 64 * 1024
"""Characters; tokens are long."""


@click.command(
    cls=Command,
    examples=(
        "logd login registry.example.org",
        "pass show registry | logd login -u ann --password-stdin localhost:5000",
    ),
)
@click.option("-u", "--username", metavar="NAME", help="User name (default: it is asked for).")
@click.option("-p", "--password", metavar="PASSWORD", help="Password; all users of this machine can see it.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("server", required=False, type=REGISTRY, metavar="[SERVER]")
@click.pass_obj
def login(
    client: Client, *, username: str | None, password: str | None, password_stdin: bool, server: str | None
) -> None:
    """Log in at a registry (default: Docker Hub). The login is kept where docker keeps its own, and is one with it."""
    registry, logins = registry_named(server), Logins()
    if password is not None and password_stdin:
        raise InvalidParameter("conflicting options: --password and --password-stdin")
    if password is not None:
        sys.stderr.write("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    if password_stdin and not username:
        raise InvalidParameter("the --password-stdin option requires --username to be set")
    if not username and password is None and (known := logins.get(registry)) is not None:
        _say(f"Authenticating with existing credentials... [Username: {known.username or 'a token'}]")
        try:
            sys.stdout.write(f"{visible(_ask(client, registry, known)[0])}\n")
        except LogdError as error:
            _say(f"Login did not succeed, error: {error}")
        else:
            _say(f"To log in as somebody else, run `logd logout {server or ''}".rstrip() + "` first.")
            return
    wanted = _given(username, password, stdin=password_stdin)
    status, token = _ask(client, registry, wanted)
    logins.keep(registry, Login(wanted.username, "", token) if token else wanted)
    if not logins.config.helper_for(registry):
        _say(
            f"WARNING! The login is kept unencrypted in {logins.config.path}; a credential helper would keep it safer:"
            " https://docs.docker.com/go/credential-store/"
        )
    sys.stdout.write(f"{visible(status)}\n")


@click.command(cls=Command, examples=("logd logout registry.example.org",))
@click.argument("server", required=False, type=REGISTRY, metavar="[SERVER]")
def logout(*, server: str | None) -> None:
    """Forget the login at a registry (default: Docker Hub)."""
    registry = registry_named(server)
    sys.stdout.write(f"Removing login credentials for {visible(registry)}\n")
    Logins(DockerConfig()).forget(registry)


def registry_named(server: str | None) -> str:
    """Return the name by which docker keeps logins at a registry. Raises InvalidParameter for what is none."""
    if not server or server in {DEFAULT_DOMAIN, HUB}:
        return HUB
    host = host_of(server)
    if not host or not host.isprintable() or any(letter.isspace() for letter in host):
        raise InvalidParameter(f"invalid registry {server!r} (write HOST or HOST:PORT)")
    return host


def _given(username: str | None, password: str | None, *, stdin: bool) -> Login:
    """Return what is asked for on the terminal, or has been given. Raises InvalidParameter."""
    if stdin:
        password = sys.stdin.read(MAX_PASSWORD).removesuffix("\n").removesuffix("\r")
    elif not (username and password) and not is_terminal(STDIN_FD):
        raise InvalidParameter("Cannot perform an interactive login from a non TTY device (use --password-stdin)")
    if not username:
        username = click.prompt("Username", default="", show_default=False, err=True).strip()
        if not username:
            raise InvalidParameter("username is required")
    if not password and not stdin:
        password = getpass.getpass("Password: ")
    if not password:
        raise InvalidParameter("password is required")
    return Login(username, password)


def _ask(client: Client, registry: str, login: Login) -> tuple[str, str]:
    """Have the daemon ask the registry, and return its word and a token, if it gave one. Raises LogdError."""
    answer = client.json("POST", "/auth", json_body=login.auth(registry)) or {}
    return str(answer.get("Status") or "Login Succeeded"), str(answer.get("IdentityToken") or "")


def _say(text: str) -> None:
    sys.stderr.write(f"{visible(text)}\n")
