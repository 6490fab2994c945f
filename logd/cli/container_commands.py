"""The verbs on containers: `logd start`, `stop`, `restart`, `kill`, `pause`, `rm`, `rename`, `wait`, `port`."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from logd.cli.attach_command import DETACH_KEYS, SIG_PROXY, start_here
from logd.cli.client import Client, Query, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.references import each
from logd.cli.tables import print_table
from logd.errors import InvalidParameter, LogdError

CONTAINERS = click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")
SIGNAL = click.option(
    "-s", "--signal", "signal_name", help="Signal to send first (default: the image's STOPSIGNAL, else TERM)."
)
TIMEOUT = click.option(
    "-t", "--timeout", "--time", type=int, help="Seconds before SIGKILL; -1 waits for ever (default: 10)."
)


def _post(client: Client, container: str, verb: str, query: Query | None = None) -> None:
    client.request("POST", f"/containers/{quote(container)}/{verb}", query).close()


@click.command(
    cls=Command,
    examples=("logd start web db", "logd start -a job", "logd start -ai shell"),
)
@click.option("-a", "--attach", "attached", is_flag=True, help="Show its output here; its exit code becomes ours.")
@click.option("-i", "--interactive", is_flag=True, help="Give it this command's standard input.")
@SIG_PROXY
@DETACH_KEYS
@CONTAINERS
@click.pass_obj
def start(client: Client, /, *, containers: Sequence[str], attached: bool, **options: Any) -> int | None:
    """Start containers that do not run; with -a or -i one, which is attached to before."""
    if not attached and not options["interactive"]:
        each(containers, lambda one: _post(client, one, "start"))
        return None
    if len(containers) > 1:
        raise InvalidParameter("--attach: you cannot start and attach multiple containers at once")
    return start_here(client, containers[0], **options)


@click.command(
    cls=Command,
    examples=(
        "logd stop web",
        "logd stop -t 60 -s INT db",
    ),
)
@SIGNAL
@TIMEOUT
@CONTAINERS
@click.pass_obj
def stop(client: Client, *, signal_name: str | None, timeout: int | None, containers: Sequence[str]) -> None:
    """Stop containers: a signal first, and SIGKILL if that does not do."""
    query = {"signal": signal_name, "t": timeout}
    each(containers, lambda one: _post(client, one, "stop", query))


@click.command(
    cls=Command,
    examples=("logd kill -s HUP nginx",),
)
@click.option("-s", "--signal", "signal_name", help="Signal to send (default: KILL).")
@CONTAINERS
@click.pass_obj
def kill(client: Client, *, signal_name: str | None, containers: Sequence[str]) -> None:
    """Send a signal to the main process of containers."""
    query = {"signal": signal_name}
    each(containers, lambda one: _post(client, one, "kill", query))


@click.command(
    cls=Command,
    examples=(
        "logd rm web",
        "logd rm -f $(logd ps -aq)",
    ),
)
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@click.option("-l", "--link", is_flag=True, help="Remove a link instead: there are none of that kind.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes too.")
@CONTAINERS
@click.pass_obj
def rm(client: Client, *, force: bool, link: bool, volumes: bool, containers: Sequence[str]) -> None:
    """Remove containers, and with them their logs."""
    query = {"force": force, "v": volumes, "link": link or None}
    each(containers, lambda one: client.request("DELETE", f"/containers/{quote(one)}", query).close())


@click.command(cls=Command, examples=("logd restart web", "logd restart -t 60 db"))
@SIGNAL
@TIMEOUT
@CONTAINERS
@click.pass_obj
def restart(client: Client, *, signal_name: str | None, timeout: int | None, containers: Sequence[str]) -> None:
    """Stop containers and start them again."""
    query = {"signal": signal_name, "t": timeout}
    each(containers, lambda one: _post(client, one, "restart", query))


@click.command(cls=Command, examples=("logd pause web",))
@CONTAINERS
@click.pass_obj
def pause(client: Client, *, containers: Sequence[str]) -> None:
    """Hold all processes of containers where they are."""
    each(containers, lambda one: _post(client, one, "pause"))


@click.command(cls=Command, examples=("logd unpause web",))
@CONTAINERS
@click.pass_obj
def unpause(client: Client, *, containers: Sequence[str]) -> None:
    """Let paused containers go on."""
    each(containers, lambda one: _post(client, one, "unpause"))


@click.command(cls=Command, examples=("logd rename web web-old",))
@click.argument("container", type=CONTAINER)
@click.argument("name", metavar="NEW_NAME")
@click.pass_obj
def rename(client: Client, *, container: str, name: str) -> None:
    """Give a container another name."""
    _post(client, container, "rename", {"name": name})


@click.command(cls=Command, examples=("logd wait job && echo ended", 'test "$(logd wait job)" = 0'))
@CONTAINERS
@click.pass_obj
def wait(client: Client, *, containers: Sequence[str]) -> None:
    """Wait until containers do not run any more, and print their exit codes."""
    each(containers, lambda one: _wait(client, one), echo=False)


def _wait(client: Client, container: str) -> None:
    ended = client.json("POST", f"/containers/{quote(container)}/wait")
    if message := (ended.get("Error") or {}).get("Message"):
        raise LogdError(message)
    sys.stdout.write(f"{ended['StatusCode']}\n")
    sys.stdout.flush()


@click.command(cls=Command, examples=("logd port web", "logd port web 80/tcp"))
@click.argument("container", type=CONTAINER)
@click.argument("private", required=False, metavar="[PORT[/PROTOCOL]]")
@click.pass_obj
def port(client: Client, *, container: str, private: str | None) -> None:
    """Show where a container's ports are published."""
    details = client.json("GET", f"/containers/{quote(container)}/json")
    published: dict[str, Any] = (details.get("NetworkSettings") or {}).get("Ports") or {}
    if private is None:
        lines = [f"{key} -> {_place(one)}" for key, places in published.items() for one in places or ()]
        for line in sorted(lines, key=_by_port):
            sys.stdout.write(f"{line}\n")
        return
    key = private if "/" in private else f"{private}/tcp"
    places = published.get(key) or ()
    if not places:
        raise LogdError(f"no public port '{key}' published for {container}")
    for one in places:
        sys.stdout.write(f"{_place(one)}\n")


def _place(binding: dict[str, str]) -> str:
    address = binding["HostIp"]
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


def _by_port(line: str) -> tuple[int, str]:
    number = line.partition("/")[0]
    return (int(number) if number.isdigit() else 0, line)


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=("logd container top web", "logd container top web -o pid,rss,args"),
)
@click.argument("container", type=CONTAINER)
@click.argument("ps_options", nargs=-1, type=click.UNPROCESSED, metavar="[PS_OPTIONS]")
@click.pass_obj
def top(client: Client, *, container: str, ps_options: Sequence[str]) -> None:
    """Show the processes of a container, once; `logd top` shows what containers use, live."""
    found = client.json("GET", f"/containers/{quote(container)}/top", {"ps_args": " ".join(ps_options) or None})
    print_table(found["Titles"], found["Processes"] or ())
