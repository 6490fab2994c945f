"""`logd`: the commands on containers, images, logs and the daemon. Exit codes: 0, 1 an error, 125 wrong usage."""

import os
import signal
import sys
from collections.abc import Sequence

import click

from logd.cli import (
    attach_command,
    container_commands,
    doctor_command,
    driver_commands,
    events_command,
    exec_command,
    file_commands,
    groups,
    image_commands,
    image_verbs,
    inspect_command,
    log_commands,
    network_commands,
    ps_command,
    run_command,
    stats_command,
    system_commands,
    top,
    update_command,
    volume_commands,
)
from logd.cli.client import DEFAULT_HOST, Client
from logd.cli.command import Group
from logd.cli.completion import CONTAINER, PassedOn, completion, flags_of_daemon, flags_of_logs
from logd.cli.copying.command import cp
from logd.cli.output import STDERR_FD, write_all
from logd.cli.references import Several
from logd.cli.registry import build_command, login_commands
from logd.cli.registry import image_commands as registry_commands
from logd.cli.terminal import visible
from logd.errors import InvalidParameter, LogdError

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "-H",
    "--host",
    metavar="ADDRESS",
    help=f"Where the daemon listens (default: LOGD_HOST, DOCKER_HOST, {DEFAULT_HOST}).",
)
@click.version_option(None, "-v", "--version", package_name="logd", message="%(prog)s version %(version)s")
@click.pass_context
def cli(ctx: click.Context, host: str | None) -> None:
    """Run containers and keep every byte they print.

    The docker command works with logd too: export DOCKER_HOST=unix:///run/logd/logd.sock. To read logs, use `logs`.
    """
    if ctx.invoked_subcommand not in {"daemon", "logs", "completion"}:
        ctx.obj = Client(host)


@cli.command(
    cls=PassedOn,
    flags=flags_of_daemon,
    examples=("logd daemon", "logd daemon --config-file /etc/logd/daemon.json -D"),
    add_help_option=False,
    context_settings=PASS_ON,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
def daemon(arguments: Sequence[str]) -> None:
    """Start the daemon (its options: logd daemon --help)."""
    python = [sys.executable, "-P", "-m", "logd.daemon"]  # -P: nothing is imported from where root happens to stand
    os.execv(sys.executable, [*python, *arguments])  # noqa: S606  # it becomes the daemon: no shell, no parent


@cli.command(
    cls=PassedOn,
    flags=flags_of_logs,
    examples=("logd logs -f web", "logd logs --help"),
    add_help_option=False,
    context_settings=PASS_ON,
)
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[OPTIONS] CONTAINER...",
    shell_complete=CONTAINER.shell_complete,
)
@click.pass_context
def logs(ctx: click.Context, arguments: Sequence[str]) -> None:
    """Read containers' logs: the same as the command `logs`."""
    host = ctx.find_root().params["host"]
    if host:
        os.environ["LOGD_HOST"] = host
    from logd.cli.logs import main as read_logs  # noqa: PLC0415  # for this command only

    read_logs(arguments)


for _command in (
    ps_command.ps,
    run_command.run,
    run_command.create,
    attach_command.attach,
    exec_command.exec_,
    container_commands.start,
    container_commands.stop,
    container_commands.restart,
    container_commands.kill,
    container_commands.pause,
    container_commands.unpause,
    container_commands.wait,
    container_commands.rename,
    update_command.update,
    container_commands.port,
    container_commands.rm,
    inspect_command.inspect,
    cp,
    file_commands.diff,
    file_commands.export,
    file_commands.commit,
    top.top,
    stats_command.stats,
    image_commands.images,
    registry_commands.pull,
    registry_commands.push,
    registry_commands.search,
    login_commands.login,
    login_commands.logout,
    build_command.build,
    image_commands.import_,
    image_commands.load,
    registry_commands.save,
    image_verbs.history,
    image_verbs.tag,
    image_verbs.rmi,
    network_commands.network,
    volume_commands.volume,
    events_command.events,
    groups.container,
    groups.image,
    log_commands.log,
    driver_commands.plugins,
    system_commands.version,
    system_commands.info,
    doctor_command.doctor,
    groups.system,
    completion,
):
    cli.add_command(_command)
groups.container.add_command(logs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a closed pipe ends it as it ends cat
    try:
        status = cli.main(arguments, "logd", standalone_mode=False)
    except click.UsageError as error:
        complain(error.format_message())
        command = error.ctx.command_path if error.ctx else "logd"
        sys.stderr.write(f"\nRun '{command} --help' for more information\n")
        status = InvalidParameter.exit_code
    except click.Abort:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    except LogdError as error:
        for one in error.errors if isinstance(error, Several) else (error,):
            complain(one)
        status = error.exit_code
    except OSError as error:
        complain(error)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def complain(problem: object) -> None:
    """Say on stderr what is wrong."""
    sys.stdout.flush()
    text = "\n".join(map(visible, str(problem).splitlines()))
    write_all(STDERR_FD, f"logd: {text}\n".encode())


if __name__ == "__main__":
    main()
