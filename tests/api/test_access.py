"""Who gets in: strangers, web pages, slow and greedy clients are kept out, and viewers see only what is no secret."""

import contextlib
import http.client
import importlib
import json
import os
import pkgutil
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import logd.api
from logd.api import viewers
from logd.api.access import Access, Entry, certificate_names
from logd.config import DaemonConfig

sys.path.append(str(Path(__file__).parents[1] / "drivers"))
from certificates import make_ca, make_certificate

NOBODY = 65534
MOST = 40
SECRET = "hunter2-XYZ"
VIEWERS_MAY = {
    ("GET", "/_ping"),
    ("HEAD", "/_ping"),
    ("GET", "/version"),
    ("GET", "/info"),
    ("GET", "/containers/json"),
    ("GET", "/containers/{name}/json"),
    ("GET", "/containers/{name}/logs"),
    ("GET", "/containers/{name}/stats"),
    ("GET", "/containers/{name}/top"),
    ("GET", "/events"),
    ("GET", "/images/json"),
    ("GET", "/images/{name:slashes}/json"),
    ("GET", "/metrics"),
    ("HEAD", "/metrics"),
    ("GET", "/logd/containers/{name}/logs"),
    ("GET", "/logd/containers/{name}/log"),
    ("GET", "/logd/stats"),
    ("GET", "/logd/sd"),
    ("GET", "/logd/doctor"),
}


@pytest.fixture(scope="module")
def place(make_module_daemon, busybox_tar, tmp_path_factory):
    """A daemon on its socket, on TCP and on a read-only socket that everybody may use, with a container in it."""
    folder = tmp_path_factory.mktemp("tls")
    certificates = tmp_path_factory.mktemp("client")
    ca = make_ca(folder, "ca")
    certificate = make_certificate(ca, "server", host="localhost,DNS:box.example")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = {"--tlscacert": ca, "--tlscert": certificate, "--tlskey": certificate.with_suffix(".key")}
    flags = [str(part) for pair in files.items() for part in pair]
    daemon = make_module_daemon("--tlsverify", *flags, "-H", f"tcp://127.0.0.1:{port}", "-H", "unix://")
    readonly = daemon.folder / "ro.sock"
    own = {"log": {"to": "stderr"}, "api": {"max-connections": MOST}}
    own["read-only"] = {"socket": str(readonly), "group": str(NOBODY)}
    daemon.config_file.write_text(json.dumps({"metrics-addr": "", "logd": own}))
    daemon.start()
    daemon.folder.chmod(0o711)
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    daemon.docker(
        *("run", "-d", "--name", "web", "-e", f"TOKEN={SECRET}", "--health-cmd", f"echo {SECRET}"),
        *("--log-opt", f"tag={SECRET}", "--annotation", f"a={SECRET}"),
        *("busybox", "sh", "-c", f"echo hello; : {SECRET}; sleep 600"),
    )
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    context.check_hostname = False
    return SimpleNamespace(
        daemon=daemon,
        socket=str(daemon.socket),
        certificates=certificates,
        readonly=str(readonly),
        port=port,
        context=context,
        pem=certificate,
    )


