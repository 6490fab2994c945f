"""Every log driver behind the unmodified docker command line, with a real server or peer at the other end.

A container prints a short line, one of 1 MiB, and pretty-printed JSON, of which lines end in `",`.
"""

import asyncio
import http.client
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

sys.path.append(str(Path(__file__).parents[1] / "drivers"))

import forward_peer
from certificates import make_ca, make_certificate
from forward_peer import FluentServer
from gelf_peer import TcpInput, UdpInput
from journald_peer import Journald
from journald_peer import message as journald_message
from rsyslog import Rsyslog
from splunk_peer import TOKEN, Collector

pytestmark = pytest.mark.calm

PRETTY = json.dumps({"level": "info", "message": "done", "list": ["a", "b,", {"x": '"', "y": "é"}]}, indent=2)
LINES = [b"hello", b"x" * (1 << 20), *PRETTY.encode().split(b"\n")]
OUTPUT = b"\n".join(LINES) + b"\n"
LOOK_S = 0.05


@dataclass
class Record:
    """One message at a destination: a line or a part of one, and what tells of the container."""

    line: bytes
    container: str
    """Its name, or its tag."""
    stream: str


Receive = Callable[[], list[Record]]


@dataclass
class Place:
    """A destination: the log-opts that lead to it, and what it has got."""

    opts: list[str]
    received: Receive
    keeps_lines: bool = True
    """Whether a line of 1 MiB is one record there."""


def record(line: str | bytes, container: str, stream: str) -> Record:
    return Record(line if isinstance(line, bytes) else line.encode(), container.removeprefix("/"), stream)


SEVERITIES = {"6": "stdout", "3": "stderr"}


@asynccontextmanager
async def rsyslog(folder: Path, how: str) -> AsyncIterator[Place]:
    ca = make_ca(folder, "ca") if how == "tcp+tls" else None
    tls = {"ca": ca, "certificate": make_certificate(ca, "server")} if ca else {}
    server = Rsyslog(folder / "rsyslog", **tls).start()
    opts = [f"syslog-address={server.address(how)}", "syslog-format=rfc5424"]
    opts += [f"syslog-tls-ca-cert={ca}"] * bool(ca)
    opts += ["syslog-udp-rate=2000"] * (how == "udp")  # what a datagram's receiver has no room for is gone

    def received() -> list[Record]:
        found = server.messages("web")
        return [record(one["msg"], one["app"], SEVERITIES[one["severity"]]) for one in found]

    try:
        yield Place(opts, received, keeps_lines=False)
    finally:
        server.stop(signal.SIGKILL)


@asynccontextmanager
async def journald(folder: Path) -> AsyncIterator[Place]:
    server = Journald(folder / "journald")
    server.start()

    def received() -> list[Record]:
        found = server.entries("CONTAINER_NAME=web")
        assert all(one["CONTAINER_TAG"] == one["SYSLOG_IDENTIFIER"] == "web" for one in found)
        assert [int(one["CONTAINER_LOG_ORDINAL"]) for one in found] == list(range(1, len(found) + 1))
        return [record(journald_message(one), one["CONTAINER_NAME"], SEVERITIES[one["PRIORITY"]]) for one in found]

    try:
        yield Place([f"journald-socket={server.socket}"], received)
    finally:
        server.stop(signal.SIGKILL)


@asynccontextmanager
async def fluentd(folder: Path, how: str) -> AsyncIterator[Place]:
    """One that is not ours. It acknowledges."""
    options: dict[str, Any] = {}
    more = []
    scheme = "tls://localhost" if how == "tls" else "127.0.0.1"
    if how == "tls":
        certificates = forward_peer.Certificates(folder)
        options["tlsOptions"] = certificates.server()
        more = [f"fluentd-tls-ca-cert={certificates['ca.crt']}"]
    if how == "shared key":
        options["security"] = {"serverHostname": "server", "sharedKey": "secret", "authorize": False, "userDict": {}}
        more = ["fluentd-shared-key=secret"]
    async with FluentServer(**options) as server:
        reading = asyncio.create_task(server.records(len(LINES)))

        def received() -> list[Record]:
            records = [one["record"] for one in server.received]
            assert all(one["tag"] == "web" for one in server.received)
            return [record(one["log"], one["container_name"], one["source"]) for one in records]

        yield Place([f"fluentd-address={scheme}:{server.port}", *more], received)
        reading.cancel()
        await asyncio.wait([reading])


