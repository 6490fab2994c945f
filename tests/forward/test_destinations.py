"""Files, datagrams and unix sockets, and one connection for many: what test_faults.py has no room for.

The container writes 2,000 numbered lines a second and notes its longest write(2): it never waits, every line is there,
in order, and the account of bytes adds up.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

sys.path.append(str(Path(__file__).parents[1] / "drivers"))

from forward_peer import ForwardPeer
from rsyslog import Rsyslog

RATE = 2000
LINES = 4000
LONGEST_WRITE_NS = 1_000_000_000
"""A container that waits for a destination waits for seconds; on a busy machine a write may be late by itself."""


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
        return {one["name"]: one for one in self.daemon.get(f"/logd/containers/{self.id}/drivers")}

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


# -- fluentd ---------------------------------------------------------------------------------------------------------


def fluentd(address: str, *more: str) -> list[str]:
    options = [f"fluentd-address={address}", "fluentd-read-timeout=1s", *more]
    return ["--log-driver", "fluentd", *(word for one in options for word in ("--log-opt", one))]


def kill(daemon: Any, victim: str) -> None:
    if victim == "daemon":
        daemon.kill()
        daemon.start()
        return
    shown = daemon.get("/logd/plugins")["forwarders"]
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
    "how", ["unixgram", *(pytest.param(how, marks=pytest.mark.soak) for how in ("tcp", "unix", "udp"))]
)
def test_rsyslog_gets_every_line(forwarding: Any, loggen: Path, rsyslog: Rsyslog, how: str) -> None:
    writer = Writer(forwarding, loggen, *syslog(rsyslog.address(how)))
    writer.never_waited()
    account = writer.adds_up("syslog")
    assert account["unconfirmed"] == LINES * 100
    count = LINES // 2 if how == "udp" else LINES  # what a datagram's receiver has no room for is gone
    arrived = [int(one["msg"].strip()[1:11]) for one in rsyslog.wait_for("t", count)]
    assert sorted(arrived) == list(range(LINES)) or how == "udp"


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
def test_with_cache_disabled_docker_logs_is_refused(forwarding: Any) -> None:
    options = ["--log-driver", "fluentd", "--log-opt", "cache-disabled=true"]
    container = forwarding.docker("run", "-d", "--network", "none", *options, "busybox", "true").stdout.strip()
    refused = forwarding.docker("logs", container, check=False)
    assert "configured logging driver does not support reading" in refused.stderr
