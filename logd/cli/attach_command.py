"""`logd attach` and `logd start -a`: a container's streams, or its terminal, here."""

from collections.abc import Mapping
from typing import Any, Final

import click

from logd.cli.attached import UPGRADE, check_input, follow
from logd.cli.client import Client, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.errors import Conflict

DETACH_KEYS: Final = click.option(
    "--detach-keys", metavar="KEYS", help="Keys that leave a terminal (default: ctrl-p,ctrl-q)."
)
SIG_PROXY: Final = click.option(
    "--sig-proxy", type=bool, default=True, show_default=True, metavar="BOOL", help="Send signals to the container."
)


@click.command(cls=Command, examples=("logd attach shell", "logd attach --no-stdin --sig-proxy=false web"))
@click.option("--no-stdin", is_flag=True, help="Give it no input.")
@SIG_PROXY
@DETACH_KEYS
@click.argument("container", type=CONTAINER)
@click.pass_obj
def attach(client: Client, /, *, container: str, no_stdin: bool, detach_keys: str | None, sig_proxy: bool) -> int:
    """Take a running container's output, and give it input; its exit code becomes this command's.

    Without a terminal signals go to the container, Ctrl-C too. To see what has been printed before: `logs -f`.
    """
    shown = client.json("GET", f"/containers/{quote(container)}/json")
    state = shown["State"]
    for what in ("Paused", "Restarting"):
        if state[what]:
            raise Conflict(f"container {container} is {what.lower()}")
    if not state["Running"]:
        raise Conflict(f"container {container} does not run (logd start {container})")
    return take(client, shown, interactive=not no_stdin, detach_keys=detach_keys, sig_proxy=sig_proxy)


def start_here(client: Client, container: str, *, interactive: bool, detach_keys: str | None, sig_proxy: bool) -> int:
    """Start a container with its output here, and return its exit code."""
    shown = client.json("GET", f"/containers/{quote(container)}/json")
    if shown["State"]["Running"]:
        raise Conflict(f"container {container} runs already (logd attach {container})")
    return take(client, shown, interactive=interactive, detach_keys=detach_keys, sig_proxy=sig_proxy, start=True)


def take(
    client: Client,
    shown: Mapping[str, Any],
    *,
    interactive: bool,
    detach_keys: str | None,
    sig_proxy: bool,
    start: bool = False,
) -> int:
    """Attach to the container that is shown, start it then if so asked, and return its exit code."""
    identity, config = str(shown["Id"]), shown["Config"]
    interactive, terminal = bool(config["OpenStdin"]) and interactive, bool(config["Tty"])
    check_input(interactive=interactive, terminal=terminal)
    query = {"stream": True, "stdout": True, "stderr": True, "stdin": interactive, "detachKeys": detach_keys}
    condition = "removed" if start and shown["HostConfig"]["AutoRemove"] else "next-exit"
    waiting = client.request("POST", f"/containers/{identity}/wait", {"condition": condition})
    with waiting, client.request("POST", f"/containers/{identity}/attach", query, headers=UPGRADE) as attached:
        if start:
            client.request("POST", f"/containers/{identity}/start").close()
        return follow(
            client, identity, attached, waiting, interactive=interactive, terminal=terminal, sig_proxy=sig_proxy
        )
