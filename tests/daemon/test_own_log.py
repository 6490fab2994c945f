"""The daemon's own log: one line a record, whatever is in it; fields; repeats."""

import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from logd.daemon import ownlog

logger = logging.getLogger("test.ownlog")


def record(message: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "test", "levelno": level, "msg": message, "args": args, "created": 1.5, **extra}
    )


def test_a_text_record_is_one_line_of_logfmt() -> None:
    line = ownlog.TextFormatter().format(record("it %s", "ran", level=logging.WARNING, container="abc", note="a b"))
    assert line == 'time=1970-01-01T00:00:01.500000000Z level=warn msg="it ran" container=abc note="a b"'


@pytest.mark.parametrize(
    "hostile", ["a\nlevel=error msg=forged", "\x1b[2J", "\x9b31m", "a\rb", "\u202eevil", 'a"b\\', "\0"]
)
def test_control_characters_are_escaped_in_both_formats(hostile: str) -> None:
    text = ownlog.TextFormatter(timed=False).format(record("from outside: %s", hostile, name_=hostile))
    assert text.isprintable()
    assert text.startswith('level=info msg="from outside: ')
    line = ownlog.JSONFormatter().format(record("from outside: %s", hostile))
    assert line.isprintable()
    assert json.loads(line)["msg"] == f"from outside: {hostile}"


def test_an_exception_becomes_fields() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        line = ownlog.JSONFormatter().format(record("failed", exc_info=sys.exc_info()))
    fields = json.loads(line)
    assert fields["error"] == "ValueError: two\nlines"
    assert fields["traceback"].startswith("Traceback")


def test_a_message_that_repeats_is_held_back_and_counted() -> None:
    now = 0.0
    repeats = ownlog.RepeatFilter(lambda: now)
    passed = sum(repeats.filter(record("again %d", number)) for number in range(1000))
    assert passed == ownlog.REPEATS_PER_WINDOW
    assert repeats.filter(record("another"))
    now = ownlog.REPEAT_WINDOW_S
    after = record("again %d", 1000)
    assert repeats.filter(after)
    assert ownlog.fields_of(after) == {"suppressed": 1000 - ownlog.REPEATS_PER_WINDOW}


def test_a_receiver_that_stalls_does_not_stall_the_daemon_and_what_is_dropped_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    got = b""
    with os.fdopen(reading, "rb") as read, os.fdopen(writing, "w") as stalled:
        monkeypatch.setattr(sys, "stderr", stalled)
        own_log = ownlog.OwnLog("stderr", "text")
        own_log.set_level("info")
        for number in range(ownlog.QUEUE_RECORDS + 5000):
            logger.info(f"text {number}, unlike the one before it")
        while not own_log.idle():
            got += read.read(1 << 20) or b""
        logger.info("after it")
        own_log.close()
        got += read.read(1 << 20) or b""
    text = got.decode()
    lost = int(text.rpartition("lost=")[2])
    assert text.count("unlike") + lost == ownlog.QUEUE_RECORDS + 5000
    assert lost > 4000


def test_records_reach_syslog_with_priority_and_identifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.settimeout(5)
        monkeypatch.setattr(ownlog, "SYSLOG_SOCKET", str(tmp_path / "log"))
        own_log = ownlog.OwnLog("syslog", "text")
        own_log.set_level("info")
        logger.warning("bad %s", "thing", extra={"container": "abc"})
        got = receiver.recv(4096).decode()
        own_log.close()
    assert got == f'<28>logd[{os.getpid()}]: level=warn msg="bad thing" container=abc'


@pytest.mark.parametrize(
    ("terminal", "present", "expected"),
    [
        (True, {ownlog.JOURNALD_SOCKET}, "stderr"),
        (False, {ownlog.JOURNALD_SOCKET, ownlog.SYSLOG_SOCKET}, "journald"),
        (False, {ownlog.SYSLOG_SOCKET}, "syslog"),
        (False, set(), "stderr"),
    ],
)
def test_the_log_goes_where_it_is_read(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, present: set[str], expected: str
) -> None:
    class Stderr:
        def isatty(self) -> bool:
            return terminal

    def exists(path: Any) -> bool:
        return path in present

    monkeypatch.setattr(sys, "stderr", Stderr())
    monkeypatch.setattr(os.path, "exists", exists)
    assert ownlog.choose_destination("auto") == expected
    assert ownlog.choose_destination("syslog") == "syslog"
