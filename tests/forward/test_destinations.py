"""Real destinations behind the docker command line: what a container prints arrives, whatever happens to them.

The container writes 2,000 numbered lines a second and notes its longest write(2). After each fault: it never waited,
every line is there, in order, and the account of bytes adds up.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

sys.path.append(str(Path(__file__).parents[1] / "drivers"))

from forward_peer import Connection, FluentServer, ForwardPeer, Message, acknowledge, say_nothing
from rsyslog import Rsyslog

LOGGEN_SOURCE = Path(__file__).parents[2] / "bench" / "loggen.c"
RATE = 2000
LINES = 4000
LONGEST_WRITE_NS = 1_000_000_000
"""A container that waits for a destination waits for seconds; on a busy machine a write may be late by itself."""


@pytest.fixture(scope="module")
def loggen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("loggen") / "loggen"
    subprocess.run(["gcc", "-O2", "-static", "-o", target, LOGGEN_SOURCE], check=True)
    target.parent.chmod(0o777)
    return target


class Writer:
    """A container that writes numbered lines, and what is known of it."""

    def __init__(self, daemon: Any, loggen: Path, *options: str, lines: int = LINES) -> None:
        self.daemon = daemon
        self.lines = lines
        self.report = loggen.parent / "report"
        self.report.unlink(missing_ok=True)
        generate = ["/w/loggen", "gen", "-n", str(lines), "-r", str(RATE), "-t", "-o", "/w/report"]
        mount = ["-v", f"{loggen.parent}:/w", "--network", "none"]
        self.id = daemon.docker("run", "-d", *mount, *options, "busybox", *generate).stdout.strip()

    def runs(self) -> bool:
        return bool(self.daemon.docker("ps", "-q", "--no-trunc", "--filter", f"id={self.id}").stdout)

    def drivers(self) -> dict[str, Any]:
        shown = json.loads(self.daemon.logd("log", "driver", "ls", "--format", "json", self.id).stdout)
        return {one["name"]: one for one in shown}

    def never_waited(self) -> None:
        """Wait for the container's end, and see that no write of it took long."""
        assert self.daemon.docker("wait", self.id).stdout == "0\n"
        report = json.loads(self.report.read_text())
        assert report["lines"] == self.lines
        assert report["longest_write_ns"] < LONGEST_WRITE_NS

    def adds_up(self, name: str) -> dict[str, Any]:
        """Wait until nothing is waiting for a driver, and see that no byte is missing in its account."""
        account = wait_until(lambda: (found := self.drivers()[name]) and not found["buffered"] and found)
        assert account["difference"] == 0
        assert account["dropped"] == {}
        assert account["captured"] == self.lines * 100
        return dict(account)


def numbers(lines: list[bytes]) -> list[int]:
    return [int(line[1:11]) for line in lines]


def first_seen(values: list[int]) -> list[int]:
    return list(dict.fromkeys(values))


# -- fluentd ---------------------------------------------------------------------------------------------------------


def fluentd(address: str, *more: str) -> list[str]:
    options = [f"fluentd-address={address}", "fluentd-read-timeout=1s", *more]
    return ["--log-driver", "fluentd", *(word for one in options for word in ("--log-opt", one))]


async def half(peer: ForwardPeer, connection: Connection, message: Message) -> None:
    if len(peer.messages) % 2:
        connection.ack(message.chunk)


async def reset(peer: ForwardPeer, connection: Connection, message: Message) -> None:
    if len(peer.messages) % 3:
        connection.ack(message.chunk)
    else:
        connection.reset()


async def doubled_and_unknown(peer: ForwardPeer, connection: Connection, message: Message) -> None:
    connection.ack(b"bm9uZQ==", message.chunk, message.chunk)


@asynccontextmanager
async def away_at_first(peer: ForwardPeer) -> AsyncIterator[None]:
    async with peer:
        pass
    await asyncio.sleep(3)
    async with peer:
        yield


@asynccontextmanager
async def restarted(peer: ForwardPeer) -> AsyncIterator[None]:
    for _ in range(3):
        async with peer:
            await asyncio.sleep(1)
    async with peer:
        yield


