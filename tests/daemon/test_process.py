"""The daemon as a process: how it starts, whom it refuses, what it says, and what it leaves behind when it stops."""

import http.client
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "logd.daemon", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=30)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


def ping(connection: http.client.HTTPConnection) -> bytes:
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().read()
    finally:
        connection.close()


def wait_until(check: Callable[[], Any]) -> None:
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, "it did not come true in 20 seconds"
        time.sleep(0.02)


def log_of_start(daemon: Any) -> str:
    """Return the log of a daemon that said it is ready; a thread of its own writes it, so that it may come later."""
    wait_until(lambda: re.search(r"Daemon has completed initialization.*\n", daemon.log()))
    return daemon.log()


@pytest.fixture(scope="module")
def running(make_module_daemon: Callable[..., Any]) -> Any:
    """A daemon for tests that only look at it."""
    return make_module_daemon().start()


def test_validate_says_configuration_ok_and_changes_nothing(tmp_path: Path) -> None:
    done = run("--validate", "--config-file", "/dev/null", "--data-root", str(tmp_path / "data"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "configuration OK\n", "")
    assert not (tmp_path / "data").exists()


def test_the_version_is_said_whatever_the_settings_are() -> None:
    for flag in ("--version", "-v"):
        done = run("--config-file", "/nonexistent", flag)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"logd version {version('logd')}\n", "")


def test_a_mistake_in_the_settings_is_said_on_stderr_with_status_1(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"debug": false, "log-opts": {"max-sise": "1m"}}')
    done = run("--config-file", str(tmp_path / "daemon.json"), "--data-root", str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"logd: unable to configure the daemon with file {tmp_path}/daemon.json: ")
    assert "max-sise" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_ready_daemon_answers_and_keeps_its_folders_to_root(running: Any) -> None:
    assert ping(UnixConnection(running.socket)) == b"OK"
    for folder in (running.data_root, running.exec_root):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    assert stat.S_IMODE(running.socket.stat().st_mode) & 0o007 == 0
    assert (running.exec_root / "logd.pid").read_text() == f"{running.process.pid}\n"
    assert "API listen on unix://" in log_of_start(running)


def test_the_daemon_raises_its_limits_and_is_a_late_choice_for_the_oom_killer(running: Any) -> None:
    soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
    refused = "oom_score_adj stays as it is: Permission denied" in log_of_start(running)  # without CAP_SYS_RESOURCE
    own = Path(f"/proc/{running.process.pid}/oom_score_adj").read_text().strip()
    assert own == Path("/proc/self/oom_score_adj").read_text().strip() if refused else own == "-500"


