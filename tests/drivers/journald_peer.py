"""A real systemd-journald in a mount namespace of its own, with a /run of its own."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROGRAM = "/lib/systemd/systemd-journald"
READY_S = 20.0
SETTINGS = {
    "Storage": "volatile",
    "ReadKMsg": "no",
    "Audit": "no",
    "RateLimitIntervalSec": "0",
    "ForwardToSyslog": "no",
    "ForwardToWall": "no",
}
SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal /run/systemd/journald.conf.d /run/systemd/units
mount --bind "$1/sockets" /run/systemd/journal
mount --bind "$1/log" /run/log/journal
mount --bind "$1/units" /run/systemd/units
cp "$1/journald.conf" /run/systemd/journald.conf.d/test.conf
exec "$2"
"""


class Journald:
    """Runs from `start` to `stop`; a restarted one goes on in the same journal."""

    def __init__(self, folder: Path, **settings: str) -> None:
        assert shutil.which("journalctl"), "journalctl is not installed (Debian: systemd)"
        assert Path(PROGRAM).exists(), f"{PROGRAM} is not installed (Debian: systemd)"
        self.folder = folder
        self.socket = folder / "sockets" / "socket"
        for name in ("sockets", "log", "units"):
            (folder / name).mkdir(parents=True)
        lines = [f"{name}={value}" for name, value in {**SETTINGS, **settings}.items()]
        (folder / "journald.conf").write_text("\n".join(["[Journal]", *lines, ""]))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", SCRIPT, "sh", str(self.folder), PROGRAM],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self.is_listening)

    def is_listening(self) -> bool:
        assert self.process
        assert self.process.poll() is None, "systemd-journald has ended"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def kill(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)  # it may have been stopped
            self.process.wait(READY_S)
            self.process = None

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """The entries in the order in which journald took them, with those fields."""
        argv = ["journalctl", "-D", str(self.folder / "log"), "-o", "json", "--all", "--no-pager", "-q", *matches]
        done = subprocess.run(argv, capture_output=True, check=True, env={**os.environ, "SYSTEMD_COLORS": "0"})
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextlib.contextmanager
def journald(folder: Path, **settings: str) -> Iterator[Journald]:
    running = Journald(folder, **settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def message(entry: dict[str, Any]) -> bytes:
    """MESSAGE: text, or an array of bytes where it is not printable UTF-8."""
    value = entry.get("MESSAGE", "")
    return bytes(value) if isinstance(value, list) else str(value).encode()


def until(condition: Callable[[], bool], limit_s: float = READY_S) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
