"""Requests that nobody's client sends, on a real daemon: refused, and the daemon goes on."""

import contextlib
import json
import socket
import time

import pytest


@pytest.fixture
def say(shared_busybox):
    """Send bytes and return the whole answer."""

    def send(request, *, timeout=10.0):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(timeout)
            sock.connect(str(shared_busybox.socket))
            answer = b""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(request)
            with contextlib.suppress(ConnectionResetError):
                while data := sock.recv(65536):
                    answer += data
            return answer

    yield send
    answer = send(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nOK")


def wait_until(check):
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, "it did not come true in 20 seconds"
        time.sleep(0.02)


def get(path, *headers):
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers, b"", b""])


@pytest.mark.parametrize(
    "path",
    [
        b"/containers/..%2f..%2f..%2fetc/json",
        b"/containers/../../../etc/passwd/json",
        b"/containers/%00/json",
        b"/containers/%ff%fe/json",
        b"/containers/a%0d%0aX-Evil:%201/json",
        b"/v1.47/containers/" + b"0" * 64 + b"/logs?stdout=1",
        b"/images/../../etc/passwd/json",
        b"/networks/nothing",
        b"/volumes/..%2f..%2fcontainers",
        b"/logd/containers/..%2f..%2fimages/log",
    ],
)
def test_a_name_is_looked_up_and_never_a_path(say, path):
    head, _, body = say(get(path)).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in {b"404", b"400"}
    assert b"X-Evil" not in head
    assert b'"message"' in body or b"Bad" in body


def test_a_volume_is_deleted_by_its_name_only(say, shared_busybox):
    for name in (b"..%2fcontainers", b"..", b".", b"%2e%2e"):
        answer = say(b"DELETE /volumes/" + name + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.split(b" ")[1] in {b"404", b"400"}
    assert (shared_busybox.data_root / "images").is_dir()


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        get(b"/" + b"x" * 2_000_000),
        get(b"/_ping", b"X: " + b"y" * 2_000_000),
        get(b"/_ping", *[b"X%d: y" % number for number in range(2000)]),
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}{}{}",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_or_cut_off(say, request_):
    answer = say(request_)
    assert answer == b"" or answer.split(b" ")[1] in {b"400", b"404", b"431"}


@pytest.mark.parametrize(
    "request_", [get(b"/" + b"x" * 2_000_000), get(b"/_ping", b"X: " + b"y" * 2_000_000), b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_the_parser_refuses_has_a_message_and_is_one_line_of_the_log_without_a_traceback(
    say, shared_busybox, request_
):
    before = len(shared_busybox.log())
    answer = say(request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    message = json.loads(body)["message"]
    if len(request_) > 1 << 20:
        assert head.split(b" ")[1] == b"431"
        assert message == "the request's line or a header is longer than 1048576 bytes"
    else:
        assert head.split(b" ")[1] == b"400"
    wait_until(lambda: "request refused" in shared_busybox.log()[before:])
    said = shared_busybox.log()[before:].splitlines()
    assert len(said) == 1
    assert said[0].startswith("time=")
    assert "level=info" in said[0]
    assert message in said[0]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"Image":' * 100_000, b'{"Cmd":' + b"[" * 50_000])
def test_json_nested_deeply_is_a_bad_request(say, body):
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = say(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_body_beyond_the_limit_is_refused_without_being_kept(say):
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = say(head + b"Content-Length: 5000000\r\n\r\n" + b" " * 5_000_000, timeout=15)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_many_idle_connections_do_not_hold_up_the_others(say, shared_busybox):
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            sock = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            sock.connect(str(shared_busybox.socket))
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHo")
        began = time.monotonic()
        assert say(get(b"/_ping")).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 1