def test_a_second_daemon_on_the_data_root_is_refused_and_the_first_goes_on(running: Any) -> None:
    done = subprocess.run(running.command(), check=False, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"is in use by another logd (pid {running.process.pid})" in done.stderr
    assert ping(UnixConnection(running.socket)) == b"OK"


def test_sigterm_ends_the_daemon_in_order(daemon: Any) -> None:
    daemon.process.terminate()
    daemon.wait_for_state("STOPPING=1")
    assert daemon.process.wait(10) == 0
    assert not daemon.socket.exists()
    assert not (daemon.exec_root / "logd.pid").exists()
    assert "level=info msg=stopped" in daemon.log()
    assert not [line for line in daemon.log().splitlines() if "level=error" in line]


def test_after_kill_9_the_next_daemon_takes_over_socket_and_pidfile(daemon: Any) -> None:
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert ping(UnixConnection(daemon.socket)) == b"OK"


def test_the_watchdog_is_fed_from_the_event_loop(make_daemon: Callable[..., Any]) -> None:
    daemon = make_daemon()
    daemon.start(WATCHDOG_USEC="400000")
    daemon.wait_for_state("WATCHDOG=1")
    daemon.wait_for_state("WATCHDOG=1")
    os.kill(daemon.process.pid, signal.SIGSTOP)
    daemon.forget_states()
    with pytest.raises(AssertionError, match="did not say WATCHDOG=1"):
        daemon.wait_for_state("WATCHDOG=1", timeout_s=1)
    os.kill(daemon.process.pid, signal.SIGCONT)
    daemon.wait_for_state("WATCHDOG=1")


def test_sighup_reloads_what_can_be_reloaded_and_names_the_rest(daemon: Any) -> None:
    store = {"max-total": "1g", "min-free": 0, "sync": "1s"}
    content = {
        "labels": ["color=red"],
        "debug": True,
        "log-level": "warn",
        "log-driver": "none",
        "default-shm-size": "32m",
        "default-stop-timeout": 3,
        "shutdown-timeout": 7,
        "runtimes": {"mine": {"path": "/usr/sbin/runc"}},
        "default-runtime": "mine",
        "seccomp-profile": "unconfined",
        "logd": {"log": {"to": "stderr"}, "store": store},
    }
    since = time.time()
    daemon.config_file.write_text(json.dumps(content))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_state("RELOADING=1")
    wait_until(lambda: "settings reloaded" in daemon.log())
    assert 'msg="seccomp-profile has changed and needs a restart of logd"' in daemon.log()
    info = json.loads(daemon.docker("info", "--format", "{{json .}}").stdout)
    names = ("Labels", "Debug", "DefaultRuntime", "LoggingDriver")
    assert [info[name] for name in names] == [["color=red"], True, "mine", "none"]
    assert info["Runtimes"]["mine"]["path"] == "/usr/sbin/runc"
    events = ["events", "--since", str(int(since)), "--until", str(int(time.time()) + 1), "--format", "{{json .Actor}}"]
    (actor,) = [json.loads(line) for line in daemon.docker(*events, "--filter", "event=reload").stdout.splitlines()]
    assert actor["ID"] == info["ID"] != ""
    expected = {"labels": '["color=red"]', "debug": "true", "log-level": "warn", "default-shm-size": "33554432"}
    expected |= {"default-stop-timeout": "3", "shutdown-timeout": "7", "default-runtime": "mine", "name": info["Name"]}
    expected |= {"logd.store.max-total": str(1 << 30), "logd.store.min-free": "0", "logd.store.sync": "1s"}
    assert actor["Attributes"].items() >= expected.items()
    assert "mine:/usr/sbin/runc" in actor["Attributes"]["runtimes"].split(" ")


def test_sighup_with_a_mistake_in_the_file_changes_nothing(daemon: Any) -> None:
    daemon.config_file.write_text('{"labels": ["color=red"], "debugg": true}')
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: re.search('level=error msg="settings not reloaded: .*debugg', daemon.log()))
    assert daemon.docker("info", "--format", "{{json .Labels}}").stdout.strip() in {"[]", "null"}


def test_keys_without_effect_are_told_in_one_notice(make_daemon: Callable[..., Any]) -> None:
    daemon = make_daemon("--live-restore", "--storage-driver", "overlay2")
    daemon.start()
    notices = [line for line in log_of_start(daemon).splitlines() if "without effect" in line]
    assert len(notices) == 1
    assert "live-restore" in notices[0]
    assert "storage-driver" in notices[0]


def test_the_own_log_can_be_json(make_daemon: Callable[..., Any]) -> None:
    daemon = make_daemon("--log-format", "json").start()
    lines = [json.loads(line) for line in log_of_start(daemon).splitlines()]
    assert {"level", "msg", "time"} <= set(lines[0])


