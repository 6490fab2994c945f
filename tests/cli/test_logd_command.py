"""`logd`, started as a person starts it, against a daemon on a real socket."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
from cli_peer import Peer, Request, send_json
from screen import Screen

from logd.cli.command import Command
from logd.cli.tables import ago, span
from logd.errors import InvalidParameter

ID = "ab" * 32
LISTED = {
    "Id": ID, "Names": ["/web"], "Image": "busybox:latest", "Command": "sh -c 'echo a long command'",
    "State": "running", "Status": "Up 5 minutes", "Labels": {}, "Created": 0,
}  # fmt: skip
Logd = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def logd(peer: Peer) -> Logd:
    environment = {**os.environ, "LOGD_HOST": peer.host, "TERM": "xterm"}

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "logd.cli.main", *arguments]
        options = {"capture_output": True, "env": environment, "timeout": 30, "text": True, **options}
        return subprocess.run(command, check=False, **options)

    return run


def test_ps_in_a_pipe_is_a_plain_table_with_dockers_columns(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /containers/json"] = lambda _: (200, [{**LISTED, "Created": int(time.time()) - 400}])
    done = logd("ps", "-a", "--filter", "label=x=y", "--filter", "status=exited", "--filter", "label=z")
    assert done.stdout.splitlines() == [
        "CONTAINER ID   IMAGE            COMMAND                  CREATED         STATUS         PORTS     NAMES",
        'abababababab   busybox:latest   "sh -c \'echo a long …"   6 minutes ago   Up 5 minutes             web',
    ]
    query = peer.queries("/containers/json")[0]
    assert query["all"] == "1"
    assert json.loads(query["filters"]) == {"label": ["x=y", "z"], "status": ["exited"]}


def test_ps_prints_ids_or_json(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /containers/json"] = lambda _: (200, [LISTED, LISTED])
    assert logd("ps", "-q").stdout == "abababababab\nabababababab\n"
    assert logd("ps", "-q", "--no-trunc").stdout.splitlines() == [ID, ID]
    shown = [json.loads(line) for line in logd("ps", "--format", "json").stdout.splitlines()]
    assert [(one["ID"], one["Names"], one["State"]) for one in shown] == [("ab" * 6, "web", "running")] * 2


def test_a_table_on_a_terminal_is_not_fooled_by_what_it_shows(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /containers/json"] = lambda _: (200, [{**LISTED, "Image": "x\x1b[2J\x9b"}])
    master, slave = os.openpty()
    done = logd("ps", capture_output=False, stdout=slave, stderr=slave)
    os.write(slave, b"\x04")
    text = b""
    while not text.endswith(b"\x04"):
        text += os.read(master, 65536)
    os.close(master)
    os.close(slave)
    assert done.returncode == 0
    assert b"x^[[2J<U+009B>" in text
    assert b"\x1b[32mUp 5 minutes" in text


def test_a_template_on_a_terminal_is_not_fooled_either(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /containers/json"] = lambda _: (200, [{**LISTED, "Image": "x\x1b[2J\x9b"}])
    master, slave = os.openpty()
    done = logd(
        "ps", "--format", "<{{.Image}}>\\t{{json .Image}}\\n.", capture_output=False, stdout=slave, stderr=slave
    )
    os.write(slave, b"\x04")
    text = b""
    while not text.endswith(b"\x04"):
        text += os.read(master, 65536)
    os.close(master)
    os.close(slave)
    assert done.returncode == 0
    assert text == b'<x^[[2J<U+009B>>\t"x\\u001b[2J<U+009B>"\r\n.\r\n\x04'


def test_a_template_that_does_not_suit_is_usage(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /containers/json"] = lambda _: (200, [LISTED])
    for template, problem in (("{{.Nix}}", "can't evaluate field Nix (known: "), ("{{", "unclosed action")):
        done = logd("ps", "--format", template)
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith("logd: --format: template: :1:")
        assert problem in done.stderr


def test_a_filter_without_a_value_is_usage(logd: Logd) -> None:
    done = logd("ps", "--filter", "exited")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("logd: --filter: invalid value 'exited' (write key=value")


def test_an_option_that_is_not_known_is_usage_with_a_hint(logd: Logd) -> None:
    done = logd("ps", "--nix")
    assert done.returncode == 125
    assert done.stderr.startswith("logd: No such option")
    assert "Run 'logd ps --help'" in done.stderr


def test_stop_goes_on_after_an_error_and_fails_at_the_end(peer: Peer, logd: Logd) -> None:
    peer.routes["POST /containers/b/stop"] = lambda _: (204, None)
    for name in ("a", "c"):
        message = {"message": f"No such container: {name}"}
        peer.routes[f"POST /containers/{name}/stop"] = lambda _, m=message: (404, m)
    done = logd("stop", "-t", "3", "-s", "INT", "a", "b", "c")
    assert (done.returncode, done.stdout) == (1, "b\n")
    assert done.stderr == "logd: No such container: a\nlogd: No such container: c\n"
    assert peer.queries("/containers/b/stop") == [{"signal": "INT", "t": "3"}]


def test_start_of_what_runs_already_is_no_error(peer: Peer, logd: Logd) -> None:
    peer.routes["POST /containers/a/start"] = lambda _: (304, None)
    done = logd("start", "a")
    assert (done.returncode, done.stdout) == (0, "a\n")


def test_rm_and_kill_say_what_they_are_told(peer: Peer, logd: Logd) -> None:
    peer.routes["DELETE /containers/a"] = lambda _: (204, None)
    peer.routes["POST /containers/a/kill"] = lambda _: (204, None)
    assert logd("kill", "-s", "HUP", "a").returncode == 0
    assert logd("rm", "-fv", "a").returncode == 0
    assert [request.query for request in peer.requests] == [{"signal": "HUP"}, {"force": "1", "v": "1"}]


def test_inspect_prints_a_list_of_containers_and_images(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /containers/web/json"] = lambda _: (200, {"Id": ID})
    peer.routes["GET /images/img/json"] = lambda _: (200, {"Id": "sha256:1"})
    done = logd("inspect", "web", "img", "nix")
    assert json.loads(done.stdout) == [{"Id": ID}, {"Id": "sha256:1"}]
    assert (done.returncode, done.stderr) == (1, "logd: No such object: nix\n")


def test_run_in_the_background_prints_the_id(peer: Peer, logd: Logd, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=1\n\nFROM_HERE\nNOT_HERE\n")
    peer.routes["POST /containers/create"] = lambda _: (201, {"Id": ID, "Warnings": ["no swap"]})
    peer.routes[f"POST /containers/{ID}/start"] = lambda _: (204, None)
    done = logd(
        "run", "-d", "--name", "web", "--env-file", str(tmp_path / "env"), "-e", "B=x=y", "-u", "nobody", "-w", "/tmp",
        "-l", "app=shop", "-l", "bare", "-m", "64m", "--cpus", "0.5", "--entrypoint", "sh", "--log-opt", "max-size=1m",
        "--tmpfs", "/t:size=1m", "--rm", "busybox", "-c", "echo -n",
        env={**os.environ, "LOGD_HOST": peer.host, "FROM_HERE": "h"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ID}\n", "logd: warning: no swap\n")
    created = peer.requests[0]
    assert created.query == {"name": "web"}
    assert json.loads(created.body) == {
        "Image": "busybox", "Cmd": ["-c", "echo -n"], "Entrypoint": ["sh"], "Env": ["A=1", "FROM_HERE=h", "B=x=y"],
        "Labels": {"app": "shop", "bare": ""}, "User": "nobody", "WorkingDir": "/tmp", "AttachStdin": False,
        "AttachStdout": False, "AttachStderr": False, "OpenStdin": False, "StdinOnce": False,
        "HostConfig": {
            "AutoRemove": True, "ReadonlyRootfs": False, "Binds": [], "Tmpfs": {"/t": "size=1m"}, "Memory": 64 << 20,
            "NanoCpus": 500_000_000, "LogConfig": {"Type": "", "Config": {"max-size": "1m"}},
        },
    }  # fmt: skip


def test_run_asks_for_a_restart_policy_and_a_health_check(peer: Peer, logd: Logd) -> None:
    peer.routes["POST /containers/create"] = lambda _: (201, {"Id": ID, "Warnings": []})
    peer.routes[f"POST /containers/{ID}/start"] = lambda _: (204, None)
    times = ["--health-interval", "1m30s", "--health-timeout", "5s", "--health-start-period", "250ms"]
    logd("run", "-d", "--restart", "on-failure:3", "--health-cmd", "true", *times, "--health-retries", "2", "busybox")
    logd("run", "-d", "--restart", "always", "--no-healthcheck", "busybox")
    bodies = [json.loads(request.body) for request in peer.requests if request.path.endswith("/create")]
    assert [body["HostConfig"]["RestartPolicy"] for body in bodies] == [
        {"Name": "on-failure", "MaximumRetryCount": 3},
        {"Name": "always", "MaximumRetryCount": 0},
    ]
    check = {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9, "Timeout": 5 * 10**9, "StartPeriod": 250 * 10**6}
    assert [body["Healthcheck"] for body in bodies] == [{**check, "Retries": 2}, {"Test": ["NONE"]}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--restart", "on-failure:x"], "--restart: invalid number of restarts in 'on-failure:x'"),
        (["--health-start-period", "soon"], "--health-start-period: invalid duration 'soon'"),
        (["--no-healthcheck", "--health-cmd", "true"], "--no-healthcheck conflicts with"),
        (["-d", "-a", "stdout"], "conflicting options: cannot specify both --attach and --detach"),
        (
            ["--device-read-bps", "/dev/sda:fast"],
            "--device-read-bps: invalid value '/dev/sda:fast' (write /dev/NAME:NUMBER)",
        ),
        (
            ["--blkio-weight-device", "/dev/sda"],
            "--blkio-weight-device: invalid value '/dev/sda' (write /dev/NAME:10-1000)",
        ),
    ],
)
def test_run_refuses_what_can_not_be_meant(logd: Logd, options: list[str], words: str) -> None:
    done = logd("run", *options, "busybox")
    assert done.returncode == 125
    assert words in done.stderr


def attachable(peer: Peer, output: bytes, *, code: int, echo: bool = False) -> None:
    """Add what a foreground run asks for: its container prints `output`, or what it reads, and ends with `code`."""

    def attach(request: Request) -> None:
        connection = request.connection
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + output[:3])
        if echo:
            while data := connection.recv(65536):
                connection.sendall(struct.pack(">BxxxI", 1, len(data)) + data)
        connection.sendall(output[3:])

    peer.routes["POST /containers/create"] = lambda _: (201, {"Id": ID, "Warnings": []})
    peer.routes[f"POST /containers/{ID}/attach"] = attach
    peer.routes[f"POST /containers/{ID}/wait"] = lambda _: (200, {"StatusCode": code})
    peer.routes[f"POST /containers/{ID}/start"] = lambda _: (204, None)


def test_run_in_the_foreground_gives_output_and_exit_code(peer: Peer, logd: Logd) -> None:
    frames = struct.pack(">BxxxI", 1, 4) + b"out\n" + struct.pack(">BxxxI", 2, 4) + b"err\n"
    attachable(peer, frames, code=42)
    done = logd("run", "--rm", "busybox", "true")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")
    order = [request.path.rpartition("/")[2] for request in peer.requests]
    assert order == ["create", "attach", "wait", "start"]
    assert peer.requests[2].query == {"condition": "removed"}


def test_run_carries_stdin_to_its_end(peer: Peer, logd: Logd) -> None:
    attachable(peer, b"", code=0, echo=True)
    text = "line\n" * 300_000
    done = logd("run", "-i", "busybox", "cat", input=text)
    assert done.returncode == 0
    assert done.stdout == text
    assert json.loads(peer.requests[0].body)["StdinOnce"] is True


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "nix": executable file not found in $PATH', 127),
        ('exec: "/etc/passwd": permission denied', 126),
        ("cgroup is gone", 125),
    ],
)
def test_a_start_that_fails_has_dockers_exit_code(peer: Peer, logd: Logd, message: str, code: int) -> None:
    attachable(peer, b"", code=0)
    peer.routes[f"POST /containers/{ID}/start"] = lambda _: (400, {"message": message})
    done = logd("run", "busybox", "nix")
    assert (done.returncode, done.stderr) == (code, f"logd: {message}\n")


def test_an_image_that_is_missing_is_asked_of_its_registry(peer: Peer, logd: Logd) -> None:
    peer.routes["POST /containers/create"] = lambda _: (404, {"message": "No such image: nix:latest"})
    peer.routes["POST /images/create"] = lambda _: (404, {"message": "there is none"})
    done = logd("run", "nix")
    assert (done.returncode, done.stderr) == (
        125,
        "Unable to find image 'nix:latest' locally\nlogd: there is none\n",
    )
    done = logd("run", "--pull", "never", "nix")
    assert (done.returncode, done.stderr) == (125, "logd: No such image: nix:latest\n")


def test_signals_go_to_the_container(peer: Peer) -> None:
    attachable(peer, b"", code=130)
    ready: list[Request] = []

    def attach(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        request.connection.sendall(struct.pack(">BxxxI", 1, 6) + b"ready\n")
        ready.append(request)
        request.connection.recv(1)  # until the kill closes it

    def kill(request: Request) -> tuple[int, object]:
        ready[0].connection.shutdown(2)
        return 204, None

    def wait(request: Request) -> None:
        send_json(request.connection, 200, {"StatusCode": 130})

    peer.routes[f"POST /containers/{ID}/attach"] = attach
    peer.routes[f"POST /containers/{ID}/kill"] = kill
    peer.routes[f"POST /containers/{ID}/wait"] = wait
    command = [sys.executable, "-m", "logd.cli.main", "-H", peer.host, "run", "busybox", "sleep", "9"]
    with subprocess.Popen(command, stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert peer.queries(f"/containers/{ID}/kill") == [{"signal": str(int(signal.SIGINT))}]


def test_import_sends_the_archive_and_names_it(peer: Peer, logd: Logd, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"tar" * 200_000)
    peer.routes["POST /images/create"] = lambda _: [b'{"status":"sha2', b'56:12"}\r\n']
    done = logd("import", "-c", "CMD a", "-c", "ENV b=c", "-m", "note", str(tmp_path / "x.tar"), "host:5000/a/b:1")
    assert (done.returncode, done.stdout) == (0, "sha256:12\n")
    request = peer.requests[0]
    assert request.body == b"tar" * 200_000
    assert request.query == {
        "fromSrc": "-", "repo": "host:5000/a/b", "tag": "1", "message": "note", "changes": "CMD a",
    }  # fmt: skip


def test_load_from_standard_input_says_what_it_loaded(peer: Peer, logd: Logd) -> None:
    peer.routes["POST /images/load"] = lambda _: [b'{"stream":"Loaded image: a:1\\n"}\n']
    done = logd("load", input="archive")
    assert (done.returncode, done.stdout) == (0, "Loaded image: a:1\n")
    assert peer.requests[0].body == b"archive"


@pytest.mark.parametrize("arguments", [("import",), ("load", "-i"), ("load", "-q", "-i")])
def test_a_terminal_shows_how_far_a_transfer_has_come_a_pipe_and_q_do_not(
    peer: Peer, logd: Logd, screen: Screen, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "x.tar").write_bytes(b"tar" * 1_000_000)
    for path in ("create", "load"):
        peer.routes[f"POST /images/{path}"] = lambda _: [b'{"status":"done"}\n']
    assert logd(*arguments, str(tmp_path / "x.tar"), capture_output=False, stderr=screen.slave).returncode == 0
    os.write(screen.slave, b"\nEND")
    screen.read_until(b"END")
    assert (b"Sending " in screen.text) is ("-q" not in arguments)
    assert logd(*arguments, str(tmp_path / "x.tar")).stderr == ""


def test_an_error_within_progress_is_an_error(peer: Peer, logd: Logd) -> None:
    peer.routes["POST /images/load"] = lambda _: [b'{"errorDetail":{"message":"bad"},"error":"bad"}']
    done = logd("load", input="x")
    assert (done.returncode, done.stderr) == (1, "logd: bad\n")


def test_images_are_listed_by_name(peer: Peer, logd: Logd) -> None:
    image = {
        "Id": "sha256:" + ID,
        "RepoTags": ["r:5000/a:1", "b:2"],
        "Created": int(time.time()) - 90000,
        "Size": 4_230_000,
    }
    peer.routes["GET /images/json"] = lambda _: (200, [image, {**image, "RepoTags": []}])
    assert logd("images").stdout.splitlines() == [
        "REPOSITORY   TAG       IMAGE ID       CREATED        SIZE",
        "r:5000/a     1         abababababab   25 hours ago   4.23MB",
        "b            2         abababababab   25 hours ago   4.23MB",
        "<none>       <none>    abababababab   25 hours ago   4.23MB",
    ]
    assert logd("images", "-q", "b").stdout == "abababababab\n"
    assert json.loads(peer.queries("/images/json")[1]["filters"]) == {"reference": ["b"]}


def test_version_shows_its_own_although_no_daemon_answers(logd: Logd) -> None:
    done = logd("-H", "unix:///nonexistent/x", "version")
    assert done.returncode == 1
    assert "Client:" in done.stdout
    assert "no logd daemon at" in done.stderr


def test_its_version_needs_no_daemon(logd: Logd) -> None:
    for flag in ("-v", "--version"):
        done = logd("-H", "unix:///nonexistent/x", flag)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"logd version {version('logd')}\n", "")


def test_no_daemon_is_one_clear_line(logd: Logd) -> None:
    done = logd("-H", "unix:///nonexistent/x", "ps")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "systemctl start logd" in done.stderr


STORE = {
    "id": ID, "name": "web", "driver": "local", "options": {"max-size": "1m"}, "runs": 2, "ended": False,
    "bytes": 1_200_000, "segments": 1,
    "streams": {
        "stdout": {"position": 5_000_000, "stored": 1_000_000, "expired": 4_000_000, "cleared": 0, "dropped": {}},
        "stderr": {"position": 900, "stored": 0, "expired": 0, "cleared": 0, "dropped": {"disk full": 900}},
    },
    "gaps": [
        {"stream": "stderr", "time": "2023-11-14T22:13:20Z", "position": 0, "length": 900, "reason": "disk full"},
        {"stream": "stdout", "time": "2023-11-14T22:13:20Z", "position": 7, "length": 0, "reason": "restart"},
    ],
}  # fmt: skip


def test_log_status_shows_what_is_kept_and_what_is_lost(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /logd/containers/web/log"] = lambda _: (200, STORE)
    assert logd("log", "status", "web").stdout.splitlines() == [
        "Container:  web (abababababab)",
        "Log driver: local max-size=1m",
        "On disk:    1.2MB in 1 segment",
        "Output:     goes on",
        "STREAM    PRINTED   KEPT      EXPIRED   CLEARED   LOST",
        "stdout    5MB       1MB       4MB       0B        0B",
        "stderr    900B      0B        0B        0B        900B disk full",
        "GAP AT                 STREAM    POSITION   BYTES     REASON",
        "2023-11-14T22:13:20Z   stderr    0          900       disk full",
        "2023-11-14T22:13:20Z   stdout    7          unknown   restart",
    ]
    assert json.loads(logd("log", "status", "--format=json", "web").stdout) == STORE


def test_log_driver_shows_and_changes_where_output_goes(peer: Peer, logd: Logd) -> None:
    drivers = [
        {
            "name": "audit", "driver": "fluentd", "state": "retrying", "forwarder": "running", "error": "refused",
            "delivered": 5000, "unconfirmed": 0, "buffered": 700, "dropped": {"rejected": 8}, "retries": 3,
            "lag_s": 61.25, "difference": 0,
        }
    ]  # fmt: skip
    peer.routes["GET /logd/containers/web/drivers"] = lambda _: (200, drivers)
    assert [line.split() for line in logd("log", "driver", "ls", "web").stdout.splitlines()][1] == [
        "audit", "fluentd", "retrying", "5kB", "0B", "700B", "61.2s", "8B", "rejected", "3", "0", "refused",
    ]  # fmt: skip
    assert json.loads(logd("log", "driver", "ls", "--format", "json", "web").stdout) == drivers
    for method, path in (("PUT", ""), ("POST", ""), ("DELETE", "/audit")):
        peer.routes[f"{method} /logd/containers/web/drivers{path}"] = lambda _: (204, None)
    for arguments in (
        ("set", "web", "syslog"),
        ("add", "web", "a=syslog", "--from", "start"),
        ("remove", "web", "audit"),
    ):
        assert logd("log", "driver", *arguments).returncode == 0
    refused = logd("log", "driver", "add", "web", "syslog", "--log-opt", "nonsense")
    assert (refused.returncode, "write key=value" in refused.stderr) == (125, True)


def test_log_clear_acts_on_each(peer: Peer, logd: Logd) -> None:
    peer.routes["POST /logd/containers/web/log/clear"] = lambda _: (204, None)
    assert logd("log", "clear", "web").stdout == "web\n"


def test_log_du_has_a_total(peer: Peer, logd: Logd) -> None:
    report = {"containers": [{"id": ID, "name": "web", "bytes": 2_000_000}], "total": 2_000_000}
    peer.routes["GET /logd/log/du"] = lambda _: (200, report)
    assert logd("log", "du").stdout.splitlines() == [
        "CONTAINER ID   NAME      SIZE",
        "abababababab   web       2MB",
        "               all       2MB",
    ]
    assert json.loads(logd("log", "du", "--format", "json").stdout) == report["containers"][0]


def test_log_fsck_fails_where_a_log_is_damaged(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /containers/json"] = lambda _: (200, [{"Id": "good"}, {"Id": "bad"}])
    peer.routes["POST /logd/containers/good/log/fsck"] = lambda _: (200, {"bytes": 1000, "problems": []})
    problem = {"bytes": 5, "problems": ["0000000001.index: entry 7: wrong checksum"]}
    peer.routes["POST /logd/containers/bad/log/fsck"] = lambda _: (200, problem)
    done = logd("log", "fsck")
    assert done.returncode == 1
    assert done.stdout == "good: whole, 1kB\nbad: 0000000001.index: entry 7: wrong checksum\n"
    assert done.stderr == "logd: damaged: bad\n"
    assert logd("log", "fsck", "good").returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_has_both_commands(logd: Logd, shell: str) -> None:
    script = logd("completion", shell).stdout
    assert "_LOGD_COMPLETE" in script
    assert "logs --complete" in script


def test_bash_takes_the_script_and_completes_options_and_names(peer: Peer, logd: Logd, tmp_path: Path) -> None:
    peer.routes["GET /containers/json"] = lambda _: (200, [LISTED, {**LISTED, "Names": ["/db"]}])
    peer.routes["GET /images/json"] = lambda _: (200, [{"RepoTags": ["shop:2", "shop:1"]}, {"RepoTags": None}])
    peer.routes["GET /networks"] = lambda _: (200, [{"Name": "b"}, {"Name": "a"}])
    peer.routes["GET /volumes"] = lambda _: (200, {"Volumes": [{"Name": "data"}, {"Name": "other"}]})
    (tmp_path / "logs").write_text(f'#!/bin/sh\nexec {sys.executable} -m logd.cli.logs "$@"\n')
    (tmp_path / "logd").write_text(f'#!/bin/sh\nexec {sys.executable} -m logd.cli.main "$@"\n')
    for name in ("logs", "logd"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "completion").write_text(logd("completion", "bash").stdout)
    script = """
        source "$1"
        complete_it() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); $function "$1"; echo "${COMPREPLY[@]}"
        }
        function=_logs_completion; complete_it logs ""; complete_it logs --fol; complete_it logs --stream s
        function=_logd_completion; complete_it logd stop w; complete_it logd imag
        complete_it logd rmi shop; complete_it logd network rm ""; complete_it logd volume rm d
        complete_it logd logs -f w; complete_it logd logs --fol; complete_it logd daemon --seccomp
        complete_it logd cp w; complete_it logd run --network ""
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(tmp_path / "completion")], capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOGD_HOST": peer.host}, timeout=30,
    )  # fmt: skip
    of_logs, of_logd = ["db web", "--follow", "stdout stderr"], ["web", "image images", "shop:1 shop:2", "a b", "data"]
    assert done.stdout.splitlines() == [*of_logs, *of_logd, "web", "--follow", "--seccomp-profile", "web:", "a b"], (
        done.stderr
    )


