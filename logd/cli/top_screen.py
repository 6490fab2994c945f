"""`logd top` on a terminal: the keyboard without its line editing, the other screen, and both given back at the end.

The daemon is asked in a thread, so that keys are obeyed while it does not answer.
"""

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from types import FrameType
from typing import Final

from rich.console import Console, Group
from rich.live import Live

from logd.cli.client import Client
from logd.cli.top_table import Order
from logd.cli.top_view import View, keys
from logd.cli.usage import Answer, ask
from logd.errors import LogdError

SOON_S: Final = 0.3
"""Between the first two answers, so that rates are seen soon."""
TROUBLE_S: Final = 1.0
"""A daemon that is away is asked again so often, if not more often."""
ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end it, after the terminal has been given back."""


def run(client: Client, delay_s: float, order: Order, *, every: bool) -> None:
    """Show the table until a key, or a signal, ends it."""
    view = View(order, every=every)
    with Wake() as wake:
        feed = Feed(client, delay_s, view, wake)
        feed.start()
        try:
            while _show(view, feed, wake) == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)  # the shell's, until it says to go on
        finally:
            feed.stop()
    if wake.ended_by is not None:
        signal.signal(wake.ended_by, signal.SIG_DFL)
        signal.raise_signal(wake.ended_by)


def _show(view: View, feed: "Feed", wake: "Wake") -> int:
    """Draw and obey keys until it is to end, or to be stopped for a while; return the signal that said so, 0: a key."""
    console = Console(highlight=False)
    poll = select.poll()
    poll.register(sys.stdin.fileno(), select.POLLIN)
    poll.register(wake.descriptor, select.POLLIN)
    with _keyboard(), Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False,
                           redirect_stderr=False, vertical_overflow="crop") as live:  # fmt: skip
        while True:
            feed.deliver()
            live.update(Group(*view.lines(console.width, console.height)), refresh=True)
            ready = dict(poll.poll(1000))  # each second at least: figures grow old
            if wake.descriptor in ready and (number := wake.clear()):
                return number
            if sys.stdin.fileno() in ready:
                data = os.read(sys.stdin.fileno(), 1024)
                if not data or not all(view.press(key) for key in keys(data)):
                    return 0


@contextlib.contextmanager
def _keyboard() -> Iterator[None]:
    """Have each key at once and unseen; signals of keys stay."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal may have gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Wake:
    """What ends a poll: signals, and the feed's `ring`. A context manager; the handlers before it are set again."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.ended_by: signal.Signals | None = None
        self._signal = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Wake":
        for number in (*ENDING, signal.SIGINT, signal.SIGTSTP, signal.SIGWINCH):
            self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        os.close(self._write)
        os.close(self.descriptor)

    def ring(self) -> None:
        """End a poll."""
        with contextlib.suppress(OSError):  # full: it rings anyway; closed: nobody polls any more
            os.write(self._write, b"\0")

    def clear(self) -> int:
        """Return the signal that has come, if it is one to leave the screen for, else 0."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        number, self._signal = self._signal, 0
        return number

    def _heard(self, number: int, _: FrameType | None) -> None:
        if number in ENDING:
            self.ended_by = signal.Signals(number)
        if number != signal.SIGWINCH and self._signal not in {*ENDING, signal.SIGINT}:
            self._signal = number
        self.ring()


class Feed(threading.Thread):
    """Asks the daemon again and again; the screen takes what it has with `deliver`."""

    def __init__(self, client: Client, delay_s: float, view: View, wake: Wake) -> None:
        super().__init__(name="feed", daemon=True)  # it may be waiting for an answer when the screen has ended
        self._client = client
        self._delay_s = delay_s
        self._view = view
        self._wake = wake
        self._stopped = threading.Event()
        self._news: Answer | LogdError | OSError | None = None
        self._answers = 0

    def run(self) -> None:
        """Ask until it is stopped."""
        delay_s = 0.0
        while not self._stopped.wait(delay_s):
            try:
                self._news = ask(self._client, every=self._view.every)
                self._answers += 1
                delay_s = min(SOON_S, self._delay_s) if self._answers == 1 else self._delay_s
            except (LogdError, OSError) as error:
                self._news = error
                delay_s = min(TROUBLE_S, self._delay_s)
            if not self._stopped.is_set():
                self._wake.ring()

    def deliver(self) -> None:
        """Give the view what has come since the last time."""
        news, self._news = self._news, None
        if isinstance(news, Exception):
            self._view.trouble = str(news)
        elif news is not None:
            self._view.take(news)

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
