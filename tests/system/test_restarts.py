"""Restart policies through the unmodified docker command line, over exits, daemons and boots."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

ONCE = "echo run; [ -e /ran ] && exec sleep 600; touch /ran; exit 3"
"""Ends at its first run only."""
LOOP = "echo run; exit 3"


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def look(daemon: Any, name: str) -> dict[str, Any]:
    """Return a container's state, with the count of its restarts."""
    found: dict[str, Any] = json.loads(daemon.docker("inspect", name).stdout)[0]
    return {**found["State"], "RestartCount": found["RestartCount"]}


def status(daemon: Any, name: str) -> str:
    return str(look(daemon, name)["Status"])


def run(daemon: Any, name: str, script: str, *options: str) -> None:
    daemon.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)


@pytest.fixture
def daemon(emptied_busybox: Any) -> Any:
    return emptied_busybox


def test_on_failure_restarts_its_number_of_times_and_the_log_and_the_events_have_all_runs(daemon: Any) -> None:
    since = str(time.time())
    run(daemon, "web", LOOP, "--restart", "on-failure:2")
    wait_until(lambda: status(daemon, "web") == "exited", "it goes on")
    found = look(daemon, "web")
    assert (found["RestartCount"], found["ExitCode"], found["Restarting"]) == (2, 3, False)
    assert daemon.docker("logs", "web").stdout == "run\n" * 3
    until = ["--since", since, "--until", str(time.time()), "--filter", "container=web"]
    events = daemon.docker("events", *until, "--format", "{{.Action}}").stdout.split()
    assert events == ["create", *["start", "die"] * 3]


def test_who_waits_shows_as_restarting_and_stop_and_start_are_obeyed(daemon: Any) -> None:
    run(daemon, "web", LOOP, "--restart", "always")
    listing = ["ps", "--filter", "status=restarting", "--format", "{{.Names}}: {{.Status}}"]
    wait_until(lambda: "web: Restarting (3) " in daemon.docker(*listing).stdout, "it does not show as restarting")
    wait_until(lambda: look(daemon, "web")["Restarting"], "it does not wait")
    found = {}
    while not found.get("Restarting"):  # one look, since it goes on meanwhile
        found = look(daemon, "web")
    assert (found["Status"], found["Running"], found["Pid"], found["ExitCode"]) == ("restarting", True, 0, 3)
    wait_until(lambda: look(daemon, "web")["RestartCount"] >= 3, "it is not restarted again and again")
    daemon.docker("stop", "web")
    found = look(daemon, "web")
    assert (found["Status"], found["ExitCode"], found["Running"]) == ("exited", 3, False)
    assert found["RestartCount"] >= 3
    daemon.docker("start", "web")
    assert look(daemon, "web")["RestartCount"] < 3
    daemon.docker("rm", "-f", "web")
    assert daemon.docker("ps", "-aq").stdout == ""