FAULTS: dict[str, tuple[Callable[[], ForwardPeer], Callable[[ForwardPeer], Any]]] = {
    "none": (lambda: ForwardPeer(acknowledge), lambda peer: peer),
    "acknowledges half": (lambda: ForwardPeer(half), lambda peer: peer),
    "resets": (lambda: ForwardPeer(reset), lambda peer: peer),
    "resets in the middle of a message": (lambda: ForwardPeer(acknowledge, reset_after=200_000), lambda peer: peer),
    "doubled and unknown acknowledgements": (lambda: ForwardPeer(doubled_and_unknown), lambda peer: peer),
    "away at first": (lambda: ForwardPeer(acknowledge), away_at_first),
    "restarted again and again": (lambda: ForwardPeer(acknowledge), restarted),
}


SHORT = ("none", "resets", "restarted again and again")


@pytest.mark.calm
@pytest.mark.parametrize(
    "fault", [one if one in SHORT else pytest.param(one, marks=pytest.mark.soak) for one in FAULTS]
)
async def test_fluentd_gets_every_line_and_no_write_waits(forwarding: Any, loggen: Path, fault: str) -> None:
    make, around = FAULTS[fault]
    peer = make()
    async with peer:
        pass  # it has a port now
    writing = asyncio.create_task(asyncio.to_thread(Writer, forwarding, loggen, *fluentd(peer.address)))
    async with around(peer):
        writer = await writing
        await asyncio.to_thread(writer.never_waited)
        account = await asyncio.to_thread(writer.adds_up, "fluentd")
    assert account["delivered"] == LINES * 100
    assert first_seen(numbers(peer.lines)) == list(range(LINES))


@pytest.mark.calm
@pytest.mark.parametrize("deaf", [pytest.param("does not read", marks=pytest.mark.soak), "does not acknowledge"])
async def test_a_fluentd_that_does_not_answer_holds_up_nobody_and_gets_all_once_it_does(
    forwarding: Any, loggen: Path, deaf: str
) -> None:
    peer = ForwardPeer(say_nothing, reads=deaf != "does not read")
    async with peer:
        writer = await asyncio.to_thread(Writer, forwarding, loggen, *fluentd(peer.address))
        await asyncio.to_thread(writer.never_waited)
        waiting = await asyncio.to_thread(lambda: writer.drivers()["fluentd"])
        assert (waiting["delivered"], waiting["buffered"]) == (0, LINES * 100)
    other = ForwardPeer()
    other.port = peer.port
    async with other:
        await asyncio.to_thread(writer.adds_up, "fluentd")
    assert first_seen(numbers(other.lines)) == list(range(LINES))


@pytest.mark.parametrize("victim", ["forwarder", pytest.param("daemon", marks=pytest.mark.soak)])
async def test_processes_killed_again_and_again_cost_fluentd_no_line(
    forwarding: Any, loggen: Path, victim: str
) -> None:
    async with ForwardPeer() as peer:
        writer = await asyncio.to_thread(Writer, forwarding, loggen, *fluentd(peer.address), lines=2 * LINES)
        for _ in range(4):
            count = len(peer.lines)
            await peer.until(lambda count=count: len(peer.lines) > count or count >= 2 * LINES)
            await asyncio.to_thread(kill, forwarding, victim)
        await asyncio.to_thread(writer.never_waited)
        await asyncio.to_thread(writer.adds_up, "fluentd")
    assert first_seen(numbers(peer.lines)) == list(range(2 * LINES))


def kill(daemon: Any, victim: str) -> None:
    if victim == "daemon":
        daemon.kill()
        daemon.start()
        return
    shown = json.loads(daemon.logd("plugins", "--format", "json").stdout)["forwarders"]
    for one in shown:
        if one["pid"]:
            os.kill(one["pid"], signal.SIGKILL)


@pytest.mark.calm
async def test_many_containers_share_one_connection_to_a_fluentd(forwarding: Any) -> None:
    async with ForwardPeer() as peer:
        options = fluentd(peer.address)
        script = "echo one; sleep 60"
        for _ in range(12):
            command = ["run", "-d", "--network", "none", *options, "busybox", "sh", "-c", script]
            await asyncio.to_thread(forwarding.docker, *command)
        await peer.until(lambda: len(peer.lines) == 12)
        assert len(peer.connections) == 1


