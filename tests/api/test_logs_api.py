"""GET …/logs on a real daemon, over bare HTTP: status, types, words, frames, followers."""

import contextlib
import hashlib
import http.client
import json
import os
import socket
import struct
import subprocess
import time
from urllib.parse import urlencode

import pytest

from logd.stdcopy import Decoder


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@pytest.fixture
def ask(shared_busybox):
    """Send a request and return (response, connection)."""
    connections = []

    def send(method, path, *, agent="test", headers=None, **query):
        connection = Connection(shared_busybox.socket)
        connections.append(connection)
        text = f"{path}?{urlencode(query)}" if query else path
        connection.request(method, text, headers={"User-Agent": agent, **(headers or {})})
        return connection.getresponse()

    yield send
    for connection in connections:
        connection.close()


@pytest.fixture
def container(shared_busybox):
    """Run a script in the background and return the container's id."""
    ids = []

    def start(script, *options, wait=True):
        identifier = shared_busybox.docker("run", "-d", *options, "busybox", "sh", "-c", script).stdout.strip()
        ids.append(identifier)
        if wait:
            shared_busybox.docker("wait", identifier)
        return identifier

    yield start
    for identifier in ids:
        shared_busybox.docker("rm", "-f", identifier, check=False)


def frames(response):
    return list(Decoder().feed(response.read()))


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({}, 400, "Bad parameters: you must choose at least one stream"),
        ({"stdout": 1, "since": "tomorrow"}, 400, "invalid value for \"since\": invalid time 'tomorrow'"),
        ({"stdout": 1, "until": "x"}, 400, "invalid value for \"until\": invalid time 'x'"),
    ],
)
def test_a_wrong_request_is_refused_before_the_stream_begins(ask, container, query, status, message):
    answer = ask("GET", f"/v1.47/containers/{container('true')}/logs", **query)
    assert answer.status == status
    assert json.loads(answer.read())["message"].startswith(message)


def test_an_unknown_container_is_404(ask):
    answer = ask("GET", "/containers/nobody/logs", stdout=1)
    assert (answer.status, json.loads(answer.read())) == (404, {"message": "No such container: nobody"})


@pytest.mark.parametrize(
    ("version", "content_type"),
    [
        ("", "application/vnd.docker.multiplexed-stream"),
        ("/v1.42", "application/vnd.docker.multiplexed-stream"),
        ("/v1.41", "application/vnd.docker.raw-stream"),
        ("/v1.24", "application/vnd.docker.raw-stream"),
    ],
)
def test_the_content_type_is_that_of_the_clients_version(ask, container, version, content_type):
    answer = ask("GET", f"{version}/containers/{container('echo a')}/logs", stdout=1)
    assert answer.headers["Content-Type"] == content_type
    assert frames(answer) == [(1, b"a\n")]


def test_the_docker_cli_gets_large_frames_and_others_a_line_a_frame(ask, container):
    identifier = container("seq 1 1000")
    lines = frames(ask("GET", f"/containers/{identifier}/logs", stdout=1))
    assert len(lines) == 1000
    bulk = frames(ask("GET", f"/containers/{identifier}/logs", agent="Docker-Client/28.2.2 (linux)", stdout=1))
    assert len(bulk) < 100
    assert b"".join(data for _, data in bulk) == b"".join(data for _, data in lines)


def test_the_head_is_sent_at_once_though_nothing_is_printed(ask, container):
    identifier = container("sleep 30", wait=False)
    began = time.monotonic()
    answer = ask("GET", f"/containers/{identifier}/logs", stdout=1, follow=1)
    assert answer.status == 200
    assert time.monotonic() - began < 2


def test_details_and_timestamps_stand_before_each_line(ask, container):
    options = ("--log-opt", "labels=b,a", "--log-opt", "env=E", "-l", "a=1", "-l", "b=x y", "-e", "E=ü")
    identifier = container("echo one; echo two", *options)
    plain = frames(ask("GET", f"/containers/{identifier}/logs", stdout=1, details=1))
    assert plain == [(1, b"E=%C3%BC,a=1,b=x+y one\n"), (1, b"E=%C3%BC,a=1,b=x+y two\n")]
    (_, first), _ = frames(ask("GET", f"/containers/{identifier}/logs", stdout=1, details=1, timestamps=1))
    assert first[29:] == b"Z E=%C3%BC,a=1,b=x+y one\n"


def test_since_and_until_take_rfc3339_unix_times_and_durations(ask, container):
    identifier = container("echo early; sleep 1.1; echo late")
    path = f"/containers/{identifier}/logs"
    first, second = (data.split(b" ")[0].decode() for _, data in frames(ask("GET", path, stdout=1, timestamps=1)))
    assert frames(ask("GET", path, stdout=1, since=second)) == [(1, b"late\n")]
    assert frames(ask("GET", path, stdout=1, until=first)) == [(1, b"early\n")]
    assert frames(ask("GET", path, stdout=1, since="1h")) == [(1, b"early\n"), (1, b"late\n")]
    assert frames(ask("GET", path, stdout=1, until="1h")) == []
    assert frames(ask("GET", path, stdout=1, until="0", since="0")) == [(1, b"early\n"), (1, b"late\n")]
    assert frames(ask("GET", path, stdout=1, since=f"{int(time.time()) + 3600}.5")) == []


