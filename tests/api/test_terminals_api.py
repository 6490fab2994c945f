"""Terminals: the docker command line in a real one, and the docker SDK, on a real daemon."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from python_sdk import LEAVES_SOCKETS
from screen import Screen

ROOT = Path(__file__).parents[2]
WAIT_S = 30
DETACH = b"\x10\x11"

pytestmark = LEAVES_SOCKETS


class Seat:
    """A person at a terminal of their own, at which one docker command runs at a time."""

    def __init__(self, daemon: Any) -> None:
        self.daemon = daemon
        self.screen = Screen()
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> "Seat":
        slave = self.screen.slave
        self.screen.text = b""
        self.process = self.daemon.docker_popen(*arguments, stdin=slave, stdout=slave, stderr=slave)
        return self

    def ask(self, keys: bytes, answer: bytes) -> None:
        """Type, and wait until the answer has come after what is there now."""
        self.screen.text = b""
        self.screen.type(keys)
        self.screen.read_until(answer, WAIT_S)

    def end(self) -> int:
        """Wait for the command's end, and return its exit code."""
        assert self.process is not None
        self.screen.read_all(self.process)
        assert self.process.returncode is not None
        return self.process.returncode

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.screen.close()


@pytest.fixture
def seat(shared_busybox: Any) -> Iterator[Callable[[], Seat]]:
    """Return a maker of seats."""
    seats: list[Seat] = []

    def take() -> Seat:
        seats.append(Seat(shared_busybox))
        return seats[-1]

    yield take
    for one in seats:
        one.close()


