"""What the tests of forwarding share: waiting, and the destination of the driver `probe`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).parent / "plugin"
PATIENCE_S = 60.0


def wait_until(check: Callable[[], Any], words: str = "") -> Any:
    """Return what `check` returns once that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := check()):
        assert time.monotonic() < deadline, f"it did not come true in {PATIENCE_S:.0f} s {words}"
        time.sleep(0.02)
    return found


class Probe:
    """A destination of the driver `probe`: the file that gets the lines, and its mood."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / f"{name}.lines"
        self.mood_file = folder / f"{name}.mood"

    def options(self, prefix: str = "") -> list[str]:
        opts = {"probe-file": self.file, "probe-mood": self.mood_file}
        return [word for name, value in opts.items() for word in ("--log-opt", f"{prefix}{name}={value}")]

    def behave(self, mood: str) -> None:
        self.mood_file.write_text(mood)

    def lines(self) -> list[tuple[str, int, bytes]]:
        """Return what has arrived: stream, position, line."""
        try:
            found = self.file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [(stream.decode(), int(at), line) for stream, at, line in (one.split(b" ", 2) for one in found)]

    def texts(self) -> list[str]:
        return [line.decode() for _, _, line in self.lines()]
