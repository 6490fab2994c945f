"""`logd run`: create a container and start it, in the background or with its output here."""

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from logd.cli.attached import EXIT_DAEMON, UPGRADE, check_input, follow
from logd.cli.client import Client, Refused
from logd.cli.command import Command
from logd.cli.raw_terminal import size
from logd.errors import InvalidParameter, LogdError
from logd.units import parse_duration, parse_ram_size

EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127


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
        "tar c . | logd run --rm -i busybox wc -c",
    ),
)
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the container's id.")
@click.option("-i", "--interactive", is_flag=True, help="Give it this command's standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that leave its terminal (default: ctrl-p,ctrl-q).")
@click.option("--name", help="Name of the container (default: one is made up).")
@click.option("--rm", "remove", is_flag=True, help="Remove the container and its log when it has ended.")
@click.option(
    "-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable; without a value, as it is here."
)
@click.option("--env-file", multiple=True, type=click.Path(), metavar="FILE", help="Set the variables in a file.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user, by name or number.")
@click.option("-w", "--workdir", metavar="PATH", help="Working directory in the container.")
@click.option("-l", "--label", multiple=True, metavar="KEY[=VALUE]", help="Attach a label.")
@click.option("-h", "--hostname", help="Host name in the container.")
@click.option("--entrypoint", help="Program to run instead of the image's entry point.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory limit, such as 64m or 1g.")
@click.option("--cpus", type=float, help="Number of CPUs, such as 0.5.")
@click.option("--pids-limit", type=int, help="How many processes it may have.")
@click.option("--read-only", is_flag=True, help="Make its root file system read-only.")
@click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount a file system in memory.")
@click.option(
    "-v", "--volume", multiple=True, metavar="[HOST|VOLUME:]PATH[:ro]", help="Mount a folder of the host or a volume."
)
@click.option("--network", metavar="NAME", help="none, or host.")
@click.option("--init", is_flag=True, help="Run a small init in it that reaps processes.")
@click.option("--stop-signal", metavar="SIGNAL", help="Signal that stops it.")
@click.option("--restart", metavar="POLICY", help="no, on-failure[:N], always, or unless-stopped: see operations.md.")
@click.option("--health-cmd", metavar="COMMAND", help="Shell command that checks whether it is healthy.")
@click.option("--health-interval", metavar="DURATION", help="Time between two checks, such as 30s.")
@click.option("--health-timeout", metavar="DURATION", help="How long a check may take.")
@click.option("--health-start-period", metavar="DURATION", help="Time to start, in which failures do not count.")
@click.option("--health-start-interval", metavar="DURATION", help="Time between two checks while it starts.")
@click.option("--health-retries", type=int, metavar="N", help="Failures in a row that make it unhealthy.")
@click.option("--no-healthcheck", is_flag=True, help="Do without the image's health check.")
@click.option("--log-driver", metavar="NAME", help="Log driver (default: the daemon's).")
@click.option("--log-opt", multiple=True, metavar="KEY=VALUE", help="Option of the log driver, such as max-size=10m.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(client: Client, /, *, image: str, command: Sequence[str], **options: Any) -> int | None:
    """Run a command in a new container.

    Without -d its output appears here and its exit code becomes this command's. Leaving that to follow it in other
    ways: `logd run -d`, then `logs -f`.
    """
    if not options["detach"]:
        check_input(interactive=options["interactive"], terminal=options["tty"])
    body = create_request(image, command, options)
    identity = _create(client, body, options["name"])
    if options["detach"]:
        _start(client, identity)
        sys.stdout.write(f"{identity}\n")
        return None
    return _in_foreground(client, identity, options)


def create_request(image: str, command: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """Return the body of POST /containers/create (Docker Engine API 1.47, ContainerCreate)."""
    attached = not options["detach"]
    stdin = bool(options["interactive"])
    host: dict[str, Any] = {
        "AutoRemove": options["remove"],
        "ReadonlyRootfs": options["read_only"],
        "Binds": list(options["volume"]),
        "Tmpfs": dict(_split(word, ":") for word in options["tmpfs"]),
        "LogConfig": {"Type": options["log_driver"] or "", "Config": pairs("--log-opt", options["log_opt"])},
    }
    if options["tty"]:
        host["ConsoleSize"] = list(size())
    if options["init"]:
        host["Init"] = True
    if options["network"]:
        host["NetworkMode"] = options["network"]
    if options["memory"]:
        host["Memory"] = _memory(options["memory"])
    if options["cpus"] is not None:
        host["NanoCpus"] = round(options["cpus"] * 1_000_000_000)
    if options["pids_limit"] is not None:
        host["PidsLimit"] = options["pids_limit"]
    if options["restart"]:
        host["RestartPolicy"] = _restart_policy(options["restart"])
    request: dict[str, Any] = {
        "Image": image,
        "Env": [*_env_files(options["env_file"]), *environment(options["env"])],
        "Labels": dict(_split(word, "=") for word in options["label"]),
        "AttachStdin": stdin and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "OpenStdin": stdin,
        "StdinOnce": stdin and attached,
        "HostConfig": host,
    }
    if options["tty"]:
        request["Tty"] = True
    if health := _health_check(options):
        request["Healthcheck"] = health
    if command:
        request["Cmd"] = list(command)
    if options["entrypoint"] is not None:
        request["Entrypoint"] = [options["entrypoint"]]
    for name, key in (
        ("user", "User"),
        ("workdir", "WorkingDir"),
        ("hostname", "Hostname"),
        ("stop_signal", "StopSignal"),
    ):
        if options[name]:
            request[key] = options[name]
    return request


def _create(client: Client, body: dict[str, Any], name: str | None) -> str:
    try:
        created = client.json("POST", "/containers/create", {"name": name}, json_body=body)
    except Refused as error:
        hint = ""
        if error.status == 404 and "No such image" in str(error):
            hint = " (bring it in with `logd import` or `logd load`; `logd images` lists what is there)"
        failed = NotStarted(f"{error}{hint}")
        failed.exit_code = EXIT_DAEMON
        raise failed from error
    for warning in created.get("Warnings") or ():
        sys.stderr.write(f"logd: warning: {warning}\n")
    return str(created["Id"])


def _start(client: Client, identity: str) -> None:
    try:
        client.request("POST", f"/containers/{identity}/start").close()
    except Refused as error:
        raise NotStarted(str(error)) from error


def _in_foreground(client: Client, identity: str, options: dict[str, Any]) -> int:
    """Attach, start, carry the streams, and return the exit code."""
    interactive, remove = options["interactive"], options["remove"]
    query = {"stream": True, "stdout": True, "stderr": True, "stdin": interactive, "detachKeys": options["detach_keys"]}
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
        return follow(client, identity, attached, waiting, interactive=interactive, terminal=options["tty"])


def _memory(text: str) -> int:
    try:
        return parse_ram_size(text)
    except ValueError as error:
        raise InvalidParameter(f"--memory: {error}") from error


def _restart_policy(text: str) -> dict[str, Any]:
    """Return the policy that NAME or NAME:N means; the daemon knows the names, and which may have a number."""
    name, colon, number = text.partition(":")
    if colon and not (number.isascii() and number.isdigit()):
        raise InvalidParameter(f"--restart: invalid number of restarts in {text!r} (write on-failure:3)")
    return {"Name": name, "MaximumRetryCount": int(number or 0)}


def _health_check(options: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked for instead of the image's own check, or of a part of it; empty for nothing."""
    found: dict[str, Any] = {}
    if options["health_cmd"]:
        found["Test"] = ["CMD-SHELL", options["health_cmd"]]
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if text := options[f"health_{name}"]:
            found["".join(word.capitalize() for word in name.split("_"))] = _duration(f"--health-{name}", text)
    if options["health_retries"] is not None:
        found["Retries"] = options["health_retries"]
    if options["no_healthcheck"]:
        if found:
            raise InvalidParameter("--no-healthcheck conflicts with the --health-… options")
        found["Test"] = ["NONE"]
    return found


def _duration(option: str, text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidParameter(f"{option.replace('_', '-')}: {error}") from error


def _split(word: str, separator: str) -> tuple[str, str]:
    key, _, value = word.partition(separator)
    return key, value


def pairs(name: str, words: Iterable[str]) -> dict[str, str]:
    """Return what options `KEY=VALUE` say; `name` is the option's, for the message."""
    for word in words:
        if "=" not in word:
            raise InvalidParameter(f"{name}: invalid value {word!r} (write key=value)")
    return dict(_split(word, "=") for word in words)


def environment(words: Iterable[str]) -> list[str]:
    """Return the variables; one without a value has that of our own environment, or is left out."""
    found = []
    for word in words:
        if word.startswith("=") or not word:
            raise InvalidParameter(f"--env: invalid variable {word!r} (write KEY=VALUE or KEY)")
        if "=" in word:
            found.append(word)
        elif word in os.environ:
            found.append(f"{word}={os.environ[word]}")
    return found


def _env_files(paths: Iterable[str]) -> list[str]:
    words: list[str] = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.rstrip("\r\n").lstrip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParameter(f"--env-file: {path}: {error}") from error
        words.extend(line for line in lines if line and not line.startswith("#"))
    return environment(words)