@contextlib.contextmanager
def connected(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(30)
        connection.connect(path)
        yield connection


def everything(connection):
    """Return what comes until the other side closes or cuts the connection."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            answer += data
    return answer


def ask(path, method, target, *headers):
    """Return the status and the body."""
    with connected(path) as connection:
        head = [f"{method} {target} HTTP/1.0", *headers, "", ""]
        connection.sendall("\r\n".join(head).encode())
        head, _, body = everything(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def over_tcp(place, host, **headers):
    connection = http.client.HTTPSConnection("127.0.0.1", place.port, context=place.context, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/_ping", headers={"Host": host, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()


def as_nobody(path):
    """Return what a user of no group of ours gets: the answer's first line, or the error."""
    code = (
        "import os, socket, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try:\n    s.connect(sys.argv[1]); s.sendall(b'GET /_ping HTTP/1.0\\r\\n\\r\\n'); print(s.recv(12).decode())\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    gid = str(NOBODY if path.endswith("ro.sock") else NOBODY - 1)
    done = subprocess.run([sys.executable, "-c", code, path, gid], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_stranger_gets_on_no_socket_and_a_viewer_on_the_read_only_one(place):
    assert as_nobody(place.socket) == "Permission denied"
    assert as_nobody(place.readonly) == "HTTP/1.0 200"
    assert Path(place.readonly).stat().st_mode & 0o777 == 0o660


def test_each_route_is_allowed_to_viewers_by_name_or_refused():
    modules = [importlib.import_module(f"logd.api.{found.name}") for found in pkgutil.iter_modules(logd.api.__path__)]
    routes = [route for module in modules for route in getattr(module, "ROUTES", ())]
    assert len(routes) > 100
    assert {(route.method, route.path) for route in routes if route.viewers} == VIEWERS_MAY


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/containers/web/stop"),
        ("POST", "/containers/web/attach?stdin=1&stream=1"),
        ("POST", "/containers/create"),
        ("POST", "/containers/web/exec"),
        ("DELETE", "/containers/web"),
        ("GET", "/containers/web/export"),
        ("GET", "/containers/web/archive?path=/etc/passwd"),
        ("GET", "/v1.44/containers/web/changes"),
        ("GET", "/images/get?names=busybox"),
        ("POST", "/logd/containers/web/log/clear"),
        ("GET", "/logd/containers/web/drivers"),
        ("GET", "/containers/web/top?ps_args=eww"),
        ("GET", "/containers/web/logs?stdout=1&details=1"),
    ],
)
def test_viewers_change_nothing_and_get_at_no_file_and_no_environment(place, method, target):
    status, body = ask(place.readonly, method, target)
    assert status == 403
    assert "viewers" in json.loads(body)["message"]


@pytest.mark.parametrize(
    "target",
    [
        "/containers/json?all=1&size=1",
        "/containers/web/json?size=1",
        "/containers/web/top",
        "/containers/web/stats?stream=0",
        "/info",
        "/images/json",
        "/images/busybox/json",
        "/events?since=1&until=0s",
        "/metrics",
        "/logd/stats",
        "/logd/sd",
        "/logd/doctor",
        "/logd/containers/web/log",
    ],
)
def test_what_viewers_are_shown_has_no_secret_in_it(place, target):
    status, body = ask(place.readonly, "GET", target)
    assert status == 200
    assert body
    assert SECRET.encode() not in body


def test_what_is_hidden_from_viewers_is_there_for_others(place):
    shown = json.loads(ask(place.socket, "GET", "/containers/web/json")[1])
    assert f"TOKEN={SECRET}" in shown["Config"]["Env"]
    seen = json.loads(ask(place.readonly, "GET", "/containers/web/json")[1])
    assert (seen["Config"]["Env"], seen["Config"]["Cmd"], seen["Args"]) == ([], [], [])
    assert seen["Config"].keys() == shown["Config"].keys()
    assert seen["State"]["Status"] == "running"
    assert b"hello" in ask(place.readonly, "GET", "/containers/web/logs?stdout=1")[1]


def test_docker_and_logs_work_on_the_read_only_socket(place):
    host = f"unix://{place.readonly}"
    assert "web" in place.daemon.docker("-H", host, "ps").stdout
    assert place.daemon.docker("-H", host, "logs", "web").stdout == "hello\n"
    assert place.daemon.docker("-H", host, "stats", "--no-stream", "web").stdout
    assert "for viewers" in place.daemon.docker("-H", host, "rm", "-f", "web", check=False).stderr
    assert "web" in place.daemon.logd("-H", host, "ps").stdout


def test_an_events_command_is_not_told_to_viewers():
    event = {"Type": "container", "Action": f"exec_create: sh -c {SECRET}", "status": f"exec_create: sh -c {SECRET}"}
    assert SECRET not in str(viewers.event(event))
    assert viewers.event({"Action": "health_status: healthy"}) == {"Action": "health_status: healthy"}


@pytest.mark.parametrize("header", ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"])
def test_a_web_page_is_refused_on_every_socket(place, header):
    for path in (place.socket, place.readonly):
        status, body = ask(path, "GET", "/_ping", header)
        assert (status, "web pages" in json.loads(body)["message"]) == (403, True)
    name, _, value = header.partition(": ")
    assert over_tcp(place, "127.0.0.1", **{name: value})[0] == 403


def test_over_tcp_a_name_that_is_not_ours_is_refused_as_after_dns_rebinding(place):
    for ours in ("127.0.0.1", f"127.0.0.1:{place.port}", "[::1]:1", "localhost:2376", "box.example", "BOX.example:1"):
        assert over_tcp(place, ours) == (200, b"OK")
    for foreign in (
        "evil.example",
        "evil.example:2376",
        "box.example.evil",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
    ):
        status, body = over_tcp(place, foreign)
        assert (status, "no such name" in json.loads(body)["message"]) == (403, True)
    assert ask(place.socket, "GET", "/_ping", "Host: whatever.example")[0] == 200


def test_docker_and_logd_are_served_over_tcp(place):
    key = place.pem.with_suffix(".key")
    for name, source in (("ca.pem", place.pem.with_name("ca.pem")), ("cert.pem", place.pem), ("key.pem", key)):
        shutil.copy(source, place.certificates / name)
    host = f"tcp://localhost:{place.port}"
    environment = {**os.environ, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(place.certificates)}
    assert "web" in place.daemon.logd("-H", host, "ps", env=environment).stdout
    files = [f"--tls{flag}={place.certificates / name}" for flag, name in (("cert", "cert.pem"), ("key", "key.pem"))]
    ca = f"--tlscacert={place.certificates / 'ca.pem'}"
    assert "web" in place.daemon.docker("--tlsverify", *files, ca, "-H", host, "ps").stdout


def test_the_names_of_a_certificate_are_read_from_it(place, tmp_path):
    assert certificate_names(str(place.pem)) == {"localhost", "box.example"}
    assert certificate_names(str(tmp_path / "none")) == frozenset()
    (tmp_path / "bad").write_text("-----BEGIN CERTIFICATE-----\nBgNVHRE=\n-----END CERTIFICATE-----\n")
    assert certificate_names(str(tmp_path / "bad")) == frozenset()
    access = Access(DaemonConfig(tlscert=str(make_certificate(make_ca(tmp_path, "ca"), "wild", host="*.example.org"))))
    assert access.names_this_host("a.example.org:1")
    assert not access.names_this_host("a.b.example.org")
    assert not access.names_this_host("example.org")


def test_a_peer_with_too_many_connections_is_told_so_and_others_are_served():
    access = Access(DaemonConfig(max_connections=2))
    asked = [access.enter("uid 1000") for _ in range(6)]
    assert asked == [Entry.OPEN] * 2 + [Entry.REFUSED] * 2 + [Entry.CUT] * 2
    assert access.enter("uid 1001") is Entry.OPEN
    for _ in range(5):
        access.leave("uid 1000")
    assert access.enter("uid 1000") is Entry.OPEN


def test_beyond_its_share_a_user_gets_503_until_it_closes_some_while_another_is_served(place):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(place.socket)) for _ in range(MOST)]
        for connection in held:
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        status, body = ask(place.socket, "GET", "/_ping")
        assert status == 503
        assert "too many connections from uid 0" in json.loads(body)["message"]
        assert as_nobody(place.readonly) == "HTTP/1.0 200"
        assert over_tcp(place, "127.0.0.1") == (200, b"OK")
        greedy = [stack.enter_context(connected(place.socket)) for _ in range(2 * MOST)]
        assert everything(greedy[-1]) == b""
    deadline = time.monotonic() + 20
    while ask(place.socket, "GET", "/_ping")[0] != 200:
        assert time.monotonic() < deadline
    page = ask(place.socket, "GET", "/metrics")[1].decode()
    assert int(float(re.search(r'connections_cut_total\{reason="too-many"\} (\S+)', page)[1])) >= 1


