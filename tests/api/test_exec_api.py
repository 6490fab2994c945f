"""docker exec: the docker command line and the SDK on one daemon."""

import contextlib
import json
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from docker.utils.socket import frames_iter
from python_sdk import LEAVES_SOCKETS

pytestmark = LEAVES_SOCKETS

ROOT = Path(__file__).parents[2]
LONG_S = 30.0
ACCOUNTS = "echo alice:x:1000:1000::/home/alice:/bin/sh >> /etc/passwd; echo staff:x:50:alice >> /etc/group"


@pytest.fixture
def run(client, containers) -> Callable[..., Any]:
    """Start a container that sleeps, or does as told; it goes with the test."""

    def start(*command, **options):
        containers.append(client.containers.run("busybox", command or ("sleep", "1000"), detach=True, **options))
        return containers[-1]

    return start


@pytest.fixture
def box(run):
    return run()


@pytest.fixture(scope="module")
def lasting_box(client):
    """A container for tests that leave nothing in it."""
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    yield container
    container.remove(force=True)


@pytest.fixture
def cli(shared_busybox):
    """Run docker exec."""
    return lambda *arguments, **options: shared_busybox.docker("exec", *arguments, check=False, **options)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONG_S
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def ended(client, exec_id: str) -> dict[str, Any]:
    """Wait for the end of an exec, and return what is shown of it."""

    def look():
        shown = client.api.exec_inspect(exec_id)
        return shown if not shown["Running"] else None

    return until(look)


def folders(daemon, container) -> list[Path]:
    """Return what lies on the disk of a container's execs."""
    return sorted((daemon.exec_root / "containers" / container.id / "execs").glob("*"))


def exec_shims(daemon) -> list[int]:
    found = []
    for pid in daemon.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "logd-exec":
                found.append(pid)
    return found


def events_of(daemon, container, *kinds: str) -> list[dict[str, Any]]:
    filters = [
        word for one in (f"container={container.id}", *(f"event={kind}" for kind in kinds)) for word in ("-f", one)
    ]
    shown = daemon.docker("events", "--since", "1h", "--until", str(time.time()), *filters, "--format", "{{json .}}")
    return [json.loads(line) for line in shown.stdout.splitlines()]


def died(daemon, container) -> list[dict[str, str]]:
    return [event["Actor"]["Attributes"] for event in events_of(daemon, container, "exec_die")]


# -- the command line ------------------------------------------------------------------------------------------------


