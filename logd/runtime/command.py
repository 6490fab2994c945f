"""Run the OCI runtime's commands from an errand of a shim. `os.posix_spawn`, no subprocess module."""

import json
import os
import select
import signal
from typing import Final

from logd.runtime.protocol import Launch

ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
EXEC_ENVIRONMENT: Final = {**ENVIRONMENT, "GOMAXPROCS": "1"}
"""One thread that runs Go code: runc's exec then takes 15 ms of CPU and not 18. The container sees none of it."""
LOG_NAME: Final = "runtime.log"
PID_FILE: Final = "init.pid"
DEFAULTED_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Ignored by keeper and shim; a container starts with them as they are by default."""
TIMEOUT_S: Final = 120.0
NOT_FOUND_EXIT: Final = 127
NOT_EXECUTABLE_EXIT: Final = 126
RUNTIME_FAILED_EXIT: Final = 128
"""Docker's code for a container that could not be started for another reason."""


def spawn(launch: Launch, arguments: list[str], stdio: tuple[int, int, int]) -> int:
    """Start a runtime command with these descriptors as 0, 1, 2; return its pid. Raises OSError if it can't be run."""
    return spawn_in(launch.exec_dir, launch.runtime, arguments, stdio, ENVIRONMENT)


def spawn_in(
    folder: str,
    runtime: tuple[str, ...],
    arguments: list[str],
    stdio: tuple[int, int, int],
    environment: dict[str, str],
) -> int:
    """Do the same with any runtime, whose log goes to `folder`."""
    argv = [*runtime, "--log", os.path.join(folder, LOG_NAME), "--log-format", "json", *arguments]
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(stdio)]
    return os.posix_spawn(
        argv[0], argv, environment, file_actions=actions, setsigdef=DEFAULTED_SIGNALS, setsigmask=(), setpgroup=0
    )


def wait(child: int) -> int:
    """Wait for a command, killing it after TIMEOUT_S; return its wait status."""
    opened = os.pidfd_open(child)
    try:
        if not select.select([opened], [], [], TIMEOUT_S)[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(opened)
    return os.waitpid(child, 0)[1]


def run(launch: Launch, arguments: list[str], stdout: int | None = None) -> int:
    """Run a command to its end; return its wait status."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    child = spawn(launch, arguments, (null, null if stdout is None else stdout, null))
    os.close(null)
    return wait(child)


def create_arguments(launch: Launch, console_path: str = "") -> list[str]:
    """Return the verb and options that create the container from its bundle; its terminal's master goes to a socket."""
    pid_file = os.path.join(launch.exec_dir, PID_FILE)
    console = ["--console-socket", console_path] if console_path else []
    return ["create", "--bundle", launch.exec_dir, "--pid-file", pid_file, *console, launch.container_id]


def start(launch: Launch) -> int:
    """Let PID 1 run the container's command; return the runtime's wait status."""
    return run(launch, ["start", launch.container_id])


def is_created(launch: Launch) -> bool:
    """Ask the runtime whether the container still waits to be started."""
    reading, writing = os.pipe()
    run(launch, ["state", launch.container_id], writing)  # far less than a pipe holds
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        state = file.read()
    return '"status": "created"' in state or '"status":"created"' in state


def failure(exec_dir: str, verb: str, status: int) -> tuple[str, int]:
    """Return (message, Docker's exit code) for a runtime command that ended with this wait status."""
    message = last_error(os.path.join(exec_dir, LOG_NAME)) or f"runtime {verb} ended with status {status}"
    return f"failed to create task for container: OCI runtime {verb} failed: {message}", exit_code(message)


def exit_code(message: str) -> int:
    """Return Docker's exit code for what a runtime complained of when it should have run a command."""
    words = message.lower()  # crun writes capitals
    if any(one in words for one in ("executable file not found", "no such file or directory", "not a directory")):
        return NOT_FOUND_EXIT
    if "permission denied" in words or "is a directory" in words:
        return NOT_EXECUTABLE_EXIT
    return RUNTIME_FAILED_EXIT


def last_error(path: str) -> str | None:
    """Return the last complaint in a runtime's log, None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("level") in ("error", "fatal"):
            return str(entry.get("msg"))
    return None