@pytest.mark.calm
async def test_a_fluent_server_that_is_not_ours_gets_dockers_record(forwarding: Any) -> None:
    async with FluentServer() as server:
        options = [*fluentd(server.address), "--log-opt", "tag=t.{{.Name}}", "--name", "web"]
        run = ["run", "--network", "none", *options, "busybox", "echo", "hello"]
        assert (await asyncio.to_thread(forwarding.docker, *run)).stdout == "hello\n"
        (record,) = await server.records(1)
    assert record["tag"] == "t.web"
    assert record["record"]["log"] == "hello"
    assert record["record"]["container_name"] == "/web"
    assert record["record"]["source"] == "stdout"


# -- syslog ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    one = Rsyslog(tmp_path / "rsyslog").start()
    yield one
    one.stop(signal.SIGKILL)


def syslog(address: str) -> list[str]:
    options = [f"syslog-address={address}", "syslog-format=rfc5424micro", "tag=t"]
    return ["--log-driver", "syslog", *(word for one in options for word in ("--log-opt", one))]


@pytest.mark.calm
@pytest.mark.parametrize(
    "how", ["tcp", "unixgram", *(pytest.param(how, marks=pytest.mark.soak) for how in ("unix", "udp"))]
)
def test_rsyslog_gets_every_line(forwarding: Any, loggen: Path, rsyslog: Rsyslog, how: str) -> None:
    writer = Writer(forwarding, loggen, *syslog(rsyslog.address(how)))
    writer.never_waited()
    account = writer.adds_up("syslog")
    assert account["unconfirmed"] == LINES * 100
    count = LINES // 2 if how == "udp" else LINES  # what a datagram's receiver has no room for is gone
    arrived = [int(one["msg"].strip()[1:11]) for one in rsyslog.wait_for("t", count)]
    assert sorted(arrived) == list(range(LINES)) or how == "udp"


@pytest.mark.calm
def test_rsyslog_that_is_away_for_a_while_gets_what_it_has_missed(
    forwarding: Any, loggen: Path, rsyslog: Rsyslog
) -> None:
    rsyslog.stop()
    writer = Writer(forwarding, loggen, *syslog(rsyslog.address("tcp")))
    writer.never_waited()
    assert forwarding.docker("logs", "--tail", "1", writer.id).stdout.startswith(f"S{LINES - 1:010}")
    rsyslog.start()
    writer.adds_up("syslog")
    arrived = [int(one["msg"].strip()[1:11]) for one in rsyslog.wait_for("t", LINES)]
    assert first_seen(arrived) == list(range(LINES))


# -- json-file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", [pytest.param("forwarder", marks=pytest.mark.soak), "daemon"])
def test_json_file_has_each_line_once_although_processes_are_killed(forwarding: Any, loggen: Path, victim: str) -> None:
    writer = Writer(forwarding, loggen, "--log-driver", "json-file", lines=2 * LINES)
    path = Path(forwarding.docker("inspect", "-f", "{{.LogPath}}", writer.id).stdout.strip())
    for _ in range(4):
        size = path.stat().st_size if path.exists() else 0
        wait_until(lambda size=size: (path.exists() and path.stat().st_size > size) or not writer.runs())
        kill(forwarding, victim)
    writer.never_waited()
    writer.adds_up("json-file")
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [int(one["log"][1:11]) for one in lines] == list(range(2 * LINES))
    assert {one["stream"] for one in lines} == {"stdout"}


@pytest.mark.calm
def test_logs_works_with_every_driver_while_the_destination_is_down_and_after_the_end(forwarding: Any) -> None:
    down = {
        "fluentd": "fluentd-address=127.0.0.1:9",
        "syslog": "syslog-address=tcp://127.0.0.1:9",
        "json-file": "max-size=1m",
    }
    for driver, option in down.items():
        run = ["run", "-d", "--network", "none", "--log-driver", driver, "--log-opt", option]
        container = forwarding.docker(*run, "busybox", "echo", "hello").stdout.strip()
        forwarding.docker("wait", container)
        assert forwarding.docker("logs", container).stdout == "hello\n"
    container = forwarding.docker(
        "run",
        "-d",
        "--network",
        "none",
        "--log-driver",
        "fluentd",
        "--log-opt",
        "cache-disabled=true",
        "busybox",
        "true",
    ).stdout.strip()
    refused = forwarding.docker("logs", container, check=False)
    assert "configured logging driver does not support reading" in refused.stderr
