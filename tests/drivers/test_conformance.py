"""The conformance suite, run against the built-in drivers and real servers."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from forward_peer import ForwardPeer
from rsyslog import Rsyslog

from logd.drivers.fluentd import FluentdDriver
from logd.drivers.json_file import JsonFileDriver
from logd.drivers.syslog import SyslogDriver
from logd.record import STDERR, STDOUT
from logd.testing.conformance import DriverConformance
from logd.testing.proxy import Address
from logd.testing.target import Received, Target

STREAMS = {"stdout": STDOUT, "stderr": STDERR}
SEVERITIES = {"6": STDOUT, "3": STDERR}


class JsonFiles(Target):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log_opts(self, address: Address | None) -> dict[str, str]:
        return {}

    async def received(self, container: str) -> list[Received]:
        try:
            raw = (self.folder / container / f"{container}-json.log").read_bytes()
        except FileNotFoundError:
            return []
        records = [json.loads(line) for line in raw.split(b"\n")[:-1]]
        return [Received(container, STREAMS[one["stream"]], one["log"].removesuffix("\n").encode()) for one in records]


class TestJsonFile(DriverConformance):
    driver = JsonFileDriver
    is_networked = False
    is_lossless = False

    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        return JsonFiles(tmp_path)

    def shown(self, line: bytes) -> bytes:
        """Go writes U+FFFD for each byte that is no part of valid UTF-8."""
        return re.sub("[\udc80-\udcff]", "\ufffd", line.decode(errors="surrogateescape")).encode()


class Syslogs(Target):
    def __init__(self, server: Rsyslog) -> None:
        self.server = server
        self.upstream = ("127.0.0.1", server.ports["ptcp"])

    def log_opts(self, address: Address | None) -> dict[str, str]:
        assert isinstance(address, tuple)
        return {"syslog-address": f"tcp://{address[0]}:{address[1]}", "syslog-format": "rfc5424", "tag": "{{.FullID}}"}

    async def received(self, container: str) -> list[Received]:
        found = await asyncio.to_thread(self.server.messages, container)
        return [
            Received(container, SEVERITIES[one["severity"]], one["msg"].encode(errors="surrogateescape"))
            for one in found
        ]


@pytest.fixture(scope="module")
def rsyslog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rsyslog]:
    one = Rsyslog(tmp_path_factory.mktemp("rsyslog")).start()
    yield one
    one.stop()


class TestSyslogOverTCP(DriverConformance):
    driver = SyslogDriver
    is_lossless = False
    splits_lines = True
    tears_lines = True

    @pytest.fixture
    def target(self, rsyslog: Rsyslog) -> Target:
        return Syslogs(rsyslog)

    def shown(self, line: bytes) -> bytes:
        """rsyslog shows control characters in octal."""
        return re.sub(rb"[\x00-\x1f]", lambda found: b"#%03o" % found[0][0], line)


class ForwardServer(Target):
    def __init__(self, peer: ForwardPeer) -> None:
        self.peer = peer
        self.upstream = ("127.0.0.1", peer.port)

    def log_opts(self, address: Address | None) -> dict[str, str]:
        assert isinstance(address, tuple)
        return {"fluentd-address": f"{address[0]}:{address[1]}", "tag": "{{.FullID}}"}

    async def received(self, container: str) -> list[Received]:
        records = [record for one in self.peer.messages if one.tag == container.encode() for _, record in one.entries]
        assert all(one[b"container_id"] == container.encode() for one in records)
        return [Received(container, STREAMS[one[b"source"].decode()], one[b"log"]) for one in records]


class TestFluentd(DriverConformance):
    driver = FluentdDriver

    @pytest_asyncio.fixture
    async def target(self) -> AsyncIterator[Target]:
        async with ForwardPeer() as peer:
            yield ForwardServer(peer)