@pytest.mark.parametrize("length", [32_767, 32_768, 33_000, 1 << 20])
def test_a_long_line_comes_back_whole(ask, container, length):
    identifier = container(f"head -c {length} /dev/zero | tr '\\0' x; echo")
    sent = frames(ask("GET", f"/containers/{identifier}/logs", stdout=1))
    assert b"".join(data for _, data in sent) == b"x" * length + b"\n"


def test_any_bytes_come_back_as_they_were(ask, container):
    identifier = container("printf 'a\\0b\\r\\n\\377\\376\\n\\033[31m\\n\\n'; printf tail")
    sent = frames(ask("GET", f"/containers/{identifier}/logs", stdout=1))
    assert b"".join(data for _, data in sent) == b"a\0b\r\n\xff\xfe\n\x1b[31m\n\ntail"
    assert sent[-1] == (1, b"tail")


def test_a_follower_misses_and_doubles_nothing_over_rotation(ask, container):
    script = "i=0; while [ $i -lt 40 ]; do seq $((i*500)) $((i*500+499)); i=$((i+1)); done"
    identifier = container(f"sleep 0.3; {script}", "--log-opt", "max-size=16k", "--log-opt", "max-file=20", wait=False)
    answer = ask("GET", f"/containers/{identifier}/logs", stdout=1, follow=1)
    got = b"".join(data for _, data in frames(answer))
    assert got == b"".join(b"%d\n" % number for number in range(20_000))


def test_a_follower_gets_little_and_much_each_at_its_time(ask, container):
    """Single lines are written as they come, large batches when the follower's turn comes: in order all the same."""
    script = (
        "i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo line $i; usleep 3000; "
        "[ $((i % 9)) -eq 0 ] && seq 1 5000; [ $((i % 7)) -eq 0 ] && printf half && usleep 3000; done"
    )
    identifier = container(script, wait=False)
    answer = ask("GET", f"/containers/{identifier}/logs", agent="logd/1", stdout=1, follow=1, timestamps=1)
    followed = b"".join(data for _, data in frames(answer))
    whole = ask("GET", f"/containers/{identifier}/logs", agent="logd/1", stdout=1, timestamps=1)
    assert followed.count(b"line ") == 60
    assert followed == b"".join(data for _, data in frames(whole))


def test_a_follower_survives_the_removal_of_its_container(ask, container, shared_busybox):
    identifier = container("echo here; sleep 60", wait=False)
    answer = ask("GET", f"/containers/{identifier}/logs", stdout=1, follow=1)
    assert answer.read(8 + 5)[8:] == b"here\n"
    shared_busybox.docker("rm", "-f", identifier)
    assert answer.read() == b""


def test_a_slow_follower_that_falls_behind_is_cut_off_with_an_error(ask, container, shared_busybox):
    script = "sleep 0.5; seq 1 400000; sleep 0.5"
    identifier = container(script, "--log-opt", "max-size=64k", "--log-opt", "max-file=2", wait=False)
    answer = ask("GET", f"/containers/{identifier}/logs", stdout=1, follow=1)
    shared_busybox.docker("wait", identifier)
    sent = frames(answer)
    stream, message = sent[-1]
    assert stream == 3
    assert message.startswith(b"Error grabbing logs: ")
    assert message.endswith(b" of stdout are missing (retention)\n")
    numbers = [int(data) for number, data in sent if number == 1 and data.endswith(b"\n")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_slow_reader_gets_every_byte_and_costs_no_memory(ask, container, shared_busybox):
    identifier = container("seq 1 3000000", "--log-opt", "max-size=100m")
    before = _resident(shared_busybox)
    answers = [ask("GET", f"/containers/{identifier}/logs", agent="Docker-Client/28", stdout=1) for _ in range(4)]
    time.sleep(0.7)
    assert _resident(shared_busybox) - before < 24 << 20
    expected = hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, 3_000_001))).digest()
    got = hashlib.sha256()
    decoder = Decoder()
    while piece := answers[0].read(65536):
        for _, data in decoder.feed(piece):
            got.update(data)
    assert got.digest() == expected


