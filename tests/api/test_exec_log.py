"""Execs whose output goes into their container's log too: asked for with `Log`, or by the container's label."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

# the SDK leaves sockets of streams to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

LABEL = "io.logd.exec-log=true"
LONG_S = 30.0


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONG_S
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def client(shared_busybox):
    with contextlib.closing(docker.DockerClient(base_url=shared_busybox.host, version="auto")) as client:
        yield client


class Box:
    """A container with the label, whose first process does as told; `exec` and `logs` are the docker command line's."""

    def __init__(self, daemon, *command: str, options: tuple[str, ...] = ()) -> None:
        self.daemon = daemon
        words = command or ("sleep", "1000")
        self.id = daemon.docker("run", "-d", "--label", LABEL, *options, "busybox", *words).stdout.strip()

    def exec(self, script: str, *options: str, arguments: tuple[str, ...] = (), **more):
        return self.daemon.docker("exec", *options, self.id, "sh", "-c", script, *arguments, check=False, **more)

    def logs(self, *options: str) -> tuple[str, str]:
        shown = self.daemon.docker("logs", *options, self.id)
        return shown.stdout, shown.stderr

    def shim(self) -> int | None:
        """The process that has the container's log open."""
        for pid in self.daemon.processes():
            with contextlib.suppress(OSError):
                held = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
                if name_of(pid) == "logd-shim" and any(self.id in path for path in held):
                    return pid
        return None

    def exec_shims(self) -> list[int]:
        """Those of all execs of the daemon."""
        return [pid for pid in self.daemon.processes() if name_of(pid) == "logd-exec"]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.fixture
def make_box(shared_busybox):
    boxes = []

    def make(*command, **more):
        boxes.append(Box(shared_busybox, *command, **more))
        return boxes[-1]

    yield make
    for box in boxes:
        shared_busybox.docker("rm", "-f", box.id)


@pytest.fixture
def box(make_box):
    return make_box()


# -- what is asked for -----------------------------------------------------------------------------------------------