def test_streams_stay_apart_and_the_exit_code_is_the_processs(lasting_box, cli):
    done = cli(lasting_box.name, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert cli(lasting_box.name, "true").returncode == 0
    assert cli(lasting_box.name, "sh", "-c", "kill -9 $$").returncode == 137


def test_standard_input_reaches_the_process_with_its_end(lasting_box, cli):
    data = bytes(range(256)) * 4000
    done = cli("-i", lasting_box.name, "cat", stdin=data, text=False)
    assert (done.returncode, done.stdout == data) == (0, True)


def test_what_an_exec_prints_is_its_clients_alone(box, cli):
    assert cli(box.name, "sh", "-c", "echo here; echo there >&2").stdout == "here\n"
    assert box.logs() == b""


@pytest.mark.parametrize(
    ("options", "command", "code", "words"),
    [
        ((), "nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ((), "/no/such", 127, "no such file or directory"),
        ((), "/etc", 126, "permission denied"),
        (("-w", "/no/such"), "id", 127, 'chdir to cwd ("/no/such")'),
        (("-w", "relative"), "id", 128, "Cwd must be an absolute path"),
        (("-u", "nobody-here"), "id", 126, "unable to find user nobody-here: no matching entries in passwd file"),
        (("-u", "0:nobody-here"), "id", 126, "unable to find group nobody-here: no matching entries in group file"),
    ],
)
def test_what_cannot_be_run_is_told_on_the_stream_with_dockers_exit_code(
    shared_busybox, lasting_box, cli, options, command, code, words
):
    done = cli(*options, lasting_box.name, command)
    assert done.returncode == code
    assert words in done.stdout
    assert folders(shared_busybox, lasting_box) == []


def test_user_environment_and_working_directory_are_as_asked_or_the_containers(run, cli):
    box = run("sh", "-c", f"{ACCOUNTS}; exec sleep 1000", environment={"A": "1", "B": "2"}, working_dir="/tmp")
    until(lambda: cli("-u", "alice", box.name, "true").returncode == 0)
    script = "id -u; id -g; id -G; echo $HOME $PWD $A $B $HOSTNAME"
    assert cli(box.name, "sh", "-c", script).stdout.split("\n")[3] == f"/root /tmp 1 2 {box.id[:12]}"
    asked = ("-u", "alice", "-w", "/var", "-e", "B=3", "-e", "A")
    assert (
        cli(*asked, box.name, "sh", "-c", script).stdout == f"1000\n1000\n1000 50\n/home/alice /var 3 {box.id[:12]}\n"
    )
    assert cli("-u", "1234:50", box.name, "sh", "-c", script).stdout.split("\n")[:3] == ["1234", "50", "50"]


def test_a_detached_exec_runs_on_its_own_and_is_listed_until_its_end(shared_busybox, client, box, cli):
    assert (
        cli("-d", box.name, "sh", "-c", "echo to nobody; while [ ! -e /go ]; do sleep 0.01; done; exit 3").stdout == ""
    )
    box.reload()
    (exec_id,) = box.attrs["ExecIDs"]
    shown = client.api.exec_inspect(exec_id)
    assert (shown["Running"], shown["ExitCode"]) == (True, None)
    assert shown["Pid"] in shared_busybox.processes()
    cli(box.name, "touch", "/go")
    assert ended(client, exec_id)["ExitCode"] == 3
    box.reload()
    assert box.attrs["ExecIDs"] is None
    until(lambda: not folders(shared_busybox, box))


def test_events_have_dockers_words_and_attributes(shared_busybox, box, cli):
    cli(box.name, "sh", "-c", "exit 4")
    cli(box.name, "nosuch", "-x")
    told = until(
        lambda: (
            found
            if len(found := events_of(shared_busybox, box, "exec_create", "exec_start", "exec_die")) == 5
            else None
        )
    )
    assert [event["Action"] for event in told] == [
        "exec_create: sh -c exit 4",
        "exec_start: sh -c exit 4",
        "exec_die",
        "exec_create: nosuch -x",
        "exec_start: nosuch -x",
    ]
    attributes = [event["Actor"]["Attributes"] for event in told]
    assert attributes[2]["exitCode"] == "4"
    assert attributes[0]["execID"] == attributes[1]["execID"] == attributes[2]["execID"] != attributes[3]["execID"]
    assert {one["name"] for one in attributes} == {box.name}


def test_a_health_check_is_listed_while_it_runs(run):
    box = run(healthcheck={"test": ["CMD", "sleep", "1000"], "interval": 100_000_000, "timeout": 600_000_000_000})

    def ids():
        box.reload()
        return box.attrs["ExecIDs"]

    assert len(until(ids)) == 1
    box.kill()
    until(lambda: ids() is None)


# -- the SDK ---------------------------------------------------------------------------------------------------------


def test_the_sdk_runs_commands_whole_streamed_and_with_its_streams_apart(lasting_box):
    script = ["sh", "-c", "echo out; echo err >&2; exit 5"]
    code, output = lasting_box.exec_run(script)
    assert (code, sorted(output.split())) == (5, [b"err", b"out"])
    assert lasting_box.exec_run(script, demux=True).output == (b"out\n", b"err\n")
    assert sorted(b"".join(lasting_box.exec_run(script, stream=True).output).split()) == [b"err", b"out"]
    pieces = list(lasting_box.exec_run(script, stream=True, demux=True).output)
    assert b"".join(out for out, _ in pieces if out) == b"out\n"
    assert b"".join(err for _, err in pieces if err) == b"err\n"
    assert lasting_box.exec_run("id -u", user="1000", detach=False).output == b"1000\n"


def test_the_sdk_talks_to_a_process_over_a_socket(lasting_box):
    stream = lasting_box.exec_run("cat", stdin=True, socket=True).output
    raw = stream._sock
    raw.sendall(b"one")
    assert raw.recv(8) + raw.recv(3) == b"\x01\0\0\0" + struct.pack(">I", 3) + b"one"
    raw.sendall(b"two")
    raw.shutdown(socket.SHUT_WR)
    assert b"".join(data for _, data in frames_iter(raw, tty=False)) == b"two"
    stream.close()


def test_inspect_has_dockers_fields(client, lasting_box):
    created = client.api.exec_create(
        lasting_box.id, ["sh", "-c", "true"], stdin=True, user="0:0", privileged=True, tty=True
    )
    shown = client.api.exec_inspect(created["Id"])
    assert shown == {
        "ID": created["Id"],
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {
            "tty": True,
            "entrypoint": "sh",
            "arguments": ["-c", "true"],
            "privileged": True,
            "user": "0:0",
        },
        "OpenStdin": True,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": lasting_box.id,
        "DetachKeys": "",
        "Pid": 0,
    }


def test_what_cannot_be_is_refused_in_dockers_words(client, run, box):
    api = client.api
    with pytest.raises(docker.errors.APIError, match="No exec command specified") as refused:
        api.exec_create(box.id, [])
    assert refused.value.status_code == 400
    for call, arguments in ((api.exec_inspect, ()), (api.exec_start, ()), (api.exec_resize, (1, 1))):
        with pytest.raises(docker.errors.NotFound, match="No such exec instance: nosuch"):
            call("nosuch", *arguments)
    with pytest.raises(docker.errors.APIError, match="Invalid escape keys \\(ctrl-1\\) provided") as refused:
        api.exec_create(box.id, "id", detach_keys="ctrl-1")
    assert refused.value.status_code == 400
    once = api.exec_create(box.id, "true")["Id"]
    assert api.exec_start(once) == b""
    with pytest.raises(docker.errors.APIError, match=f"exec command {once} has already run") as refused:
        api.exec_start(once)
    assert refused.value.status_code == 409
    late = api.exec_create(box.id, "true")["Id"]
    over = run("true")
    over.wait()
    with pytest.raises(docker.errors.APIError, match=f"container {over.id} is not running") as refused:
        api.exec_create(over.id, "true")
    assert refused.value.status_code == 409
    with pytest.raises(docker.errors.APIError, match="unable to find user nobody-here") as refused:
        api.exec_start(api.exec_create(box.id, "true", user="nobody-here")["Id"], detach=True)
    assert refused.value.status_code == 400
    box.remove(force=True)
    with pytest.raises(docker.errors.NotFound, match="No such exec instance"):
        api.exec_start(late)


def test_an_exec_in_a_paused_container_is_refused(client, box):
    created = client.api.exec_create(box.id, "true")["Id"]
    box.pause()
    try:
        for call, argument in ((client.api.exec_create, box.id), (client.api.exec_start, created)):
            arguments = (argument, "true") if argument == box.id else (argument,)
            with pytest.raises(docker.errors.APIError, match="is paused, unpause the container before exec") as refused:
                call(*arguments)
            assert refused.value.status_code == 409
    finally:
        box.unpause()
    assert client.api.exec_start(created) == b""


# -- clients that are slow, or go -----------------------------------------------------------------------------------


def test_a_client_that_does_not_read_makes_its_own_exec_wait_and_nothing_else(client, box):
    stream = box.exec_run(["sh", "-c", "yes | head -c 20000000; touch /done"], socket=True).output
    held = time.monotonic() + 0.5
    while time.monotonic() < held:
        assert box.exec_run("test -e /done").exit_code == 1
    assert sum(len(data) for _, data in frames_iter(stream._sock, tty=False)) == 20_000_000
    assert box.exec_run("test -e /done").exit_code == 0
    stream.close()


def test_a_process_goes_on_when_its_client_has_gone_and_its_output_is_dropped(shared_busybox, client, box):
    created = client.api.exec_create(box.id, ["sh", "-c", "yes | head -c 3000000; touch /done; exit 9"])["Id"]
    stream = client.api.exec_start(created, socket=True)
    assert stream._sock.recv(100)
    stream._sock.shutdown(socket.SHUT_RDWR)
    stream.close()
    assert ended(client, created)["ExitCode"] == 9
    assert box.exec_run("test -e /done").exit_code == 0
    until(lambda: not exec_shims(shared_busybox))


def test_what_an_exec_leaves_behind_does_not_hold_its_client(box, cli):
    began = time.monotonic()
    done = cli(box.name, "sh", "-c", "while :; do echo more; sleep 0.01; done & echo first; exit 6")
    assert done.returncode == 6
    assert done.stdout.startswith(("first\n", "more\n"))
    assert time.monotonic() - began < LONG_S / 2


def test_execs_end_with_their_container(shared_busybox, client, run):
    for options in ({}, {"pid_mode": "host"}):
        box = run(**options)
        with shared_busybox.docker_popen("exec", box.name, "sh", "-c", "echo; sleep 1000", stdout=-1) as following:
            assert following.stdout.read(1) == b"\n"
            box.kill()
            assert following.wait(LONG_S) == 137
        assert [one["exitCode"] for one in until(lambda box=box: died(shared_busybox, box))] == ["137"]
    until(lambda: not exec_shims(shared_busybox))


# -- logd exec -------------------------------------------------------------------------------------------------------


def logd_popen(daemon, *arguments, **options):
    command = [sys.executable, "-m", "logd.cli.main", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "LOGD_HOST": daemon.host, "X": "here"}, **options)


def test_logd_exec_carries_the_streams_the_options_and_the_exit_code(shared_busybox, box):
    script = "read x; echo $x $A $X $PWD $(id -u); echo err >&2; exit 7"
    options = ("-i", "-e", "A=1", "-e", "X", "-u", "1000", "-w", "/tmp")
    with logd_popen(
        shared_busybox, "exec", *options, box.name, "sh", "-c", script, stdin=-1, stdout=-1, stderr=-1
    ) as process:
        out, err = process.communicate(b"words\n", LONG_S)
    assert (process.returncode, out, err) == (7, b"words 1 here /tmp 1000\n", b"err\n")
    missing = shared_busybox.logd("exec", box.name, "nosuch", check=False)
    assert (missing.returncode, "executable file not found" in missing.stdout) == (127, True)
    assert shared_busybox.logd("exec", "-d", box.name, "touch", "/flag").stdout == ""
    until(lambda: box.exec_run("test -e /flag").exit_code == 0)
    refused = shared_busybox.logd("exec", "-it", box.name, "sh", check=False, input="")
    assert (refused.returncode, refused.stderr) == (125, "logd: the input device is not a TTY (leave -t out)\n")
    gone = shared_busybox.logd("exec", "nobody-here", "sh", check=False)
    assert (gone.returncode, gone.stderr) == (1, "logd: No such container: nobody-here\n")


# -- terminals -------------------------------------------------------------------------------------------------------


class Terminal:
    """A command at a terminal of ours."""

    def __init__(self, popen: Callable[..., Any], size: tuple[int, int], *arguments):
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, size)
        self.process = popen(*arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.shown = b""

    def type(self, data: bytes) -> None:
        os.write(self._master, data)

    def read_until(self, words: bytes) -> None:
        deadline = time.monotonic() + LONG_S
        while words not in self.shown:
            left = deadline - time.monotonic()
            assert select.select([self._master], [], [], max(0, left))[0], self.shown
            try:
                self.shown += os.read(self._master, 65536)
            except OSError as error:  # EIO: all of it was read
                raise AssertionError(self.shown) from error

    def close(self) -> None:
        os.close(self._master)
        self.process.wait(LONG_S)


@pytest.mark.parametrize("cli", ["docker", "logd"])
def test_a_terminal_echoes_has_the_clients_size_and_ends_with_the_shell(shared_busybox, box, cli):
    popen = shared_busybox.docker_popen if cli == "docker" else partial(logd_popen, shared_busybox)
    terminal = Terminal(popen, (31, 79), "exec", "-it", box.name, "sh")
    terminal.type(b"echo $TERM; tty\n")
    terminal.read_until(b"xterm\r\n/dev/pts/0\r\n")
    while b"31 79\r\n" not in terminal.shown:  # the command line tells the size when it gets to it
        terminal.shown = b""
        terminal.type(b"stty size; echo as''ked\n")
        terminal.read_until(b"asked\r\n")
    terminal.type(b"exit 8\n")
    assert terminal.process.wait(LONG_S) == 8
    terminal.close()


def test_the_detach_keys_leave_the_process_running(shared_busybox, client, box):
    created = client.api.exec_create(box.id, "cat", stdin=True, tty=True, detach_keys="ctrl-a,d")["Id"]
    assert client.api.exec_inspect(created)["DetachKeys"] == "AWQ="
    stream = client.api.exec_start(created, tty=True, socket=True)
    stream._sock.sendall(b"x\x01")
    assert stream._sock.recv(4096) == b"x"
    stream._sock.sendall(b"dy")
    assert stream._sock.recv(4096) == b""
    stream.close()
    assert client.api.exec_inspect(created)["Running"] is True
    (told,) = events_of(shared_busybox, box, "exec_detach")
    assert told["Actor"]["Attributes"]["execID"] == created


def test_a_terminal_is_raw_for_the_sdk_and_can_be_resized(client, lasting_box):
    created = client.api.exec_create(lasting_box.id, ["sh", "-c", "read x; stty size"], stdin=True, tty=True)["Id"]
    stream = client.api.exec_start(created, tty=True, socket=True)
    client.api.exec_resize(created, height=17, width=91)
    stream._sock.sendall(b"go\n")
    shown = b""
    while data := stream._sock.recv(4096):
        shown += data
    assert shown == b"go\r\n17 91\r\n"
    stream.close()
    assert client.api.exec_inspect(created)["ExitCode"] == 0


# -- confinement -----------------------------------------------------------------------------------------------------

FIELDS = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp"
STATUS = f"for n in {FIELDS}; do grep ^$n: /proc/self/status; done"


def test_an_exec_is_confined_as_the_first_process(run, cli):
    box = run(
        "sh",
        "-c",
        f"{STATUS}; exec sleep 1000",
        cap_drop=["MKNOD"],
        cap_add=["NET_ADMIN"],
        security_opt=["no-new-privileges"],
    )
    until(lambda: box.logs().count(b"\n") == 10)
    assert cli(box.name, "sh", "-c", STATUS).stdout.encode() == box.logs()
    assert cli(box.name, "sh", "-c", "cat /proc/self/cgroup").stdout == cli(box.name, "cat", "/proc/1/cgroup").stdout


def test_another_user_has_no_capabilities_even_of_a_privileged_exec(lasting_box, cli):
    def capabilities(*options):
        lines = cli(*options, lasting_box.name, "grep", "Cap", "/proc/self/status").stdout.splitlines()
        return {name: int(value, 16) for name, value in (line.split(":") for line in lines)}

    plain, other = capabilities(), capabilities("-u", "1000")
    assert plain["CapEff"] == plain["CapPrm"] == plain["CapBnd"] != 0
    assert (other["CapEff"], other["CapPrm"], other["CapInh"], other["CapAmb"]) == (0, 0, 0, 0)
    assert other["CapBnd"] == plain["CapBnd"]
    privileged = capabilities("--privileged")
    assert privileged["CapEff"] == privileged["CapBnd"]
    assert privileged["CapEff"] & plain["CapEff"] == plain["CapEff"] != privileged["CapEff"]
    assert capabilities("--privileged", "-u", "1000")["CapEff"] == 0


def test_no_working_directory_leads_out_of_the_container_and_no_descriptor_leaks(lasting_box, cli):
    secret = os.stat("/etc/passwd").st_ino
    for number in range(12):
        done = cli(
            "-w", f"/proc/self/fd/{number}", lasting_box.name, "stat", "-c", "%i", "../../../../../../etc/passwd"
        )
        assert done.returncode != 0 or int(done.stdout) != secret, number
    shown = cli("-i", lasting_box.name, "sh", "-c", "echo /proc/self/fd/*").stdout.split()
    assert set(shown) <= {f"/proc/self/fd/{number}" for number in range(4)}  # 3: the folder that is read


# -- the daemon ends -------------------------------------------------------------------------------------------------


def test_execs_outlive_a_daemon_that_is_killed_and_the_next_one_knows_their_ends(busybox):
    busybox.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    printing = "while [ ! -e /go ]; do echo printing; done; exit 7"
    followers = [
        busybox.docker_popen("exec", *options, "box", "sh", "-c", printing, stdout=-1, stderr=-3)
        for options in ((), ("-t",))
    ]
    for follower in followers:
        assert follower.stdout.read(8) == b"printing"
    ended_meanwhile = set(json.loads(busybox.docker("inspect", "-f", "{{json .ExecIDs}}", "box").stdout))
    busybox.docker("exec", "-d", "box", "sh", "-c", "while [ ! -e /went ]; do sleep 0.01; done; exit 5")
    (goes_on,) = set(json.loads(busybox.docker("inspect", "-f", "{{json .ExecIDs}}", "box").stdout)) - ended_meanwhile
    busybox.kill()
    for follower in followers:
        follower.stdout.close()
        follower.wait(LONG_S)
    (busybox.data_root / "containers" / busybox.container_ids()[0] / "rootfs" / "go").touch()
    until(lambda: len(list((busybox.exec_root / "containers").glob("*/execs/*/exit.json"))) == 2)
    busybox.start()
    with contextlib.closing(docker.DockerClient(base_url=busybox.host, version="auto")) as client:
        for exec_id in ended_meanwhile:
            shown = client.api.exec_inspect(exec_id)
            assert (shown["Running"], shown["ExitCode"]) == (False, 7)
            assert shown["ProcessConfig"]["arguments"] == ["-c", printing]
        assert client.api.exec_inspect(goes_on)["Running"] is True
        box = client.containers.get("box")
        assert box.attrs["ExecIDs"] == [goes_on]
        box.exec_run("touch /went")
        assert ended(client, goes_on)["ExitCode"] == 5
        wanted = {goes_on: "5", **dict.fromkeys(ended_meanwhile, "7")}
        until(lambda: {one["execID"]: one["exitCode"] for one in died(busybox, box)}.items() >= wanted.items())
        busybox.restart()
        assert died(busybox, box) == []


def test_execs_leave_no_process_no_file_and_no_descriptor(shared_busybox, client, box):
    descriptors = f"/proc/{shared_busybox.process.pid}/fd"
    assert box.exec_run("true").exit_code == 0
    until(lambda: not exec_shims(shared_busybox))
    before, processes = len(os.listdir(descriptors)), sorted(shared_busybox.processes())
    for number in range(15):
        assert box.exec_run(["sh", "-c", f"exit {number % 5}"], stdin=number % 2 == 0).exit_code == number % 5
    until(lambda: not exec_shims(shared_busybox) and not folders(shared_busybox, box))
    until(lambda: len(os.listdir(descriptors)) <= before)
    assert sorted(shared_busybox.processes()) == processes
