"""Run the OCI runtime's commands from a shim: create, start. `os.posix_spawn`, no subprocess module."""

import json
import os
import signal
from typing import Final

ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
LOG_NAME: Final = "runtime.log"
PID_FILE: Final = "init.pid"
DEFAULTED_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""Ignored by Python or by the shim; a container starts with them as they are by default."""
NOT_FOUND_EXIT: Final = 127
NOT_EXECUTABLE_EXIT: Final = 126
RUNTIME_FAILED_EXIT: Final = 128
"""Docker's code for a container that could not be started for another reason."""


def spawn(runtime: tuple[str, ...], exec_dir: str, arguments: list[str], stdio: tuple[int, int, int]) -> int:
    """Start a runtime command with these descriptors as 0, 1, 2; return its pid. Raises OSError if it can't be run."""
    log = ["--log", os.path.join(exec_dir, LOG_NAME), "--log-format", "json"]
    argv = [*runtime, *log, *arguments]
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(stdio)]
    return os.posix_spawn(
        argv[0], argv, ENVIRONMENT, file_actions=actions, setsigdef=DEFAULTED_SIGNALS, setsigmask=(), setpgroup=0
    )


def create_arguments(container_id: str, exec_dir: str) -> list[str]:
    """Return the verb and options that create a container from the bundle in `exec_dir`."""
    return ["create", "--bundle", exec_dir, "--pid-file", os.path.join(exec_dir, PID_FILE), container_id]


def failure(exec_dir: str, verb: str, status: int) -> tuple[str, int]:
    """Return (message, Docker's exit code) for a runtime command that ended with this wait status."""
    message = _last_error(os.path.join(exec_dir, LOG_NAME)) or f"runtime {verb} ended with status {status}"
    text = f"failed to create task for container: OCI runtime {verb} failed: {message}"
    if "executable file not found" in message or "no such file or directory" in message:
        return text, NOT_FOUND_EXIT
    if "permission denied" in message or "is a directory" in message:
        return text, NOT_EXECUTABLE_EXIT
    return text, RUNTIME_FAILED_EXIT


def _last_error(path: str) -> str | None:
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