def test_a_follower_ends_with_the_run_as_with_dockerd_and_wait_answers_the_exit(daemon: Any) -> None:
    run(daemon, "web", "echo run; read line; exit 3", "-i", "--restart", "unless-stopped")
    follower = daemon.docker_popen("logs", "-f", "web", stdout=subprocess.PIPE, text=True)
    assert follower.stdout.readline() == "run\n"
    waiter = daemon.docker_popen("wait", "web", stdout=subprocess.PIPE, text=True)
    with daemon.docker_popen("attach", "web", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as client:
        client.stdin.write(b"\n")
        client.stdin.flush()
        assert follower.communicate(timeout=30)[0] == ""
    assert waiter.communicate(timeout=30)[0] in {"3\n", ""}
    wait_until(lambda: daemon.docker("logs", "web").stdout == "run\nrun\n", "it does not run again")


def test_update_changes_the_policy_of_what_runs(daemon: Any) -> None:
    run(daemon, "web", LOOP, "--restart", "always")
    daemon.docker("update", "--restart", "on-failure:1", "web")
    wait_until(lambda: status(daemon, "web") == "exited", "it goes on")
    shown = daemon.docker("inspect", "-f", "{{json .HostConfig.RestartPolicy}}", "web").stdout
    assert json.loads(shown) == {"Name": "on-failure", "MaximumRetryCount": 1}
    refused = daemon.docker("update", "--restart", "always", "--memory", "1k", "web", check=False)
    assert "Minimum memory limit allowed is 6MB" in refused.stderr
    assert json.loads(daemon.docker("inspect", "-f", "{{json .HostConfig.RestartPolicy}}", "web").stdout) == json.loads(
        shown
    )
    refused = daemon.docker("run", "--restart", "always:3", "busybox", check=False)
    assert "maximum retry count can only be used with 'on-failure'" in refused.stderr


def test_what_ended_while_the_daemon_was_down_is_treated_as_if_it_had_been_seen(daemon: Any, tmp_path: Any) -> None:
    script = "[ -e /ran ] && exec sleep 600; touch /ran; until [ -e /w/go ]; do sleep 0.05; done; exit "
    policies = {"failed": ("on-failure", 7), "fine": ("on-failure", 0), "always": ("always", 0), "no": ("no", 7)}
    for name, (policy, code) in policies.items():
        run(daemon, name, f"{script}{code}", "--restart", policy, "-v", f"{tmp_path}:/w")
    run(daemon, "looping", LOOP, "--restart", "always")
    run(daemon, "running", "exec sleep 600", "--restart", "always")
    run(daemon, "stopped", "exec sleep 600", "--restart", "always")
    run(daemon, "left", "exec sleep 600", "--restart", "unless-stopped")
    daemon.docker("kill", "stopped", "left")
    wait_until(lambda: look(daemon, "looping")["RestartCount"] >= 2, "it is not restarted again and again")
    running, count = look(daemon, "running"), look(daemon, "looping")["RestartCount"]
    pids = [look(daemon, name)["Pid"] for name in policies]
    daemon.kill()
    (tmp_path / "go").touch()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "they do not end")
    daemon.start()

    wait_until(lambda: status(daemon, "failed") == status(daemon, "always") == "running", "not started again")
    assert [look(daemon, name)["RestartCount"] for name in policies] == [1, 0, 1, 0]
    assert [look(daemon, name)["ExitCode"] for name in ("fine", "no")] == [0, 7]
    assert look(daemon, "running")["Pid"] == running["Pid"], "who ran goes on"
    wait_until(lambda: look(daemon, "looping")["RestartCount"] > count, "its wait was forgotten")
    wait_until(lambda: status(daemon, "stopped") == "running", "`always` means with the daemon, too")
    assert [status(daemon, name) for name in ("fine", "no", "left")] == ["exited"] * 3


def reboot(daemon: Any) -> None:
    """End all processes at once and empty the exec-root, as the end of the machine does; then start the daemon."""
    daemon.kill()
    pids = daemon.processes()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemon.processes(), "some go on")
    for identifier in os.listdir(daemon.exec_root / "runc"):
        subprocess.run(["runc", "--root", str(daemon.exec_root / "runc"), "delete", "--force", identifier], check=False)
    for mount in reversed(daemon.mounts()):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(daemon.exec_root)
    daemon.forget_states()
    daemon.start()


def test_after_a_reboot_those_run_that_are_to(daemon: Any) -> None:
    for name in ("always", "unless-stopped", "on-failure", "no"):
        run(daemon, name, "exec sleep 600", "--restart", name)
        run(daemon, f"{name}-stopped", "exec sleep 600", "--restart", name)
    names = {"always": 1, "unless-stopped": 1, "on-failure": 1, "always-stopped": 0}
    daemon.docker("kill", *(f"{name}-stopped" for name in ("always", "unless-stopped", "on-failure", "no")))
    reboot(daemon)
    wait_until(lambda: all(status(daemon, name) == "running" for name in names), "not started again")
    assert {name: look(daemon, name)["RestartCount"] for name in names} == names
    found = look(daemon, "no")
    assert (found["Status"], found["ExitCode"]) == ("exited", 255)
    assert [status(daemon, f"{name}-stopped") for name in ("unless-stopped", "on-failure", "no")] == ["exited"] * 3


def test_logds_own_follower_goes_on_over_restarts_and_ends_with_the_last(daemon: Any) -> None:
    run(daemon, "web", LOOP, "--restart", "on-failure:2")
    command = [sys.executable, "-m", "logd.cli.logs", "-f", "web"]
    environment = {**os.environ, "LOGD_HOST": daemon.host}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "run\n" * 3
    run(daemon, "stopped", LOOP, "--restart", "always")
    with subprocess.Popen([*command[:-1], "stopped"], env=environment, stdout=subprocess.PIPE) as follower:
        for _ in range(3):
            assert follower.stdout.readline() == b"run\n"
        daemon.docker("stop", "stopped")
        assert follower.wait(30) == 0
