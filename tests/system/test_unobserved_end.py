"""Through the unmodified docker command line: a container that ends while none of our processes lives to see it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

GAPS = [["stdout", 7, 0, "crash"], ["stderr", 0, 0, "crash"]]
"""Of a container that wrote `before`: stream, position, bytes (not known how many), reason."""


def wait_until(condition: Any, what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Tell whether a process runs no more, though its parent may not have reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in b"ZX"
    except OSError:
        return True


def is_reaped(pid: int) -> bool:
    """Tell whether a process has ended and nobody can ask any more how."""
    return not Path(f"/proc/{pid}").exists()


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a shim's errand
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, pids)), "a killed process stays")


def helpers(daemon: Any) -> list[int]:
    """Return the pids of keeper, zygotes and shims."""
    found = []
    for pid in daemon.processes():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("logd-"):
                found.append(pid)
    return found


def run_watched(daemon: Any, name: str, script: str, *options: str) -> int:
    """Run a shell script that first says `before`; return its pid once that is stored."""
    daemon.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", f"echo before; {script}")
    wait_until(lambda: daemon.docker("logs", name).stdout == "before\n", "the output is not stored")
    return int(daemon.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)


def logs_json(daemon: Any, name: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "logd.cli.logs", "--json", name]
    environment = {**os.environ, "LOGD_HOST": daemon.host}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


def gaps(daemon: Any, name: str) -> list[list[Any]]:
    status = daemon.get(f"/logd/containers/{name}/log")
    return [[gap["stream"], gap["position"], gap["length"], gap["reason"]] for gap in status["gaps"]]


def test_a_container_that_ends_with_all_of_our_processes_dead_has_a_log_that_says_it_lacks_its_end(
    busybox: Any, tmp_path: Path
) -> None:
    volume = ("-v", f"{tmp_path}:/w")
    pid = run_watched(busybox, "alone", "until [ -e /w/go ]; do sleep 0.05; done; echo after; exit 3", *volume)
    pids = helpers(busybox)
    busybox.kill()
    kill_all(pids)
    (tmp_path / "go").touch()
    wait_until(lambda: is_reaped(pid), "the container goes on")
    busybox.start()

    state = json.loads(busybox.docker("inspect", "-f", "{{json .State}}", "alone").stdout)
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    assert "unknown" in state["Error"]
    logs = busybox.docker("logs", "alone")
    assert logs.stdout == "before\n"
    words = ["logd: bytes of stdout are missing (crash)", "logd: bytes of stderr are missing (crash)"]
    assert logs.stderr.splitlines() == words
    shown = logs_json(busybox, "alone")
    assert "before" in shown.stdout
    assert [line.endswith("missing here: crash") for line in shown.stderr.splitlines()] == [True, True]
    assert gaps(busybox, "alone") == GAPS
    assert "crash" in busybox.logd("log", "status", "alone").stdout
    assert busybox.logd("log", "fsck", "alone", check=False).returncode == 0

    busybox.restart()
    assert gaps(busybox, "alone") == GAPS, "noted again by the next daemon"
    busybox.docker("start", "alone")
    assert busybox.docker("wait", "alone").stdout.strip() == "3"
    assert busybox.docker("logs", "alone").stdout == "before\nbefore\nafter\n"
    assert gaps(busybox, "alone") == GAPS


def test_a_container_that_ends_before_a_lost_shim_was_replaced_has_the_gap_too(busybox: Any) -> None:
    pid = run_watched(busybox, "left", "exec sleep 600")
    pids = helpers(busybox)
    os.kill(busybox.process.pid, signal.SIGSTOP)  # so that it can't have anything replaced in time
    try:
        kill_all(pids)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_reaped(pid), "the container goes on")
    finally:
        os.kill(busybox.process.pid, signal.SIGCONT)
    assert busybox.docker("wait", "left").stdout.strip() == "255"
    assert gaps(busybox, "left") == GAPS


def test_an_end_that_a_shim_has_seen_without_a_daemon_is_no_gap(busybox: Any, tmp_path: Path) -> None:
    volume = ("-v", f"{tmp_path}:/w")
    run_watched(busybox, "seen", "until [ -e /w/go ]; do sleep 0.05; done; echo after; exit 3", *volume)
    keeper_and_shims = helpers(busybox)
    busybox.kill()
    (tmp_path / "go").touch()
    wait_until(lambda: not helpers(busybox), "keeper and shim go on")
    assert keeper_and_shims
    busybox.start()
    assert busybox.docker("inspect", "-f", "{{.State.ExitCode}}", "seen").stdout.strip() == "3"
    assert busybox.docker("logs", "seen").stderr == ""
    assert gaps(busybox, "seen") == []


@pytest.mark.parametrize("holds", [True, False], ids=["lock held", "lock free"])
def test_a_log_that_someone_else_writes_is_left_to_that_one(busybox: Any, holds: bool) -> None:
    pid = run_watched(busybox, "shared", "exec sleep 600")
    pids = helpers(busybox)
    busybox.kill()
    kill_all([*pids, pid])
    wait_until(lambda: is_reaped(pid), "nobody reaps the container")
    (folder,) = (busybox.data_root / "containers").glob("*/log")
    with (folder / "lock").open() as lock:
        if holds:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        busybox.start()
        assert busybox.docker("inspect", "-f", "{{.State.ExitCode}}", "shared").stdout.strip() == "255"
        assert gaps(busybox, "shared") == ([] if holds else GAPS)