def test_fish_shows_help_texts_beyond_their_first_comma(logd: Logd) -> None:
    script = logd("completion", "fish").stdout
    assert 'set -l metadata (string split --max 1 "," $completion)' in script
    assert 'string split ","' not in script


@pytest.mark.parametrize("group", [(), ("log",)], ids=["logd", "logd log"])
def test_a_group_alone_shows_its_help(logd: Logd, group: tuple[str, ...]) -> None:
    done = logd(*group)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == logd(*group, "--help").stdout
    assert "Commands:\n" in done.stdout


def commands() -> list[click.Command]:
    from logd.cli.main import cli

    found: list[click.Command] = []
    waiting = list(cli.commands.values())
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, click.Group):
            waiting += one.commands.values()
        else:
            found.append(one)
    return found


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_every_command_has_help_with_an_example(command: click.Command) -> None:
    assert isinstance(command, Command)
    assert command.help
    assert command.examples
    assert all(option.help or option.name == "form" for option in command.params if isinstance(option, click.Option))
    with click.Context(command, info_name="logd x") as ctx:
        assert command.examples[-1] in command.get_help(ctx)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (3599, "59 minutes"),
        (3600, "About an hour"), (7200, "2 hours"), (172799, "47 hours"), (172800, "2 days"), (86400 * 14, "2 weeks"),
        (86400 * 70, "2 months"), (86400 * 800, "2 years"),
    ],
)  # fmt: skip
def test_spans_of_time_are_dockers(seconds: int, text: str) -> None:
    assert span(seconds) == text
    assert ago(100, 100 + seconds) == f"{text} ago"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rm=true", "x"], (True, True, None, "x", ())),
        (["--rm=0", "--pause=false", "x"], (False, False, None, "x", ())),
        (["-n", "--rm=false", "x", "--rm=true"], (False, True, "--rm=false", "x", ("--rm=true",))),
        (["-rn", "--pause=false", "x"], (True, True, "--pause=false", "x", ())),
        (["--name=--rm=1", "--", "--rm=true"], (False, True, "--rm=1", "--rm=true", ())),
    ],
)
def test_a_flag_may_have_a_value_as_dockers_may(arguments: list[str], expected: tuple[object, ...]) -> None:
    @click.command(cls=Command, context_settings={"allow_interspersed_args": False})
    @click.option("-r", "--rm", is_flag=True)
    @click.option("-p", "--pause/--no-pause", default=True)
    @click.option("-n", "--name")
    @click.argument("image")
    @click.argument("command", nargs=-1, type=click.UNPROCESSED)
    def run(**options: object) -> tuple[object, ...]:
        return tuple(options[name] for name in ("rm", "pause", "name", "image", "command"))

    assert run.main(arguments, standalone_mode=False) == expected
    with pytest.raises(InvalidParameter, match="--rm: invalid value 'nix'"):
        run.main(["--rm=nix", "x"], standalone_mode=False)


