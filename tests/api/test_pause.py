"""Pausing: dockerd's words and events, through what else is asked of a paused container, and over daemons."""

import contextlib
import http.client
import json
import socket
import subprocess
import time

import pytest


class Socket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.path))


def post(daemon, path):
    """Return the status and the message of an error."""
    with contextlib.closing(Socket(daemon.socket)) as connection:
        connection.request("POST", path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body)["message"] if body else ""


def state(daemon, name):
    return json.loads(daemon.docker("inspect", name).stdout)[0]["State"]


def wait_until(check):
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, "it did not come true in 30 seconds"
        time.sleep(0.02)


@pytest.fixture
def talker(shared_busybox):
    """A container that counts aloud; its name."""
    name = f"talker-{time.monotonic_ns()}"
    shared_busybox.docker(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "i=0; while :; do echo $((i+=1)); sleep 0.02; done"
    )
    yield name
    shared_busybox.docker("rm", "-f", name)


def lines(daemon, name):
    return daemon.docker("logs", name).stdout.split()


def test_a_paused_container_says_nothing_until_it_goes_on_and_loses_nothing(shared_busybox, talker):
    wait_until(lambda: lines(shared_busybox, talker))
    shared_busybox.docker("pause", talker)
    assert state(shared_busybox, talker)["Status"] == "paused"
    assert "(Paused)" in shared_busybox.docker("ps", "--filter", f"name={talker}", "--format", "{{.Status}}").stdout
    before = lines(shared_busybox, talker)
    with shared_busybox.docker_popen("logs", "-f", talker, stdout=subprocess.PIPE, text=True) as follower:
        assert lines(shared_busybox, talker) == before
        shared_busybox.docker("unpause", talker)
        assert state(shared_busybox, talker)["Status"] == "running"
        followed = [follower.stdout.readline().strip() for _ in range(len(before) + 3)]
        follower.kill()
    assert followed == [str(number + 1) for number in range(len(before) + 3)]


def test_the_wrong_state_is_refused_in_dockerds_words(shared_busybox, talker):
    identifier = json.loads(shared_busybox.docker("inspect", talker).stdout)[0]["Id"]
    assert post(shared_busybox, f"/containers/{talker}/unpause") == (500, f"Container {identifier} is not paused")
    assert post(shared_busybox, f"/containers/{talker}/pause") == (204, "")
    assert post(shared_busybox, f"/containers/{talker}/pause") == (409, f"Container {identifier} is already paused")
    assert post(shared_busybox, f"/containers/{talker}/start")[0] == 409
    assert "paused" in shared_busybox.docker("rm", talker, check=False).stderr
    shared_busybox.docker("kill", talker)
    wait_until(lambda: not state(shared_busybox, talker)["Running"])
    assert post(shared_busybox, f"/containers/{talker}/pause") == (409, f"Container {identifier} is not running")
    assert post(shared_busybox, "/containers/nosuch/pause") == (404, "No such container: nosuch")


@pytest.mark.parametrize("command", [("stop", "-t", "1"), ("kill",), ("restart", "-t", "0"), ("rm", "-f")])
def test_what_ends_a_paused_container_lets_it_go_on(shared_busybox, talker, command):
    began = time.time()
    shared_busybox.docker("pause", talker)
    shared_busybox.docker(*command, talker)
    asked = ("events", "--since", str(began), "--until", str(time.time()), "--filter", f"container={talker}")
    actions = shared_busybox.docker(*asked, "--format", "{{.Action}}").stdout.split()
    assert [action for action in actions if action in {"pause", "die"}] == ["pause", "die"]
    if command[0] != "rm":
        assert state(shared_busybox, talker)["Paused"] is False


def test_a_signal_that_is_not_the_end_leaves_a_container_paused(shared_busybox):
    shared_busybox.docker("run", "-d", "--name", "steady", "--stop-signal", "USR1", "busybox", "sleep", "600")
    shared_busybox.docker("pause", "steady")
    shared_busybox.docker("kill", "-s", "TERM", "steady")
    assert state(shared_busybox, "steady")["Status"] == "paused"
    shared_busybox.docker("rm", "-f", "steady")


def test_a_new_daemon_finds_a_paused_container_paused_and_can_let_it_go_on(shared_busybox, talker):
    shared_busybox.docker("pause", talker)
    before = lines(shared_busybox, talker)
    shared_busybox.kill()
    shared_busybox.start()
    assert state(shared_busybox, talker)["Status"] == "paused"
    assert lines(shared_busybox, talker) == before
    shared_busybox.docker("unpause", talker)
    wait_until(lambda: len(lines(shared_busybox, talker)) > len(before))
    shared_busybox.kill()
    shared_busybox.start()
    assert state(shared_busybox, talker)["Status"] == "running"
