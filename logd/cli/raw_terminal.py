"""Our terminal while it stands for one in a container: raw, so that every key goes there, and of the same size."""

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

STDIN_FD: Final = 0
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def size() -> tuple[int, int]:
    """Return rows and columns of our terminal, (0, 0) without one."""
    try:
        return termios.tcgetwinsize(STDIN_FD)
    except (OSError, termios.error):
        return (0, 0)


@contextlib.contextmanager
def raw_terminal(resized: Callable[[], object]) -> Iterator[None]:
    """Make our terminal raw as long as this lasts; `resized` is called, in a signal handler, when its size changes.

    A signal that ends this process does so by SystemExit, so that the terminal is restored.
    """
    handlers: dict[signal.Signals, Callable[[int, object], object]] = dict.fromkeys(ENDING, _end)
    handlers[signal.SIGWINCH] = lambda _number, _frame: resized()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
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
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
