"""`logd exec`: run a command in a container that runs, beside its first process."""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from logd.cli.attached import EXIT_DAEMON, UPGRADE, check_input
from logd.cli.client import Client, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.foreground import carry
from logd.cli.interrupts import Waiter
from logd.cli.raw_terminal import raw_terminal, size
from logd.cli.words import environment
from logd.errors import LogdError


@click.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    cls=Command,
    examples=(
        "logd exec web ps",
        "logd exec -it web sh",
        "logd exec -i db psql < dump.sql",
        "logd exec -u nobody -w /tmp -e DEBUG=1 web env",
        "logd exec -d web touch /tmp/flag",
        "logd exec --log db sh /backup.sh",
    ),
)
@click.option("-i", "--interactive", is_flag=True, help="Give it this command's standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Run it in the background.")
@click.option(
    "-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable; without a value, as it is here."
)
@click.option("--env-file", multiple=True, type=click.Path(), metavar="FILE", help="Set the variables in a file.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user, by name or number.")
@click.option("-w", "--workdir", metavar="PATH", help="Working directory in the container.")
@click.option("--privileged", is_flag=True, help="Give it all capabilities.")
@click.option("--log", is_flag=True, help="Put its output into the container's log too.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave it running (default: ctrl-p,ctrl-q).")
@click.argument("container", type=CONTAINER)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(client: Client, /, *, container: str, command: Sequence[str], **options: Any) -> int | None:
    """Run a command in a container that runs.

    Its output appears here, and in the container's log only with --log. Its exit code becomes this command's.
    """
    detached, terminal = options["detach"], options["tty"]
    if not detached:
        check_input(interactive=options["interactive"], terminal=terminal)
    created = client.json("POST", f"/containers/{quote(container)}/exec", json_body=exec_request(command, options))
    place = f"/exec/{quote(str(created['Id']))}"
    begin = {"Detach": detached, "Tty": terminal}
    if detached:
        client.request("POST", f"{place}/start", json_body=begin).close()
        return None
    if terminal and size() != (0, 0):
        begin["ConsoleSize"] = list(size())
    waiter = Waiter()
    attached = client.request("POST", f"{place}/start", json_body=begin, headers=UPGRADE)
    with attached, _terminal(client, place) if terminal else contextlib.nullcontext():
        carry(attached, waiter, interactive=options["interactive"], multiplexed=not terminal)
    return _exit_code(client, place)


def exec_request(command: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """Return the body of POST /containers/{id}/exec (Docker Engine API 1.47, ContainerExec)."""
    attached = not options["detach"]
    return ({"Log": True} if options["log"] else {}) | {
        "Cmd": list(command),
        "Env": environment(options["env"], options["env_file"]),
        "User": options["user"] or "",
        "WorkingDir": options["workdir"] or "",
        "Privileged": options["privileged"],
        "Tty": options["tty"],
        "DetachKeys": options["detach_keys"] or "",
        "AttachStdin": options["interactive"] and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
    }


def _terminal(client: Client, place: str) -> "contextlib.AbstractContextManager[None]":
    """Have our terminal stand for the process's."""

    def resized() -> None:
        rows, columns = size()
        with contextlib.suppress(LogdError):  # it has just ended
            client.request("POST", f"{place}/resize", {"h": rows, "w": columns}).close()

    return raw_terminal(resized)


def _exit_code(client: Client, place: str) -> int:
    shown = client.json("GET", f"{place}/json")
    if shown["ExitCode"] is None:
        if not shown["Running"]:
            failed = LogdError("the process was not started")
            failed.exit_code = EXIT_DAEMON
            raise failed
        sys.stderr.write("logd: left; the process goes on\n")
        return 0
    return int(shown["ExitCode"])