@pytest.fixture
def name(shared_busybox: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of a container of the test's own."""
    chosen = f"t{abs(hash(request.node.name))}"
    yield chosen
    shared_busybox.docker("rm", "-f", "-v", chosen, check=False)


def attached(client: Any, name: str, **params: Any) -> socket.socket:
    """Attach with both streams; return the connection after its head."""
    stream = client.api.attach_socket(name, params={"stdin": 1, "stdout": 1, "stream": 1, **params})
    connection: socket.socket = stream._sock
    connection.settimeout(WAIT_S)
    return connection


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        try:
            piece = connection.recv(65536)
        except TimeoutError as error:
            raise AssertionError(f"{wanted!r} did not come: {data!r}") from error
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_works_at_a_shell_leaves_it_and_comes_back(
    shared_busybox: Any, seat: Callable[[], Seat], name: str
) -> None:
    one = seat()
    one.screen.resize(columns=91, rows=27)
    one.run("run", "-it", "--name", name, "busybox", "sh")
    one.ask(b"", b"/ # ")
    one.ask(b"echo a$((1 + 1)); tty\n", b"a2\n/dev/pts/0\n")
    until(lambda: b"\n27 91\n" in asked(one, b"stty size\n"))
    one.screen.resize(columns=103, rows=31)
    assert one.process is not None
    one.process.send_signal(signal.SIGWINCH)
    until(lambda: b"\n31 103\n" in asked(one, b"stty size\n"))
    one.screen.type(DETACH)
    assert one.end() == 0
    assert shared_busybox.docker("inspect", "-f", "{{.State.Status}} {{.Config.Tty}}", name).stdout == "running true\n"
    one.run("attach", name)
    one.ask(b"echo b$((1 + 1))\n", b"b2\n")
    one.screen.type(DETACH)
    assert one.end() == 1
    assert b"read escape sequence" in one.screen.text
    one.run("start", "-ai", name)
    one.ask(b"echo c$((1 + 1))\n", b"c2\n")
    one.screen.type(b"exit 5\n")
    assert one.end() == 5
    log = shared_busybox.docker("logs", name, text=False).stdout
    assert b"a2\r\n/dev/pts/0\r\n" in log
    assert b"c2\r\n" in log


def asked(one: Seat, keys: bytes) -> bytes:
    """Type, and return what comes up to the next prompt."""
    one.ask(keys, b"/ # ")
    return one.screen.text


def test_two_at_one_terminal_see_all_of_it_and_both_may_type(
    shared_busybox: Any, seat: Callable[[], Seat], name: str
) -> None:
    first, second = seat(), seat()
    shared_busybox.docker("create", "-it", "--name", name, "busybox", "sh")
    first.run("start", "-ai", name)
    first.ask(b"", b"/ # ")
    second.run("attach", "--detach-keys", "ctrl-a,d", name)
    until(lambda: b"c2\n" in asked_until(second, b"echo c$((1 + 1))\n", b"c2\n"))
    first.screen.read_until(b"c2\n")
    first.ask(b"echo d$((1 + 1))\n", b"d2\n")
    second.screen.read_until(b"d2\n")
    second.screen.type(b"\x01d")
    assert second.end() == 1
    assert b"read escape sequence" in second.screen.text
    first.screen.type(b"exit 6\n")
    assert first.end() == 6


def asked_until(one: Seat, keys: bytes, answer: bytes) -> bytes:
    one.ask(keys, answer)
    return one.screen.text


def test_a_terminal_goes_on_under_the_next_daemon(shared_busybox: Any, seat: Callable[[], Seat], name: str) -> None:
    one = seat().run("run", "-it", "--name", name, "busybox", "sh")
    one.ask(b"", b"/ # ")
    shared_busybox.kill()
    shared_busybox.start()
    one.end()
    one.screen.resize(columns=77, rows=22)
    one.run("attach", name)
    until(lambda: b"\n22 77\n" in asked(one, b"stty size\n"))
    one.screen.type(b"exit 3\n")
    assert one.end() == 3


def test_the_stream_is_the_terminals_own_bytes_and_so_is_the_log(client: Any, name: str) -> None:
    script = "echo out; echo err >&2; tty; sleep 600"
    container = client.api.create_container("busybox", ["sh", "-c", script], tty=True, name=name)
    assert container["Warnings"] == []
    connection = attached(client, name)
    client.api.start(name)
    whole = b"out\r\nerr\r\n/dev/pts/0\r\n"
    assert read_until(connection, b"pts/0\r\n") == whole
    assert client.api.logs(name) == whole
    assert client.api.logs(name, stdout=False, stderr=True) == b""
    lines = client.api.logs(name, timestamps=True).split(b"\r\n")
    assert [line.partition(b" ")[2] for line in lines] == [b"out", b"err", b"/dev/pts/0", b""]
    response = client.api._get(client.api._url("/containers/{0}/logs", name), params={"stdout": 1})
    assert response.headers["Content-Type"] == "application/vnd.docker.raw-stream"


def test_the_size_asked_for_is_there_at_the_first_look(client: Any, name: str) -> None:
    config = {"Image": "busybox", "Cmd": ["stty", "size"], "Tty": True, "HostConfig": {"ConsoleSize": [12, 34]}}
    assert post(client, f"/containers/create?name={name}", config).status_code == 201
    client.api.start(name)
    client.api.wait(name, timeout=WAIT_S)
    assert client.api.logs(name) == b"12 34\r\n"
    refused = post(client, "/containers/create", config | {"HostConfig": {"ConsoleSize": [1, 65536]}})
    assert (refused.status_code, "ConsoleSize" in refused.json()["message"]) == (400, True)


def post(client: Any, path: str, body: Any = None) -> Any:
    url = f"{client.api.base_url}/v1.47{path}"
    return client.api.post(url, data=json.dumps(body), headers={"Content-Type": "application/json"})


def test_only_what_runs_is_resized_and_it_is_told(client: Any, name: str) -> None:
    since = int(time.time())
    client.api.create_container("busybox", ["sleep", "600"], tty=True, name=name)
    early = post(client, f"/containers/{name}/resize?h=10&w=20")
    assert (early.status_code, early.json()["message"].endswith("is not running")) == (409, True)
    client.api.start(name)
    assert post(client, f"/containers/{name}/resize?h=10&w=20").status_code == 200
    for query in ("h=10", "h=a&w=1", "h=-1&w=1", "h=1&w=65536"):
        assert post(client, f"/containers/{name}/resize?{query}").status_code == 400
    filters = {"container": name, "event": "resize"}
    (event,) = client.api.events(since=since, until=int(time.time()) + 1, filters=filters, decode=True)
    assert (event["Actor"]["Attributes"]["height"], event["Actor"]["Attributes"]["width"]) == ("10", "20")


def test_the_daemon_knows_the_detach_keys_however_they_come_and_passes_on_what_only_begins_like_them(
    client: Any, name: str
) -> None:
    since = int(time.time())
    client.api.create_container(
        "busybox", ["sh", "-c", "stty raw -echo; echo go; exec cat"], tty=True, stdin_open=True, name=name
    )
    connection = attached(client, name, detachKeys="ctrl-a,ctrl-b,x")
    client.api.start(name)
    read_until(connection, b"go\n")
    connection.sendall(b"1\x01")
    assert read_until(connection, b"1") == b"1"
    connection.sendall(b"\x022\x01\x02")
    assert read_until(connection, b"2") == b"\x01\x022"
    connection.sendall(b"xrest")
    assert connection.recv(100) == b""
    connection.close()
    filters = {"container": name, "event": "detach"}
    assert len(list(client.api.events(since=since, until=int(time.time()) + 1, filters=filters, decode=True))) == 1
    again = attached(client, name)
    again.sendall(b"here")
    assert read_until(again, b"here") == b"here"
    again.shutdown(socket.SHUT_WR)
    assert again.recv(100) == b""
    assert client.api.inspect_container(name)["State"]["Running"], "the end of a client's input ends no terminal"


def test_one_who_does_not_read_holds_up_neither_the_container_nor_others(client: Any, name: str) -> None:
    script = "read go; seq 1 300000; echo over; sleep 600"
    client.api.create_container("busybox", ["sh", "-c", script], tty=True, stdin_open=True, name=name)
    client.api.start(name)
    lazy, reader = attached(client, name), attached(client, name)
    reader.sendall(b"go\n")
    data = read_until(reader, b"over\r\n")
    assert data == b"go\r\n" + b"".join(b"%d\r\n" % number for number in range(1, 300_001)) + b"over\r\n"
    lazy.close()


def test_a_health_check_needs_no_terminal_where_the_container_has_one(shared_busybox: Any, name: str) -> None:
    check = ("--health-cmd", "echo fine", "--health-interval", "100ms")
    shared_busybox.docker("run", "-dt", "--name", name, *check, "busybox", "sleep", "600")
    shown = "{{.State.Health.Status}} {{with .State.Health.Log}}{{(index . 0).Output}}{{end}}"
    until(lambda: shared_busybox.docker("inspect", "-f", shown, name).stdout.startswith("healthy fine\n"))


def test_log_drivers_get_the_terminals_lines_as_stdout(shared_busybox: Any, name: str) -> None:
    driver = ("--log-driver", "json-file")
    shared_busybox.docker("run", "-t", "--name", name, *driver, "busybox", "sh", "-c", "echo one; printf two >&2")
    shown = shared_busybox.docker("inspect", "-f", "{{.LogPath}}", name).stdout.strip()
    expected = [("stdout", "one\r\n"), ("stdout", "two")]

    def entries() -> list[tuple[str, str]]:
        with contextlib.suppress(FileNotFoundError), open(shown, encoding="utf-8") as file:
            return [(entry["stream"], entry["log"]) for entry in map(json.loads, file)]
        return []

    until(lambda: entries() == expected)


class LogdSeat(Seat):
    """The same with logd's own command line."""

    def run(self, *arguments: str) -> "Seat":
        slave = self.screen.slave
        self.screen.text = b""
        command = [sys.executable, "-m", "logd.cli.main", "-H", self.daemon.host, *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT)
        return self


def test_logds_own_commands_run_leave_and_attach_and_give_the_terminal_back(shared_busybox: Any, name: str) -> None:
    one = LogdSeat(shared_busybox)
    try:
        before = one.screen.settings()
        one.screen.resize(columns=88, rows=44)
        one.run("run", "-it", "--name", name, "busybox", "sh")
        one.ask(b"", b"/ # ")
        until(lambda: b"\n44 88\n" in asked(one, b"stty size\n"))
        assert one.screen.settings() != before
        one.screen.type(b"\x10")
        one.screen.type(b"\x11")
        assert one.end() == 0
        assert b"left; the container goes on" in one.screen.text
        assert one.screen.settings() == before
        one.run("attach", "--detach-keys", "ctrl-a,d", name)
        one.ask(b"echo e$((1 + 1))\n", b"e2\n")
        one.screen.resize(columns=99, rows=33)
        assert one.process is not None
        one.process.send_signal(signal.SIGWINCH)
        until(lambda: b"\n33 99\n" in asked(one, b"stty size\n"))
        one.process.terminate()
        assert one.end() == 128 + signal.SIGTERM
        assert one.screen.settings() == before
        one.run("attach", name)
        one.ask(b"echo f$((1 + 1))\n", b"f2\n")
        one.screen.type(b"exit 7\n")
        assert one.end() == 7
        assert one.screen.settings() == before
    finally:
        one.close()


def test_logd_types_into_no_terminal_from_a_pipe(shared_busybox: Any) -> None:
    done = shared_busybox.logd("run", "-it", "busybox", "sh", check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, "not a TTY" in done.stderr) == (125, True)
