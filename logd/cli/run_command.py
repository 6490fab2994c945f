"""`logd run` and `create`: make a container and start it, in the background or with its output here."""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from logd import references
from logd.cli.attach_command import DETACH_KEYS, SIG_PROXY
from logd.cli.attached import EXIT_DAEMON, UPGRADE, check_input, follow
from logd.cli.client import Client, Query, Refused
from logd.cli.command import Command
from logd.cli.completion import IMAGE
from logd.cli.create_options import create_options
from logd.cli.create_request import create_request, id_file
from logd.cli.registry.transfers import pull_for
from logd.cli.terminal import visible
from logd.errors import InvalidParameter, LogdError

EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
MISSING: Final = ("No such image", "does not match the specified platform")
"""Of the daemon's words for a container that can't be created: those of an image that is not there."""


class NotStarted(LogdError):
    """The container could not be started; the exit code is Docker's for the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        text = message.lower()
        self.exit_code = EXIT_DAEMON
        if "executable file not found" in text or "no such file or directory" in text:
            self.exit_code = EXIT_NOT_FOUND
        elif "permission denied" in text or "is a directory" in text:
            self.exit_code = EXIT_NOT_EXECUTABLE


@click.command(
    context_settings={"allow_interspersed_args": False},
    cls=Command,
    examples=(
        "logd run -d --name web -e PORT=80 shop:1.2",
        "logd run --rm busybox echo hello",
        "logd run --rm -m 64m -u nobody busybox id",
        "logd run -d --restart unless-stopped --health-cmd 'wget -qO- localhost' shop:1.2",
        "logd run -it --rm busybox sh",
        "logd run -d -p 8080:80 --network shop -v data:/var/lib/shop shop:1.2",
        "tar c . | logd run --rm -i busybox wc -c",
    ),
)
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the container's id.")
@SIG_PROXY
@DETACH_KEYS
@create_options
@click.argument("image", type=IMAGE)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(client: Client, /, *, image: str, command: Sequence[str], **options: Any) -> int | None:
    """Run a command in a new container.

    Without -d its output appears here and its exit code becomes this command's. Leaving that to follow it in other
    ways: `logd run -d`, then `logs -f`.
    """
    if options["detach"] and options["attach"]:
        raise InvalidParameter("conflicting options: cannot specify both --attach and --detach")
    if not options["detach"]:
        check_input(interactive=options["interactive"], terminal=options["tty"])
    body = create_request(image, command, options)
    identity = _create(client, body, options)
    if options["detach"]:
        _start(client, identity)
        sys.stdout.write(f"{identity}\n")
        return None
    return _in_foreground(client, identity, options)


@click.command(
    context_settings={"allow_interspersed_args": False},
    cls=Command,
    examples=("logd create --name job busybox sh -c 'echo done'", "logd start job"),
)
@create_options
@click.argument("image", type=IMAGE)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(client: Client, /, *, image: str, command: Sequence[str], **options: Any) -> None:
    """Create a container, which `logd start` starts, and print its id."""
    identity = _create(client, create_request(image, command, {**options, "detach": False}), options)
    sys.stdout.write(f"{identity}\n")


def _create(client: Client, body: dict[str, Any], options: dict[str, Any]) -> str:
    query = {"name": options["name"], "platform": options["platform"]}
    with id_file(options["cidfile"]) as note:
        try:
            identity = _created(client, query, body, options)
        except LogdError as error:
            raise _not_run(error) from error
        note(identity)
    return identity


def _created(client: Client, query: Query, body: dict[str, Any], options: dict[str, Any]) -> str:
    """Create the container, of an image that is pulled as it is asked for, and return its id."""
    image, platform, quiet = str(body["Image"]), options["platform"], options["quiet"]
    if options["pull"] == "always" and references.digest_of(image) is None:
        pull_for(client, image, platform, quiet=quiet)
    try:
        created = client.json("POST", "/containers/create", query, json_body=body)
    except Refused as error:
        if options["pull"] != "missing" or not _lacks(error, image):
            raise
        if not quiet:
            name = references.parse(image).with_default_tag().familiar
            sys.stderr.write(f"Unable to find image '{visible(name)}' locally\n")
            sys.stderr.flush()
        pull_for(client, image, platform, quiet=quiet)
        created = client.json("POST", "/containers/create", query, json_body=body)
    for warning in created.get("Warnings") or ():
        sys.stderr.write(f"logd: warning: {warning}\n")
    return str(created["Id"])


def _lacks(error: Refused, image: str) -> bool:
    """Say whether the daemon lacks an image that a registry may have, or has it for another platform only."""
    is_missing = error.status == 404 and any(words in str(error) for words in MISSING)
    return is_missing and references.digest_of(image) is None


def _not_run(error: LogdError) -> LogdError:
    """Return the error with docker's exit code for a container that could not be made."""
    failed = NotStarted(str(error))
    failed.exit_code = EXIT_DAEMON
    return failed


def _start(client: Client, identity: str) -> None:
    try:
        client.request("POST", f"/containers/{identity}/start").close()
    except Refused as error:
        raise NotStarted(str(error)) from error


def _in_foreground(client: Client, identity: str, options: dict[str, Any]) -> int:
    """Attach, start, carry the streams, and return the exit code."""
    interactive, remove = options["interactive"], options["remove"]
    wanted = options["attach"] or ("stdout", "stderr")
    outputs = {name: name in wanted for name in ("stdout", "stderr")}
    query = {"stream": True, **outputs, "stdin": interactive, "detachKeys": options["detach_keys"]}
    attached = client.request("POST", f"/containers/{identity}/attach", query, headers=UPGRADE)
    condition = "removed" if remove else "next-exit"
    waiting = client.request("POST", f"/containers/{identity}/wait", {"condition": condition})
    with attached, waiting:
        try:
            _start(client, identity)
        except NotStarted:
            if remove:
                with contextlib.suppress(LogdError):
                    client.request("DELETE", f"/containers/{identity}", {"force": True, "v": True}).close()
            raise
        terminal, sig_proxy = options["tty"], options["sig_proxy"]
        return follow(
            client, identity, attached, waiting, interactive=interactive, terminal=terminal, sig_proxy=sig_proxy
        )
