"""The daemon's own log: structured records to journald, syslog or stderr, never a container's output.

A record's fields are what `extra` holds. Text is logfmt as dockerd writes it (`time=… level=info msg="…"`), with
control characters escaped: names and messages from outside must not forge lines or drive a terminal. A thread of its
own writes, so that a stalled journald never stalls the daemon; what does not fit into its queue is counted and told.
"""

import copy
import json
import logging
import logging.handlers
import os
import queue
import re
import sys
import time
from collections.abc import Callable
from typing import Final

from systemd import journal

from logd import units
from logd.logfields import fields_of

JOURNALD_SOCKET: Final = "/run/systemd/journal/socket"
SYSLOG_SOCKET: Final = "/dev/log"
QUEUE_RECORDS: Final = 10_000
REPEAT_WINDOW_S: Final = 10.0
REPEATS_PER_WINDOW: Final = 50
"""Of one message (its constant text) in a window; the rest is counted and told with the next one."""
CLOSE_TIMEOUT_S: Final = 2.0
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_LEVEL_NAMES: Final = {number: name for name, number in LEVELS.items()}
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""syslog(3)."""
_BARE: Final = re.compile(r"[A-Za-z0-9._/:@+,-]+", re.ASCII)
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quoted(value: object) -> str:
    """Return a logfmt value: bare where that is safe, else in quotes with everything unprintable escaped."""
    text = str(value)
    if _BARE.fullmatch(text):
        return text
    return '"' + "".join(_ESCAPES.get(one) or (one if one.isprintable() else _escape(one)) for one in text) + '"'


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def level_name(record: logging.LogRecord) -> str:
    """Return dockerd's word for the record's level."""
    return _LEVEL_NAMES.get(record.levelno, record.levelname.lower())


class TextFormatter(logging.Formatter):
    """logfmt, one line a record. `timed` is off where the receiver keeps the time."""

    def __init__(self, *, timed: bool = True) -> None:
        super().__init__()
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        pairs: dict[str, object] = {"time": _time(record)} if self._timed else {}
        pairs |= {"level": level_name(record), "msg": record.getMessage(), **fields_of(record)}
        return " ".join(f"{name}={quoted(value)}" for name, value in pairs.items())


class JSONFormatter(logging.Formatter):
    """One JSON object a line, with dockerd's keys level, msg, time."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline; only ASCII, so that nothing in it drives a terminal."""
        head = {"level": level_name(record), "msg": record.getMessage(), "time": _time(record)}
        return json.dumps(head | fields_of(record), default=str)


def _time(record: logging.LogRecord) -> str:
    return units.format_time(int(record.created * 1e6) * 1000)


class JournalHandler(logging.Handler):
    """Sends records to journald with their fields (systemd.journal-fields(7))."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            own = {re.sub(r"[^A-Z0-9_]", "_", name.upper()): str(value) for name, value in fields_of(record).items()}
            journal.send(
                record.getMessage(),
                PRIORITY=str(_PRIORITIES.get(record.levelno, 6)),
                SYSLOG_IDENTIFIER="logd",
                LOGGER=record.name,
                CODE_FILE=record.pathname,
                CODE_LINE=str(record.lineno),
                CODE_FUNC=record.funcName,
                **{name: value for name, value in own.items() if name and not name.startswith("_")},
            )
        except Exception:  # noqa: BLE001, RUF100 - logging must not raise; handleError says so on stderr
            self.handleError(record)


class RepeatFilter(logging.Filter):
    """Lets a message through a limited number of times in a window; errors with a traceback count like others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._window = clock()
        self._seen: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record goes out; the first after a silence says how many did not."""
        now = self._clock()
        key = record.name, record.levelno, str(record.msg)
        if now - self._window >= REPEAT_WINDOW_S:
            self._window = now
            self._seen = {
                one: REPEATS_PER_WINDOW - count for one, count in self._seen.items() if count > REPEATS_PER_WINDOW
            }
        count = self._seen.get(key, 0)
        if count < 0:
            record.suppressed = -count
            count = 0
        self._seen[key] = count + 1
        return count < REPEATS_PER_WINDOW


class _Queue(logging.handlers.QueueHandler):
    """Hands records to the writing thread, which formats them: an exception stays whole until then."""

    def __init__(self) -> None:
        self._records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_RECORDS)
        super().__init__(self._records)
        self._dropped = 0

    def is_empty(self) -> bool:
        return self._records.empty()

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if record.args:  # arguments may change before the thread comes to it
            record = copy.copy(record)
            record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1
            return
        if self._dropped and self._records.qsize() < QUEUE_RECORDS // 2:
            lost, self._dropped = self._dropped, 0
            logging.getLogger(__name__).warning(
                "log records dropped: the log's receiver is too slow", extra={"lost": lost}
            )


class OwnLog:
    """The set-up log. `close` writes what is queued, as far as that takes no more than two seconds."""

    def __init__(self, destination: str, log_format: str) -> None:
        self.destination = destination
        self._target = _handler(destination, log_format)
        self._handler = _Queue()
        self._handler.addFilter(RepeatFilter())
        self._listener = logging.handlers.QueueListener(self._handler.queue, self._target)
        self._listener.start()
        logging.getLogger().addHandler(self._handler)
        logging.captureWarnings(capture=True)

    def set_level(self, level: str) -> None:
        """Let records of `level` (dockerd's words) and above through."""
        logging.getLogger().setLevel(LEVELS[level])
        logging.getLogger("asyncio").setLevel(max(LEVELS[level], logging.INFO))

    def idle(self) -> bool:
        """Return whether all that was queued has been taken by the writing thread."""
        return self._handler.is_empty()

    def close(self) -> None:
        """Write what is queued and let go of the root logger."""
        logging.getLogger().removeHandler(self._handler)
        logging.captureWarnings(capture=False)
        thread = self._listener._thread  # noqa: SLF001, RUF100 - QueueListener.stop has no deadline
        self._listener.enqueue_sentinel()
        if thread is not None:
            thread.join(CLOSE_TIMEOUT_S)
        if thread is None or not thread.is_alive():
            self._target.close()


def choose_destination(wanted: str) -> str:
    """Return journald, syslog or stderr for `wanted`, which may be auto."""
    if wanted != "auto":
        return wanted
    if sys.stderr.isatty():
        return "stderr"
    if os.path.exists(JOURNALD_SOCKET):
        return "journald"
    return "syslog" if os.path.exists(SYSLOG_SOCKET) else "stderr"


def _handler(destination: str, log_format: str) -> logging.Handler:
    if destination == "journald":
        return JournalHandler()
    json_lines = log_format == "json"
    if destination == "syslog":
        facility = logging.handlers.SysLogHandler.LOG_DAEMON
        syslog = logging.handlers.SysLogHandler(SYSLOG_SOCKET, facility)
        syslog.ident = f"logd[{os.getpid()}]: "
        syslog.append_nul = False
        syslog.setFormatter(JSONFormatter() if json_lines else TextFormatter(timed=False))
        return syslog
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(JSONFormatter() if json_lines else TextFormatter())
    return stderr
