"""The listener of metrics-addr: what it serves, to whom, and how little a client can take of it."""

import contextlib
import gzip
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scraping import OPENMETRICS, Scrape, ask, enable_metrics, metrics_address, scrape

from logd.api.metrics_listener import MAX_CONNECTIONS, REQUEST_S
from logd.daemon.config_file import load
from logd.errors import InvalidParameter

ROOT = Path(__file__).parents[2]
DEFAULT = ("127.0.0.1", 9323)


@pytest.fixture(scope="module")
def serving(make_lasting_daemon):
    daemon = make_lasting_daemon()
    enable_metrics(daemon)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def where(serving):
    return metrics_address(serving)


def test_the_page_comes_in_the_format_that_was_asked_for(where):
    plain, _ = ask(where)
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    openmetrics, body = ask(where, headers={"Accept": OPENMETRICS})
    assert openmetrics.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")
    assert Scrape(body.decode(), OPENMETRICS).value("machine_cpu_cores") >= 1


def test_the_page_is_compressed_only_for_who_takes_it(where):
    plain, body = ask(where, headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "Content-Encoding" not in plain.headers
    assert body.startswith(b"# HELP")
    packed, body = ask(where, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).startswith(b"# HELP")
    assert int(packed.headers["Content-Length"]) == len(body)


def test_a_head_request_gets_the_head(where):
    response, body = ask(where, "HEAD")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/v1.47/metrics", "/containers/json", "/_ping", "//metrics", "/x"])
def test_nothing_else_is_served(where, path):
    response, body = ask(where, path=path)
    assert (response.status, body) == (404, b"page not found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"])
def test_nothing_can_be_done_there(where, method):
    response, _ = ask(where, method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


def test_a_query_changes_nothing(where):
    response, body = ask(where, path="/metrics?name[]=up")
    assert response.status == 200
    assert Scrape(body.decode()).value("machine_cpu_cores") >= 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9323", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:9323", 200),
        ("[::1]", 200),
        ("10.1.2.3", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:9323", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_a_name_that_a_web_page_could_have_does_not_lead_there(where, host, status):
    response, _ = ask(where, headers={"Host": host})
    assert response.status == status


def test_a_connection_is_for_one_request(where):
    with socket.create_connection(where, timeout=30) as client:
        client.sendall(
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["TLS", "long header", "long path", "two lengths", "nonsense"],
)
def test_what_is_no_request_is_refused_and_costs_no_traceback(serving, where, request_bytes):
    with socket.create_connection(where, timeout=30) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert "Traceback" not in serving.log()
    assert scrape(where).value("machine_cpu_cores") >= 1


def test_a_body_is_not_waited_for(where):
    with socket.create_connection(where, timeout=30) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 405")
        assert not b"".join(iter(lambda: client.recv(65536), b"")).startswith(b"HTTP")


def test_connections_that_ask_nothing_give_way_to_who_asks(where):
    idle = [socket.create_connection(where, timeout=30) for _ in range(MAX_CONNECTIONS)]
    try:
        for _ in range(3):
            assert scrape(where).value("machine_cpu_cores") >= 1
        oldest_first = [_is_cut(one) for one in idle]
        assert sorted(oldest_first, reverse=True) == oldest_first
        assert 1 <= sum(oldest_first) <= 3
    finally:
        for one in idle:
            one.close()


def _is_cut(client):
    client.setblocking(False)
    try:
        return not client.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_a_client_that_sends_its_request_too_slowly_is_cut_off(where):
    with socket.create_connection(where, timeout=REQUEST_S * 6) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localh")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert client.recv(10) == b""
        assert time.monotonic() - begun > REQUEST_S / 2


def test_a_request_that_was_answered_there_is_counted_by_its_route(where):
    ask(where, path="/some/path")
    ask(where, "PROPFIND")
    seen = scrape(where)
    assert seen.value("logd_api_requests_total", route="other", method="GET", code="404") >= 1
    assert seen.value("logd_api_requests_total", route="/metrics", method="other", code="405") >= 1
    assert "/some/path" not in seen.text
    assert "PROPFIND" not in seen.text


def test_an_address_that_was_asked_for_and_is_taken_stops_the_start(make_daemon):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        daemon = make_daemon()
        daemon.config_file.write_text(json.dumps({"metrics-addr": address, "logd": {"log": {"to": "stderr"}}}))
        assert daemon.spawn().wait(60) == 1
        assert f"metrics-addr: {address}: Address already in use" in daemon.log()
        assert "Traceback" not in daemon.log()


def test_the_default_address_that_is_taken_is_warned_about(make_daemon):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(DEFAULT)
            other.listen()
        except OSError:
            pass  # whoever has it serves the purpose
        daemon = make_daemon()
        daemon.config_file.write_text('{"logd": {"log": {"to": "stderr"}}}')
        daemon.start()
        assert re.search(r"level=warn.*metrics-addr: 127\.0\.0\.1:9323: Address already in use", daemon.log())
        assert scrape(daemon.socket).value("machine_cpu_cores") >= 1


@pytest.mark.parametrize(
    ("address", "bound", "warned"),
    [
        ("localhost:0", r"127\.0\.0\.1:\d+", False),
        ("127.0.0.1:0", r"127\.0\.0\.1:\d+", False),
        (":0", r"0\.0\.0\.0:\d+", True),
        ("0.0.0.0:0", r"0\.0\.0\.0:\d+", True),
    ],
)
def test_each_kind_of_address_is_bound_and_one_that_others_reach_is_warned_about(address, bound, warned):
    code = (
        "import dataclasses, logging, sys; logging.basicConfig(level='INFO')\n"
        "from logd.config import DaemonConfig; from logd.daemon.listeners import open_metrics\n"
        "print([one.getsockname() for one in open_metrics(DaemonConfig(metrics_addr=sys.argv[1]))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address], check=True, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert re.search(f"Metrics listen on {bound}", done.stderr)
    assert ("whoever reaches" in done.stderr) is warned


@pytest.mark.parametrize(
    "address", ["9323", "127.0.0.1", "127.0.0.1:70000", "::1:9323x", "a b:1", "http://x:1", "[x]:1"]
)
def test_what_is_no_address_is_refused_with_what_would_be(address, tmp_path):
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"metrics-addr": address}))
    with pytest.raises(InvalidParameter) as refused:
        load(["--config-file", str(file)])
    assert f"metrics-addr: invalid value {json.dumps(address)}" in str(refused.value)
    assert 'accepted: address:port, [IPv6 address]:port or :port, "" for none' in str(refused.value)


def test_a_daemon_does_not_start_with_what_is_no_address(make_daemon):
    daemon = make_daemon()
    daemon.config_file.write_text('{"metrics-addr": "9323", "logd": {"log": {"to": "stderr"}}}')
    assert daemon.spawn().wait(60) == 1
    assert 'metrics-addr: invalid value "9323"' in daemon.log()