@asynccontextmanager
async def splunk(folder: Path, how: str) -> AsyncIterator[Place]:
    ca = make_ca(folder, "ca") if how == "tls" else None
    server = await Collector(acks=True).start(make_certificate(ca, "server") if ca else None)
    opts = [f"splunk-url={server.url}", f"splunk-token={TOKEN}", "splunk-index-acknowledgment=true"]
    opts += [f"splunk-capath={ca}"] * bool(ca)

    def received() -> list[Record]:
        return [record(one["line"], one["tag"], one["source"]) for one in (event["event"] for event in server.events)]

    try:
        yield Place(opts, received)
    finally:
        await server.stop()


def from_gelf(messages: list[dict[str, Any]]) -> list[Record]:
    return [record(one["short_message"], one["_container_name"], SEVERITIES[str(one["level"])]) for one in messages]


@asynccontextmanager
async def gelf_tcp(folder: Path, how: str) -> AsyncIterator[Place]:
    ca = make_ca(folder, "ca") if how == "tls" else None
    server = await TcpInput().start(make_certificate(ca, "server") if ca else None)
    opts = [f"gelf-address={server.address}", *[f"gelf-tls-ca-cert={ca}"] * bool(ca)]
    try:
        yield Place(opts, lambda: from_gelf(server.messages), keeps_lines=False)
    finally:
        await server.stop()


@asynccontextmanager
async def gelf_udp(folder: Path) -> AsyncIterator[Place]:
    server = UdpInput()
    try:
        opts = [f"gelf-address={server.address}", "gelf-udp-rate=500"]
        yield Place(opts, lambda: from_gelf(server.messages), keeps_lines=False)
    finally:
        server.close()


DESTINATIONS: dict[str, Callable[[Path], Any]] = {
    "journald": journald,
    "syslog udp": lambda folder: rsyslog(folder, "udp"),
    "syslog tcp": lambda folder: rsyslog(folder, "tcp"),
    "syslog tls": lambda folder: rsyslog(folder, "tcp+tls"),
    "syslog unix": lambda folder: rsyslog(folder, "unix"),
    "fluentd": lambda folder: fluentd(folder, ""),
    "fluentd shared key": lambda folder: fluentd(folder, "shared key"),
    "fluentd tls": lambda folder: fluentd(folder, "tls"),
    "splunk": lambda folder: splunk(folder, ""),
    "splunk tls": lambda folder: splunk(folder, "tls"),
    "gelf udp": gelf_udp,
    "gelf tcp": lambda folder: gelf_tcp(folder, ""),
    "gelf tls": lambda folder: gelf_tcp(folder, "tls"),
}
UNCONFIRMED = {"journald", "syslog", "gelf"}


class Box:
    """A container named `web` that prints OUTPUT, through the docker command line; then it waits to be killed."""

    def __init__(self, daemon: Any, folder: Path, driver: str, opts: list[str]) -> None:
        self.daemon = daemon
        (folder / "output").write_bytes(OUTPUT)
        self.folder = folder
        self.flags = ["--log-driver", driver, *(word for one in opts for word in ("--log-opt", one))]

    async def docker(self, *arguments: str, **options: Any) -> Any:
        return await asyncio.to_thread(self.daemon.docker, *arguments, text=False, **options)

    async def create(self) -> None:
        script = ["sh", "-c", "cat /w/output; exec sleep 1000"]
        where = ["--name", "web", "--network", "none", "-v", f"{self.folder}:/w"]
        await self.docker("create", *where, *self.flags, "busybox", *script)

    async def start(self) -> None:
        await self.docker("start", "web")

    async def logs(self) -> bytes:
        done = await self.docker("logs", "web")
        assert done.stderr == b""
        return bytes(done.stdout)

    async def has_printed(self) -> None:
        while await self.logs() != OUTPUT:
            await asyncio.sleep(LOOK_S)

    async def account(self) -> dict[str, Any]:
        """Return what the log's status says of the driver once nothing waits for it."""

        def ask() -> Any:
            status = self.daemon.get("/logd/containers/web/log")
            (one,) = status["drivers"]
            return not one["buffered"] and one

        return dict(await asyncio.to_thread(wait_until, ask))

    async def stop(self) -> None:
        await self.docker("kill", "web")
        await self.docker("wait", "web")