def test_bytes_pass_both_ways_through_dial_stdio_with_the_end_of_each(place):
    command = [sys.executable, "-m", "logd.cli.main", "-H", f"unix://{place.socket}", "system", "dial-stdio"]
    request = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    done = subprocess.run(command, input=request, capture_output=True, timeout=60, check=True)
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    assert done.stdout.endswith(b"\r\n\r\nOK")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(request)  # and stdin stays open
        process.stdin.flush()
        assert process.stdout.read().endswith(b"\r\n\r\nOK")
        assert process.wait(30) == 0


def test_the_end_of_stdin_goes_through_dial_stdio_to_an_attached_container(place):
    place.daemon.docker("create", "-i", "--name", "counter", "busybox", "wc", "-c")
    command = [sys.executable, "-m", "logd.cli.main", "-H", f"unix://{place.socket}", "system", "dial-stdio"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(
            b"POST /containers/counter/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n"
            b"Connection: Upgrade\r\n\r\n"
        )
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 12) == b"HTTP/1.1 101"
        place.daemon.docker("start", "counter")
        process.stdin.write(b"x" * 100_000)
        process.stdin.close()
        assert process.stdout.read().rstrip().endswith(b"100000")
    assert place.daemon.docker("wait", "counter").stdout == "0\n"