def _resident(daemon):
    with open(f"/proc/{daemon.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_goes_leaves_nothing_behind(ask, container, shared_busybox):
    identifier = container("echo x; sleep 60", wait=False)

    def descriptors():
        return len(os.listdir(f"/proc/{shared_busybox.process.pid}/fd"))

    with contextlib.closing(ask("GET", f"/containers/{identifier}/logs", stdout=1, follow=1)) as first:
        first.read(10)
    time.sleep(0.3)
    before = descriptors()
    for _ in range(20):
        connection = Connection(shared_busybox.socket)
        connection.request("GET", f"/containers/{identifier}/logs?stdout=1&follow=1")
        connection.getresponse().read(10)
        connection.close()
    deadline = time.monotonic() + 5
    while descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors() <= before


# -- our own frames ------------------------------------------------------------------------------------------------


def own_frames(data):
    place = 0
    while place < len(data):
        kind, length, time_ns, position = struct.unpack_from(">BxxxIQQ", data, place)
        yield kind, time_ns, position, data[place + 24 : place + 24 + length]
        place += 24 + length


def test_our_own_frames_carry_times_positions_and_cursors(ask, container):
    identifier = container("echo one; sleep 0.05; echo two >&2; sleep 0.05; printf three")
    answer = ask("GET", f"/logd/containers/{identifier}/logs", stdout=1, stderr=1)
    assert answer.headers["Content-Type"] == "application/vnd.logd.runs"
    start, *runs, end = own_frames(answer.read())
    assert (start[0], start[3]) == (6, b"1:0:0")
    assert [(kind, position, data) for kind, _, position, data in runs] == [
        (1, 0, b"one\n"),
        (2, 0, b"two\n"),
        (1, 4, b"three"),
    ]
    assert sorted(time_ns for _, time_ns, _, _ in runs) == [time_ns for _, time_ns, _, _ in runs]
    assert (end[0], end[3]) == (5, b"1:9:4")


@pytest.mark.parametrize("cursor", ["4,0", "1:4:0"])
def test_a_cursor_resumes_exactly(ask, container, cursor):
    identifier = container("echo one; echo two; echo three")
    answer = ask("GET", f"/logd/containers/{identifier}/logs", stdout=1, stderr=1, after=cursor)
    data = b"".join(data for kind, _, _, data in own_frames(answer.read()) if kind == 1)
    assert data == b"two\nthree\n"


def test_grep_gives_only_the_lines_in_which_it_is_found(ask, container):
    identifier = container("seq 1 2000")
    answer = ask("GET", f"/logd/containers/{identifier}/logs", stdout=1, stderr=1, grep="^1[0-9]9$")
    data = b"".join(data for kind, _, _, data in own_frames(answer.read()) if kind == 1)
    assert data.split() == [b"%d" % number for number in range(109, 200, 10)]


@pytest.mark.parametrize(
    ("query", "message"),
    [({"grep": "("}, "grep: invalid regular expression '(': "), ({"after": "x"}, "after: invalid cursor 'x'")],
)
def test_a_wrong_parameter_of_ours_is_refused_with_its_name(ask, container, query, message):
    answer = ask("GET", f"/logd/containers/{container('true')}/logs", stdout=1, **query)
    assert answer.status == 400
    assert json.loads(answer.read())["message"].startswith(message)


def test_the_state_of_a_log_can_be_asked_for_and_the_log_cleared(ask, container):
    identifier = container("seq 1 1000")
    state = json.loads(ask("GET", f"/logd/containers/{identifier}/log").read())
    size = sum(len(b"%d\n" % number) for number in range(1, 1001))
    assert state["streams"]["stdout"] == {
        "begin": 0,
        "position": size,
        "stored": size,
        "expired": 0,
        "cleared": 0,
        "dropped": {},
    }
    assert state["gaps"] == []
    report = json.loads(ask("GET", "/logd/log/du").read())
    assert identifier in {item["id"] for item in report["containers"]}
    assert report["total"] == sum(item["bytes"] for item in report["containers"])
    assert ask("POST", f"/logd/containers/{identifier}/log/clear").status == 204
    state = json.loads(ask("GET", f"/logd/containers/{identifier}/log").read())
    assert state["streams"]["stdout"] == {
        "begin": size,
        "position": size,
        "stored": 0,
        "expired": 0,
        "cleared": size,
        "dropped": {},
    }
    assert ask("GET", f"/containers/{identifier}/logs", stdout=1).read() == b""


def test_a_log_can_be_checked_and_damage_is_named(ask, container, shared_busybox):
    identifier = container("seq 1 1000")
    report = json.loads(ask("POST", f"/logd/containers/{identifier}/log/fsck").read())
    assert report["problems"] == []
    assert report["bytes"] > 0
    index = next((shared_busybox.data_root / "containers" / identifier / "log").glob("*.index"))
    raw = bytearray(index.read_bytes())
    raw[-40] ^= 1
    index.write_bytes(raw)
    report = json.loads(ask("POST", f"/logd/containers/{identifier}/log/fsck").read())
    assert report["problems"]


def test_a_running_containers_log_can_be_cleared_and_goes_on(ask, container):
    identifier = container("echo before; sleep 1.5; echo after", wait=False)
    time.sleep(0.5)
    assert ask("POST", f"/logd/containers/{identifier}/log/clear").status == 204
    answer = ask("GET", f"/containers/{identifier}/logs", stdout=1, follow=1)
    assert frames(answer) == [(1, b"after\n")]


def test_the_docker_cli_reads_a_million_lines_whole(shared_busybox, container):
    identifier = container("seq 1 1000000", "--log-opt", "max-size=100m")
    read = shared_busybox.docker_popen("logs", identifier, stdout=subprocess.PIPE)
    digest = hashlib.sha256()
    while piece := read.stdout.read(1 << 20):
        digest.update(piece)
    read.communicate(timeout=30)
    assert read.returncode == 0
    assert digest.digest() == hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, 1_000_001))).digest()