@pytest.fixture
async def box(forwarding: Any, tmp_path: Path) -> AsyncIterator[Callable[..., Box]]:
    tmp_path.chmod(0o755)
    yield lambda driver, opts: Box(forwarding, tmp_path, driver, opts)
    await asyncio.to_thread(forwarding.docker, "rm", "-f", "web", check=False)


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_what_a_container_prints_is_at_its_destination_and_in_docker_logs(
    box: Callable[..., Box], tmp_path: Path, destination: str
) -> None:
    driver = destination.split(maxsplit=1)[0]
    async with DESTINATIONS[destination](tmp_path) as place:
        one = box(driver, [*place.opts, "tag={{.Name}}"])
        await one.create()
        await one.start()
        await one.has_printed()
        account = await one.account()
        while sum(len(each.line) for each in place.received()) < len(OUTPUT) - len(LINES):
            await asyncio.sleep(LOOK_S)
        records = place.received()
    assert {(each.container, each.stream) for each in records} == {("web", "stdout")}
    assert b"".join(each.line for each in records) == b"".join(LINES)
    assert [each.line for each in records if len(each.line) < 100] == [line for line in LINES if len(line) < 100]
    if place.keeps_lines:
        assert [each.line for each in records] == LINES
    counted = "unconfirmed" if driver in UNCONFIRMED else "delivered"
    assert account[counted] == account["captured"] == len(OUTPUT)
    assert (account["difference"], account["dropped"], account["error"]) == (0, {}, "")
    await one.stop()
    assert await one.logs() == OUTPUT


@pytest.mark.parametrize("destination", ["journald", "syslog tcp", "syslog unix", "fluentd", "splunk", "gelf tcp"])
async def test_docker_logs_has_every_byte_while_the_destination_is_away_and_after_the_end(
    box: Callable[..., Box], tmp_path: Path, destination: str
) -> None:
    async with DESTINATIONS[destination](tmp_path) as place:
        one = box(destination.split(maxsplit=1)[0], place.opts)
        await one.create()
    await one.start()
    await one.has_printed()
    await one.stop()
    assert await one.logs() == OUTPUT


async def test_json_file_is_where_docker_has_it_and_the_local_driver_has_no_destination(
    box: Callable[..., Box], forwarding: Any
) -> None:
    one = box("json-file", ["tag={{.Name}}"])
    await one.create()
    await one.start()
    await one.has_printed()
    account = await one.account()
    assert account["delivered"] == account["captured"] == len(OUTPUT)
    assert account["difference"] == 0
    path = (await one.docker("inspect", "-f", "{{.LogPath}}", "web")).stdout.decode().strip()
    records = [json.loads(line) for line in Path(path).read_bytes().splitlines()]
    assert "".join(each["log"] for each in records).encode() == OUTPUT
    assert {(each["stream"], each["attrs"]["tag"]) for each in records} == {("stdout", "web")}
    await one.docker("rm", "-f", "web")
    one = box("local", [])
    await one.create()
    await one.start()
    await one.has_printed()
    await one.stop()
    assert await one.logs() == OUTPUT
    assert json.loads(forwarding.logd("log", "status", "--format", "json", "web").stdout)["drivers"] == []


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


async def test_with_the_driver_none_a_client_that_is_attached_has_all_and_logs_are_refused_as_docker_does(
    box: Callable[..., Box], forwarding: Any
) -> None:
    one = box("none", [])
    run = ["run", "--name", "web", "--network", "none", "-v", f"{one.folder}:/w", *one.flags, "busybox"]
    assert (await one.docker(*run, "cat", "/w/output")).stdout == OUTPUT
    words = "configured logging driver does not support reading"
    refused = await one.docker("logs", "web", check=False)
    assert refused.stderr.decode().strip() == f"Error response from daemon: {words}"
    connection = UnixConnection(forwarding.socket)
    connection.request("GET", "/v1.41/containers/web/logs?stdout=1")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (501, {"message": words})
    connection.close()