CHECKS = [
    {"name": "kernel", "status": "ok", "found": "6.1", "advice": ""},
    {"name": "clock", "status": "fail", "found": "wrong\x1b[31m", "advice": "run chrony"},
]


def test_the_doctor_says_what_to_do_and_fails_where_a_check_does(peer: Peer, logd: Logd) -> None:
    peer.routes["GET /logd/doctor"] = lambda _: (200, CHECKS)
    done = logd("doctor")
    assert done.stdout.splitlines() == ["ok    kernel: 6.1", "fail  clock: wrong^[[31m", "      run chrony"]
    assert (done.returncode, done.stderr) == (1, "logd: to be repaired: clock\n")
    rows = [json.loads(line) for line in logd("doctor", "--format", "json").stdout.splitlines()]
    assert rows[0] == {"Status": "ok", "Name": "kernel", "Found": "6.1", "Advice": ""}
    assert logd("doctor", "--format", "{{.Name}}={{.Status}}").stdout == "kernel=ok\nclock=fail\n"
    peer.routes["GET /logd/doctor"] = lambda _: (200, CHECKS[:1])
    assert logd("doctor", "--json").returncode == 0


def test_without_a_daemon_the_doctor_examines_the_host(logd: Logd, tmp_path: Path) -> None:
    done = logd("doctor", "--json", env={**os.environ, "LOGD_HOST": f"unix://{tmp_path}/nobody.sock"})
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert (done.returncode, found["daemon"]["status"]) == (1, "fail")
    assert "systemctl start logd" in found["daemon"]["found"]
    assert {"kernel", "kernel features", "cgroups", "runtimes", "file system", "sockets"} <= found.keys()
    elsewhere = logd("doctor", env={**os.environ, "LOGD_HOST": "tcp://127.0.0.1:1"})
    assert (elsewhere.returncode, elsewhere.stdout) == (1, "")
