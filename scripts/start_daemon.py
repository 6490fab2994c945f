"""Start `logd daemon ARGS…` in the background and return when it is ready, or with what it said when it failed.

usage: start_daemon.py LOG-FILE COMMAND ARGS…    where COMMAND is the path of `logd`

Readiness is what the daemon itself says (sd_notify(3)); nothing is guessed from the time that passes.
"""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

START_TIMEOUT_S: Final = 60.0


def main() -> int:
    """Start it; return 0 when it is ready, else 1."""
    log_file, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"{folder}/notify")
        ear.settimeout(0.5)
        with open(log_file, "ab", buffering=0) as log:
            size = log.tell()
            daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"},
                start_new_session=True,
            )
        if _is_ready(daemon, ear):
            return 0
        sys.stderr.write(Path(log_file).read_bytes()[size:].decode(errors="replace"))
        sys.stderr.write(f"the daemon did not start (its log: {log_file})\n")
        return 1


def _is_ready(daemon: "subprocess.Popen[bytes]", ear: socket.socket) -> bool:
    waited = 0.0
    while daemon.poll() is None and waited < START_TIMEOUT_S:
        try:
            if b"READY=1" in ear.recv(4096).split(b"\n"):
                return True
        except TimeoutError:
            waited += 0.5
    return False


if __name__ == "__main__":
    sys.exit(main())