def test_a_socket_handed_over_by_the_service_manager_is_served(make_daemon: Callable[..., Any]) -> None:
    daemon = make_daemon("-H", "fd://")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(daemon.folder / "activated.sock"))
        listening.listen()
        listening.set_inheritable(True)
        activate = (
            f"import os, sys; os.dup2({listening.fileno()}, 3)\n"
            "os.execve(sys.executable, sys.argv[1:], {**os.environ, 'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())})"
        )
        with daemon.log_file.open("ab") as log:
            daemon.process = subprocess.Popen(
                [sys.executable, "-c", activate, *daemon.command()],
                cwd=ROOT,
                stderr=log,
                pass_fds=[listening.fileno()],
                env={**os.environ, "NOTIFY_SOCKET": str(daemon.folder / "notify")},
            )
        daemon.wait_for_state("READY=1")
    assert ping(UnixConnection(daemon.folder / "activated.sock")) == b"OK"
    daemon.stop()
    assert (daemon.folder / "activated.sock").exists()  # it is the service manager's


def test_containers_go_on_while_there_is_no_daemon_and_are_found_again(busybox: Any) -> None:
    name = busybox.docker("run", "-d", "busybox", "sh", "-c", "while echo tick; do sleep 0.05; done").stdout.strip()
    pid = int(busybox.docker("inspect", "--format", "{{.State.Pid}}", name).stdout)
    assert busybox.stop() == 0
    os.kill(pid, 0)
    busybox.start()
    assert busybox.docker("inspect", "--format", "{{.State.Status}} {{.State.Pid}}", name).stdout == f"running {pid}\n"
    busybox.kill()
    os.kill(pid, 0)
    busybox.start()
    assert busybox.docker("ps", "-q", "--no-trunc").stdout.strip() == name
    busybox.docker("rm", "-f", name)


def test_a_stop_does_not_wait_for_those_who_follow(busybox: Any) -> None:
    name = busybox.docker("run", "-d", "busybox", "sleep", "600").stdout.strip()
    with (
        busybox.docker_popen("logs", "-f", name, stdout=subprocess.PIPE) as logs,
        busybox.docker_popen("attach", "--no-stdin", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as attach,
        busybox.docker_popen("events", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as events,
        busybox.docker_popen("wait", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as wait,
    ):
        time.sleep(0.5)  # nothing tells from outside when a follower has begun
        begun = time.monotonic()
        assert busybox.stop() == 0
        assert time.monotonic() - begun < 5
        for follower in (logs, attach, events, wait):
            follower.wait(10)


def test_a_shutdown_timeout_that_was_reloaded_holds_for_the_next_stop(make_daemon: Callable[..., Any]) -> None:
    daemon = make_daemon()
    daemon.config_file.write_text('{"logd": {"log": {"to": "stderr"}}, "shutdown-timeout": 60}')
    daemon.start()
    with socket.socket(socket.AF_UNIX) as loading:
        loading.connect(str(daemon.socket))
        loading.settimeout(30)
        head = b"POST /images/load HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        loading.sendall(head)
        assert loading.recv(12) == b"HTTP/1.1 100"  # it waits for an archive that never comes
        daemon.config_file.write_text('{"logd": {"log": {"to": "stderr"}}, "shutdown-timeout": 1}')
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "settings reloaded" in daemon.log())
        assert daemon.stop() == 0


def test_nothing_of_the_daemon_s_own_reaches_its_children(busybox: Any) -> None:
    name = busybox.docker("run", "-d", "busybox", "sleep", "600").stdout.strip()
    pid = int(busybox.docker("inspect", "--format", "{{.State.Pid}}", name).stdout)
    for child in busybox.processes():
        if child != busybox.process.pid:
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    standard = (1 << 31) - 1  # signals 32 and 33 are glibc's own; its posix_spawn leaves them ignored
    assert int(status["SigIgn"], 16) & standard == 0, "Python ignores SIGPIPE and SIGXFSZ; a container must not"
    assert int(status["SigBlk"], 16) & standard == 0
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "0"
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = {os.readlink(f"/proc/{pid}/fd/{one}") for one in os.listdir(f"/proc/{pid}/fd")}
    assert all(one == "/dev/null" or one.startswith("pipe:") for one in descriptors), descriptors
