"""What is said to the service manager: sd_notify(3), and the sockets and watchdog that it hands over.

The variables are taken out of the environment, so that no child speaks or listens in the daemon's name.
"""

import logging
import os
import socket
import time
from typing import Final

LOG = logging.getLogger(__name__)
LISTEN_FDS_START: Final = 3
"""sd_listen_fds(3)."""


class Notifier:
    """The connection to $NOTIFY_SOCKET; without one, nothing is said."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog()

    def send(self, *lines: str) -> None:
        """Send assignments such as READY=1. A service manager that does not listen is no reason to fail."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as one:
                one.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            LOG.warning("the service manager was not told: %s", error, extra={"state": lines[0]})

    def ready(self, status: str) -> None:
        """Say that requests are served."""
        self.send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the settings are being read again; `ready` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Reloading")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self.send("STOPPING=1", "STATUS=Stopping; containers go on")

    def extend(self, seconds: float, status: str) -> None:
        """Ask for more time to start or stop."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", f"STATUS={status}")


def _watchdog() -> float:
    """Return how often the watchdog wants to hear of us, in seconds: half its limit; 0 for never."""
    limit, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not limit.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(limit) / 2e6


def activated_sockets() -> list[socket.socket]:
    """Return the listening sockets of socket activation; they are the daemon's from now on."""
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not count.isdecimal() or pid != str(os.getpid()):
        return []
    found = []
    for descriptor in range(LISTEN_FDS_START, LISTEN_FDS_START + int(count)):
        os.set_inheritable(descriptor, False)
        found.append(socket.socket(fileno=descriptor))
    return found
