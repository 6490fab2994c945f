"""`logs` and `logd` against the real daemon with real containers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cli_peer import Logs

PRINTER = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done; printf end"


class Both:
    """`logs` and `logd` on a daemon with busybox."""

    def __init__(self, daemon: Any) -> None:
        self.daemon = daemon
        self.logs = Logs(daemon.host)

    def logd(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "logd.cli.main", *arguments]
        environment = {**os.environ, "LOGD_HOST": self.daemon.host}
        return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False, **options)

    def run(self, name: str, script: str, *options: str) -> str:
        done = self.logd("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def run_to_the_end(self, name: str, script: str, *options: str) -> str:
        identity = self.run(name, script, *options)
        assert self.logs("-f", name).returncode == 0
        return identity


@pytest.fixture
def both(shared_busybox: Any) -> Iterator[Both]:
    both = Both(shared_busybox)
    yield both
    both.logs.close()
    if names := both.logd("ps", "-aq").stdout.decode().split():
        both.logd("rm", "-f", *names)


def test_a_log_comes_back_byte_for_byte_on_its_streams(both: Both) -> None:
    script = r"printf 'a\000b\r\n\377\376no end'; printf 'e\033[31m\n' >&2"
    both.run_to_the_end("exact", script)
    done = both.logs("exact")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\0b\r\n\xff\xfeno end", b"e\x1b[31m\n")


def test_two_megabytes_come_back_whole(both: Both) -> None:
    both.run_to_the_end("large", "seq 300000")
    assert both.logs("large").stdout == b"".join(b"%d\n" % number for number in range(1, 300_001))


def test_every_cursor_resumes_exactly(both: Both) -> None:
    both.run_to_the_end("cursors", PRINTER)
    lines = both.logs("--json", "cursors").stdout.splitlines(keepends=True)
    assert len(lines) == 11
    for index, line in enumerate(lines):
        rest = both.logs("--json", "--after", json.loads(line)["cursor"], "cursors")
        assert rest.stdout == b"".join(lines[index + 1 :])


def test_a_cursor_of_a_tail_knows_both_streams(both: Both) -> None:
    both.run_to_the_end("tail", PRINTER)
    last = both.logs("--json", "-n", "1", "tail").stdout
    assert json.loads(last)["line"] == "end"
    assert both.logs("--json", "--after", json.loads(last)["cursor"], "tail").stdout == b""


def test_tail_since_until_grep_and_stream_choose_lines(both: Both) -> None:
    both.run_to_the_end("chosen", "echo one; sleep 0.3; echo two >&2; echo three")
    lines = [json.loads(line) for line in both.logs("--json", "chosen").stdout.splitlines()]
    later = lines[1]["time"]
    assert sorted(both.logs("--since", later, "chosen").stdout.split()) == [b"three"]
    assert both.logs("--since", later, "--stream", "stderr", "chosen").stderr == b"two\n"
    assert both.logs("--until", later, "chosen").stdout == b"one\n"
    assert both.logs("-n", "1", "--stream", "stdout", "chosen").stdout == b"three\n"
    assert both.logs("--grep", "^t.r", "chosen").stdout == b"three\n"
    stamp, text = both.logs("-t", "--grep", "^one$", "chosen").stdout.split()
    assert (stamp.decode(), text) == (lines[0]["time"], b"one")


def test_several_containers_are_merged_by_time(both: Both) -> None:
    both.run("first", "for i in 1 2 3 4; do echo f$i; sleep 0.1; done", "-l", "app=merge")
    both.run("second", "for i in 1 2 3 4; do echo s$i; sleep 0.1; done", "-l", "app=merge")
    done = both.logs("-f", "first", "second")
    by_time = sorted(
        (json.loads(line)["time"], json.loads(line)["name"], json.loads(line)["line"])
        for line in both.logs("--json", "first", "second").stdout.splitlines()
    )
    expected = "".join(f"{name} | {line}\n" for _, name, line in by_time).encode()
    assert done.stdout == expected
    assert both.logs("-l", "app=merge").stdout == expected
    assert both.logs("fir*", "second").stdout == expected


def test_a_follower_sees_a_line_soon_and_the_end(both: Both) -> None:
    both.run("followed", "echo ready; sleep 0.5; echo last")
    with both.logs.popen("-f", "followed", stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.stdout.read() == b"last\n"
        assert process.wait(20) == 0


def test_a_container_that_starts_later_joins_all(both: Both) -> None:
    with both.logs.popen("-f", "--all", stdout=-1) as process:
        assert process.stdout is not None
        time.sleep(0.3)  # it may be listening by now or not: both must do
        both.run("later", "echo here; sleep 0.5")
        assert process.stdout.readline() == b"later | here\n"
        process.send_signal(signal.SIGINT)


def test_a_bad_pattern_and_an_unknown_name_are_told_in_the_daemons_words(both: Both) -> None:
    both.run_to_the_end("pattern", "true")
    done = both.logs("--grep", "(", "pattern")
    assert done.returncode == 1
    assert b"grep: invalid regular expression '('" in done.stderr
    assert both.logs("no-such-container").stderr == b"logs: No such container: no-such-container\n"


def test_run_gives_every_byte_and_the_exit_code(both: Both) -> None:
    for _ in range(5):
        done = both.logd("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert both.logd("ps", "-aq").stdout == b""


def test_run_carries_stdin_both_ways(both: Both) -> None:
    data = os.urandom(3_000_000)
    done = both.logd("run", "--rm", "-i", "busybox", "cat", input=data)
    assert (done.returncode, done.stdout == data) == (0, True)


def test_run_has_dockers_exit_codes_for_what_does_not_start(both: Both) -> None:
    assert both.logd("run", "--rm", "busybox", "no-such-program").returncode == 127
    assert both.logd("run", "--rm", "busybox", "/etc").returncode == 126
    assert both.logd("run", "no-such-image").returncode == 125


def test_an_interrupt_of_a_foreground_run_reaches_the_container(both: Both) -> None:
    script = "trap 'echo got it; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    command = [
        sys.executable,
        "-m",
        "logd.cli.main",
        "-H",
        both.daemon.host,
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        script,
    ]
    with subprocess.Popen(command, stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"got it\n"
        assert process.wait(20) == 5


def test_the_life_of_a_container_by_hand(both: Both) -> None:
    both.run("life", "sleep 1000", "-m", "64m", "-e", "A=b", "-w", "/tmp", "-u", "nobody")
    row = both.logd("ps").stdout.decode().splitlines()[1]
    assert "Up " in row
    assert row.endswith("life")
    assert both.logd("stop", "-t", "0", "life").stdout == b"life\n"
    assert both.logd("ps", "-q").stdout == b""
    details = json.loads(both.logd("inspect", "life").stdout)[0]
    assert (details["State"]["ExitCode"], details["HostConfig"]["Memory"]) == (137, 64 << 20)
    assert both.logd("start", "life").returncode == 0
    assert both.logd("rm", "life").returncode == 1
    assert both.logd("rm", "-f", "life").stdout == b"life\n"


def test_status_du_and_clear_tell_the_truth(both: Both) -> None:
    identity = both.run_to_the_end("kept", "seq 1000 | head -c 3000; printf 12345 >&2")
    state = json.loads(both.logd("log", "status", "--format", "json", "kept").stdout)
    assert (state["id"], state["streams"]["stdout"]["position"], state["streams"]["stderr"]["stored"]) == (
        identity,
        3000,
        5,
    )
    assert b"3kB" in both.logd("log", "status", "kept").stdout
    report = json.loads(both.logd("log", "du", "--format", "json").stdout)
    assert (report["name"], report["bytes"] > 3000) == ("kept", True)
    assert both.logd("log", "clear", "kept").returncode == 0
    assert both.logs("kept").stdout == b""
    cleared = json.loads(both.logd("log", "status", "--format", "json", "kept").stdout)
    assert cleared["streams"]["stdout"]["cleared"] == 3000


def test_fsck_says_that_logs_are_whole(both: Both) -> None:
    both.run_to_the_end("whole", "echo x")
    done = both.logd("log", "fsck", "whole")
    assert (done.returncode, done.stdout) == (0, b"whole: whole, 2B\n")


def test_a_follower_goes_on_over_a_restart_of_the_daemon(make_daemon: Any, busybox_tar: bytes) -> None:
    daemon = make_daemon().start()
    both = Both(daemon)
    assert both.logd("import", "-", "busybox", input=busybox_tar).returncode == 0
    both.run("steady", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done")
    with both.logs.popen("-f", "steady", stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        daemon.kill()
        daemon.start()
        rest, errors = process.stdout.read(), process.stderr.read()
        assert process.wait(30) == 0
    assert (first + rest).splitlines() == [b"line %d" % number for number in range(300)]
    assert errors == b""