def test_both_streams_are_in_the_log_and_the_client_has_them_as_ever(box):
    done = box.exec("echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    until(lambda: box.logs() == ("out\n", "err\n"))


@pytest.mark.parametrize("is_asked", [True, False])
def test_an_exec_is_logged_if_it_is_asked_for_and_only_then(shared_busybox, client, is_asked):
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    body = {"Cmd": ["echo", "here"], "AttachStdout": True, **({"Log": True} if is_asked else {})}
    answer = client.api._post_json(client.api._url("/containers/{0}/exec", container.id), data=body)
    exec_id = answer.json()["Id"]
    assert client.api.exec_start(exec_id) == b"here\n"
    assert client.api.exec_inspect(exec_id).get("Log", False) is is_asked
    if is_asked:
        until(lambda: container.logs() == b"here\n")
        details = shared_busybox.docker("logs", "--details", container.id).stdout
        assert details == f"exec={exec_id[:12]} here\n"
    assert container.logs() == (b"here\n" if is_asked else b"")
    container.remove(force=True)


def test_detached_execs_and_what_they_leave_behind_are_logged(box):
    box.exec("echo detached; echo too >&2; (sleep 0.2; echo later) &", "-d")
    until(lambda: box.logs() == ("detached\nlater\n", "too\n"))


def test_a_terminal_is_logged_as_it_shows(box):
    done = box.exec("test -t 1 && echo shown; printf '\033[1mbold'", "-t", text=False)
    assert done.stdout == b"shown\r\n\033[1mbold"
    until(lambda: box.daemon.docker("logs", box.id, text=False).stdout == done.stdout + b"\n")


def test_input_reaches_a_logged_process_on_pipes_and_on_a_terminal(box, client):
    data = "".join(f"{number}\n" for number in range(50_000))
    assert box.exec("cat", "-i", stdin=data).stdout == data
    until(lambda: box.logs()[0] == data)
    created = client.api.exec_create(box.id, ["sh", "-c", "read x; stty size; echo $x"], stdin=True, tty=True)["Id"]
    stream = client.api.exec_start(created, tty=True, socket=True)
    client.api.exec_resize(created, height=17, width=91)
    stream._sock.sendall(b"go\n")
    shown = b""
    while piece := stream._sock.recv(4096):
        shown += piece
    assert shown == b"go\r\n17 91\r\ngo\r\n"
    stream.close()
    until(lambda: box.logs()[0] == data + shown.decode().replace("\r", ""))  # universal newlines


def test_a_follower_sees_an_execs_lines_as_they_come(box):
    follower = box.daemon.docker_popen("logs", "-f", box.id, stdout=-1)
    running = box.daemon.docker_popen("exec", "-i", box.id, "cat", stdin=-1, stdout=-3)
    for word in (b"first\n", b"second\n"):
        running.stdin.write(word)
        running.stdin.flush()
        assert follower.stdout.readline() == word
    running.stdin.close()
    assert running.wait(LONG_S) == 0
    follower.kill()
    follower.stdout.close()
    follower.wait()


# -- lines stay whole ------------------------------------------------------------------------------------------------


def test_a_last_line_without_a_newline_gets_one_and_a_very_long_line_is_cut(box):
    assert box.exec("printf unfinished").stdout == "unfinished"
    until(lambda: box.logs()[0] == "unfinished\n")
    box.exec("head -c 600000 /dev/zero | tr '\\0' x", "-d")
    shown = until(lambda: (logs := box.logs()[0]).count("x") == 600_000 and logs)
    assert [len(line) for line in shown.splitlines()[1:]] == [262143, 262143, 75714]


def test_lines_of_execs_and_of_a_container_that_prints_at_full_speed_never_mix(make_box):
    numbers = "i=0; while [ $i -lt 20000 ]; do echo own-$i; i=$((i+1)); done > /numbers; touch /ready"
    rounds = "i=0; while [ $i -lt 25 ]; do cat /numbers; i=$((i+1)); done; touch /done; exec sleep 1000"
    box = make_box("sh", "-c", f"{numbers}; while [ ! -e /go ]; do sleep 0.01; done; {rounds}")
    until(lambda: box.exec("test -e /ready").returncode == 0)
    loop = 'i=0; while [ ! -e /done ]; do echo "exec-$1-$i"; i=$((i+1)); sleep 0.001; done; echo "exec-$1-end"'
    for number in range(3):
        box.exec(loop, "-d", arguments=("sh", str(number)))
    until(lambda: len(set(re.findall("exec-[0-9]", box.logs()[0]))) == 3)
    box.exec("touch /go")
    shown = until(lambda: (logs := box.logs()[0]).count("end") == 3 and logs).splitlines()
    assert [line for line in shown if line.startswith("own")] == 25 * [f"own-{number}" for number in range(20_000)]
    others = [line for line in shown if not line.startswith("own")]
    for number in range(3):
        *counts, last = [line.removeprefix(f"exec-{number}-") for line in others if line.startswith(f"exec-{number}-")]
        assert (counts, last) == ([str(count) for count in range(len(counts))], "end")
        others = [line for line in others if not line.startswith(f"exec-{number}-")]
    assert others == []


def test_a_prompt_of_the_containers_does_not_hold_an_exec_up(make_box):
    box = make_box("sh", "-c", "printf 'Password: '; read x; echo thanks", options=("-i",))
    assert box.exec("echo meanwhile").stdout == "meanwhile\n"
    until(lambda: box.logs()[0] == "Password: \nmeanwhile\n")
    details = box.logs("--details")[0].splitlines()
    assert details[0] == " Password: "
    assert re.fullmatch(r"exec=[0-9a-f]{12} meanwhile", details[1])


def test_who_is_attached_to_the_container_sees_nothing_of_its_execs(box):
    attached = box.daemon.docker_popen("attach", "--no-stdin", "--sig-proxy=false", box.id, stdout=-1)
    until(lambda: any(event["status"] == "attach" for event in events(box)))
    box.exec("echo secretly")
    until(lambda: box.logs()[0] == "secretly\n")
    box.daemon.docker("kill", box.id)
    assert attached.communicate(timeout=LONG_S)[0] == b""


def events(box) -> list[dict[str, Any]]:
    shown = box.daemon.docker(
        "events", "--since", "1h", "--until", str(time.time()), "-f", f"container={box.id}", "--format", "{{json .}}"
    )
    return [json.loads(line) for line in shown.stdout.splitlines()]


# -- nobody waits, nothing is lost -----------------------------------------------------------------------------------

NUMBERS = "i=0; while [ $i -lt {count} ]; do echo line-$i; i=$((i+1)); done"


def test_all_of_a_huge_output_is_in_the_log_though_its_client_reads_slowly(box):
    client = box.daemon.docker_popen("exec", box.id, "sh", "-c", NUMBERS.format(count=60_000), stdout=-1)
    expected = "".join(f"line-{number}\n" for number in range(60_000))
    assert client.stdout.read(6) == b"line-0"
    logged = len(box.logs()[0])
    assert logged < len(expected)  # the process waits for its client, as ever
    with client.stdout:
        assert "line-0" + client.stdout.read().decode() == expected
    assert client.wait(LONG_S) == 0
    until(lambda: box.logs()[0] == expected)


def test_a_client_that_leaves_does_not_stop_the_log(box):
    client = box.daemon.docker_popen("exec", box.id, "sh", "-c", NUMBERS.format(count=50_000), stdout=-1)
    assert client.stdout.read(6) == b"line-0"
    client.kill()
    client.stdout.close()
    client.wait()
    until(lambda: box.logs()[0] == "".join(f"line-{number}\n" for number in range(50_000)))


def test_the_end_of_the_container_comes_after_its_execs_last_words(box):
    box.exec("trap 'exit' TERM; while true; do echo alive; done", "-d")
    until(lambda: box.logs("-n", "1")[0] == "alive\n")
    box.daemon.docker("kill", box.id)
    box.daemon.docker("wait", box.id)
    assert set(box.logs()[0].splitlines()) <= {"alive", "aliv", "ali", "al", "a"}
    until(lambda: not box.exec_shims() and not box.shim())


def test_the_shim_of_the_container_is_killed_again_and_again_and_no_line_is_missing(box):
    box.exec(NUMBERS.format(count=60_000), "-d")
    killed = 0
    while "line-59999" not in box.logs("-n", "1")[0]:
        pid = box.shim() if killed < 3 else None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    assert killed >= 1
    assert box.logs()[0] == "".join(f"line-{number}\n" for number in range(60_000))
    assert box.exec("echo again").stdout == "again\n"
    until(lambda: box.logs("-n", "1")[0] == "again\n")


def test_the_death_of_an_execs_shim_is_told_as_a_gap(box):
    box.exec("echo begun; sleep 1000", "-d")
    until(lambda: box.logs()[0] == "begun\n")
    for pid in box.exec_shims():
        os.kill(pid, signal.SIGKILL)
    until(lambda: box.exec("echo more").stdout and "logd: bytes of stdout are missing (crash)\n" in box.logs()[1])
    assert set(box.logs()[0].splitlines()) <= {"begun", "more"}


def test_a_daemon_that_is_killed_in_the_middle_of_an_exec_costs_no_line(busybox):
    box = Box(busybox)
    client = busybox.docker_popen("exec", box.id, "sh", "-c", NUMBERS.format(count=60_000), stdout=-1, stderr=-3)
    assert client.stdout.read(6) == b"line-0"
    busybox.kill()
    client.stdout.close()
    client.wait(LONG_S)
    busybox.start()
    expected = "".join(f"line-{number}\n" for number in range(60_000))
    until(lambda: box.logs()[0] == expected)
    (told,) = until(lambda: [one for one in events(box) if one["status"] == "exec_die"])
    assert told["Actor"]["Attributes"]["exitCode"] == "0"


# -- where else it goes ----------------------------------------------------------------------------------------------


def test_drivers_are_told_of_the_exec_and_no_byte_is_unaccounted_for(make_box):
    box = make_box(options=("--log-driver", "json-file", "--log-opt", "labels=app", "--label", "app=shop"))
    box.exec("echo out; echo err >&2")
    path = Path(box.daemon.docker("inspect", "-f", "{{.LogPath}}", box.id).stdout.strip())
    until(lambda: path.exists() and path.read_bytes().count(b"\n") == 2)
    records = sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda one: one["stream"])
    assert [(one["stream"], one["log"]) for one in records] == [("stderr", "err\n"), ("stdout", "out\n")]
    for one in records:
        assert one["attrs"]["app"] == "shop"
        assert re.fullmatch("[0-9a-f]{12}", one["attrs"]["exec"])

    def account():
        (driver,) = json.loads(box.daemon.logd("log", "status", "--format", "json", box.id).stdout)["drivers"]
        return driver["captured"], driver["delivered"], driver["difference"]

    until(lambda: account() == (8, 8, 0))


def test_the_logs_command_shows_execs_alone_or_says_whose_a_line_is(make_box):
    box = make_box("sh", "-c", "echo own; exec sleep 1000")
    assert box.daemon.logd("exec", "--log", box.id, "echo", "its").stdout == "its\n"
    until(lambda: box.logs()[0] == "own\nits\n")
    assert box.daemon.logd("logs", "--stream", "exec", box.id).stdout == "its\n"
    own, its = map(json.loads, box.daemon.logd("logs", "--json", box.id).stdout.splitlines())
    assert (own["line"], "exec" in own, its["line"]) == ("own", False, "its")
    assert re.fullmatch("[0-9a-f]{12}", its["exec"])
