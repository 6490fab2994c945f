"""Our terminal while it stands for one in a container: raw, so that every key goes there, and of the same size."""

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final

STDIN_FD: Final = 0


def size() -> tuple[int, int]:
    """Return rows and columns of our terminal, (0, 0) without one."""
    try:
        return termios.tcgetwinsize(STDIN_FD)
    except (OSError, termios.error):
        return (0, 0)


@contextlib.contextmanager
def raw_terminal(resized: Callable[[], object]) -> Iterator[None]:
    """Make our terminal raw as long as this lasts; `resized` is called, in a signal handler, when its size changes."""
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: resized())
    try:
        if not os.isatty(STDIN_FD):
            yield
            return
        settings = termios.tcgetattr(STDIN_FD)
        try:
            tty.setraw(STDIN_FD, termios.TCSANOW)  # what was typed ahead stays
            yield
        finally:
            termios.tcsetattr(STDIN_FD, termios.TCSADRAIN, settings)
    finally:
        signal.signal(signal.SIGWINCH, before)
