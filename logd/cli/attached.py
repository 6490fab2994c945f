"""What lies between a container and who is attached to it: its streams or its terminal, signals, its exit code."""

import contextlib
import json
import os
import signal
import sys
from typing import Final

from logd.cli.client import Broken, Client, Response, quote
from logd.cli.foreground import carry
from logd.cli.interrupts import Waiter
from logd.cli.raw_terminal import STDIN_FD, raw_terminal, size
from logd.errors import InvalidParameter, LogdError

UPGRADE: Final = {"Upgrade": "tcp", "Connection": "Upgrade"}
FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
EXIT_DAEMON: Final = 125  # Docker's: the container could not be run at all


def check_input(*, interactive: bool, terminal: bool) -> None:
    """Refuse to type from a pipe into a terminal, as docker does. Raises InvalidParameter."""
    if interactive and terminal and not os.isatty(STDIN_FD):
        raise InvalidParameter("the input device is not a TTY (leave -t out)")


def follow(
    client: Client,
    identity: str,
    attached: Response,
    waiting: Response,
    *,
    interactive: bool,
    terminal: bool,
    sig_proxy: bool = True,
) -> int:
    """Carry the streams until the container ends, and return its exit code; or 0 once its terminal has been left.

    `waiting` is the answer to a request that waits for its exit. Without `sig_proxy` signals end this command alone.
    """
    waiter = Waiter()
    if not terminal:
        if sig_proxy:
            forward_signals(client, identity)
        carry(attached, waiter, interactive=interactive)
    else:
        resize(client, identity)
        with raw_terminal(lambda: resize(client, identity)):
            carry(attached, waiter, interactive=interactive, multiplexed=False)
        if _runs(client, identity):
            sys.stderr.write(f"\nlogd: left; the container goes on: logd attach {identity[:12]}\n")
            return 0
    waiter.wait(waiting)
    return _exit_code(waiting, identity)


def forward_signals(client: Client, identity: str) -> None:
    """Hand signals to the container, as Docker's --sig-proxy does: it decides what Ctrl-C means."""

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(LogdError):  # it has just ended
            client.request("POST", f"/containers/{quote(identity)}/kill", {"signal": number}).close()

    for number in FORWARDED:
        signal.signal(number, forward)


def resize(client: Client, identity: str) -> None:
    """Give the container's terminal the size of ours."""
    rows, columns = size()
    if rows and columns:
        with contextlib.suppress(LogdError):  # it has just ended
            client.request("POST", f"/containers/{quote(identity)}/resize", {"h": rows, "w": columns}).close()


def _runs(client: Client, identity: str) -> bool:
    try:
        state = client.json("GET", f"/containers/{quote(identity)}/json")["State"]
    except LogdError:  # it has been removed
        return False
    return bool(state["Running"] and not state["Restarting"])


def _exit_code(waiting: Response, identity: str) -> int:
    try:
        answer = json.loads(waiting.read())
    except (Broken, ValueError) as error:
        failed = LogdError(f"lost the daemon; the container goes on: logd logs -f {identity[:12]}")
        failed.exit_code = EXIT_DAEMON
        raise failed from error
    message = (answer.get("Error") or {}).get("Message")
    if message:
        sys.stderr.write(f"logd: {message}\n")
    return int(answer["StatusCode"])
