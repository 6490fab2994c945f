"""`logd attach`: a running container's streams, or its terminal, here."""

import click

from logd.cli.attached import UPGRADE, check_input, follow
from logd.cli.client import Client, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.errors import Conflict


@click.command(cls=Command, examples=("logd attach shell", "logd attach --no-stdin web"))
@click.option("--no-stdin", is_flag=True, help="Give it no input.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave a terminal (default: ctrl-p,ctrl-q).")
@click.argument("container", type=CONTAINER)
@click.pass_obj
def attach(client: Client, /, *, container: str, no_stdin: bool, detach_keys: str | None) -> int:
    """Take a running container's output, and give it input; its exit code becomes this command's.

    Without a terminal signals go to the container, Ctrl-C too. To see what has been printed before: `logs -f`.
    """
    shown = client.json("GET", f"/containers/{quote(container)}/json")
    identity, state, config = str(shown["Id"]), shown["State"], shown["Config"]
    for what in ("Paused", "Restarting"):
        if state[what]:
            raise Conflict(f"container {container} is {what.lower()}")
    if not state["Running"]:
        raise Conflict(f"container {container} does not run (logd start {container})")
    interactive, terminal = bool(config["OpenStdin"]) and not no_stdin, bool(config["Tty"])
    check_input(interactive=interactive, terminal=terminal)
    query = {"stream": True, "stdout": True, "stderr": True, "stdin": interactive, "detachKeys": detach_keys}
    waiting = client.request("POST", f"/containers/{identity}/wait", {"condition": "next-exit"})
    with waiting, client.request("POST", f"/containers/{identity}/attach", query, headers=UPGRADE) as attached:
        return follow(client, identity, attached, waiting, interactive=interactive, terminal=terminal)
