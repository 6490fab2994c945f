"""A thousand containers that log to one fluentd."""

import asyncio
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from faults import forwarders
from forward_peer import ForwardPeer

COUNT = 1000
AT_ONCE = 4
PATIENCE_S = 300.0


def pss_mb(pid: int) -> float:
    found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def connections(port: int) -> int:
    """Return how many there are to a port, as the kernel has it."""
    command = ["ss", "-Htn", "state", "established", f"dport = :{port}"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_thousand_containers_share_one_connection_to_a_fluentd(shared_busybox: Any) -> None:
    daemon = shared_busybox
    before = pss_mb(daemon.process.pid)
    turn = asyncio.Semaphore(AT_ONCE)
    async with ForwardPeer() as peer:
        address = ["--log-driver", "fluentd", "--log-opt", f"fluentd-address={peer.address}"]

        async def start(number: int) -> str:
            command = ["run", "-d", "--network", "none", *address, "busybox", "sh", "-c"]
            async with turn:
                done = await asyncio.to_thread(daemon.docker, *command, f"echo line {number}; exec sleep 100000")
            return str(done.stdout.strip())

        began = time.monotonic()
        identifiers = await asyncio.gather(*map(start, range(COUNT)))
        started_s = time.monotonic() - began
        while len(peer.lines) < COUNT:
            assert time.monotonic() < began + started_s + PATIENCE_S, f"{len(peer.lines)} lines have come"
            await asyncio.sleep(0.01)
        all_s = time.monotonic() - began
        (forwarder,) = forwarders(daemon)
        print(
            f"{COUNT} containers started in {started_s:.1f} s, all lines there after {all_s:.1f} s, "
            f"connections: {len(peer.connections)} accepted, {connections(peer.port)} by ss; PSS in MB: "
            f"daemon {pss_mb(daemon.process.pid):.1f} (before: {before:.1f}), forwarder {pss_mb(forwarder):.1f}"
        )
        assert sorted(peer.lines) == sorted(b"line %d" % number for number in range(COUNT))
        records = [record for message in peer.messages for _, record in message.entries]
        assert {record[b"container_id"].decode() for record in records} == set(identifiers)
        assert len(peer.connections) == connections(peer.port) == 1
        for one in identifiers[:: COUNT // 10]:
            status = json.loads((await asyncio.to_thread(daemon.logd, "log", "status", "--format", "json", one)).stdout)
            assert [each["difference"] for each in status["drivers"]] == [0]
        began = time.monotonic()
        await asyncio.to_thread(daemon.docker, "rm", "-f", *identifiers, timeout=900)
        print(f"removed in {time.monotonic() - began:.1f} s")
