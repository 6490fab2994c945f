"""A pseudo-terminal of which the test is the screen."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from typing import Any

ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


class Screen:
    """A terminal. `text` is what has been sent to it, with its line ends as a program wrote them."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.text = b""

    def read_until(self, wanted: bytes, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} did not come: {self.text[-4000:]!r}"
            self.text += os.read(self.master, 65536).replace(b"\r\n", b"\n")

    def read_all(self, process: subprocess.Popen[bytes]) -> bytes:
        """Read until the process has ended and all is read."""
        deadline = time.monotonic() + 20
        while process.poll() is None:  # one that waits for its output to be read would not end
            assert time.monotonic() < deadline, "it did not end"
            if select.select([self.master], [], [], 0.02)[0]:
                self.text += os.read(self.master, 65536).replace(b"\r\n", b"\n")
        os.write(self.slave, b"\x04END")
        self.read_until(b"\x04END")
        return self.text.removesuffix(b"\x04END")

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def settings(self) -> list[Any]:
        """Return what stty would show."""
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def plain(text: bytes) -> str:
    """Return the text without escape sequences."""
    return ESCAPE.sub(b"", text).decode()
