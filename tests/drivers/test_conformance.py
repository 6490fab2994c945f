"""The conformance suite, run against the built-in drivers and real servers."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from forward_peer import ForwardPeer
from gelf_peer import TcpInput
from rsyslog import Rsyslog
from splunk_peer import TOKEN, Collector

from logd.drivers.fluentd import FluentdDriver
from logd.drivers.gelf import GelfDriver
from logd.drivers.json_file import JsonFileDriver
from logd.drivers.splunk import SplunkDriver
from logd.drivers.syslog import SyslogDriver
from logd.record import STDERR, STDOUT
from logd.testing.conformance import DriverConformance
from logd.testing.proxy import Address
from logd.testing.target import Received, Target

STREAMS = {"stdout": STDOUT, "stderr": STDERR}
LEVELS = {6: STDOUT, 3: STDERR}


def as_json_has_it(line: bytes) -> bytes:
    """Go writes U+FFFD for each byte that is no part of valid UTF-8."""
    return re.sub("[\udc80-\udcff]", "\ufffd", line.decode(errors="surrogateescape")).encode()


class Conformance(DriverConformance):
    send_timeout_s = 0.5


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


class TestJsonFile(Conformance):
    driver = JsonFileDriver
    is_networked = False
    is_lossless = False

    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        return JsonFiles(tmp_path)

    def shown(self, line: bytes) -> bytes:
        return as_json_has_it(line)


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
            Received(container, LEVELS[int(one["severity"])], one["msg"].encode(errors="surrogateescape"))
            for one in found
        ]


@pytest.fixture(scope="module")
def rsyslog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rsyslog]:
    one = Rsyslog(tmp_path_factory.mktemp("rsyslog")).start()
    yield one
    one.stop()


class TestSyslogOverTCP(Conformance):
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


class TestFluentd(Conformance):
    driver = FluentdDriver

    @pytest_asyncio.fixture
    async def target(self) -> AsyncIterator[Target]:
        async with ForwardPeer() as peer:
            yield ForwardServer(peer)


class GelfInput(Target):
    def __init__(self, server: TcpInput) -> None:
        self.server = server
        self.upstream = ("127.0.0.1", server.port)

    def log_opts(self, address: Address | None) -> dict[str, str]:
        assert isinstance(address, tuple)
        return {"gelf-address": f"tcp://{address[0]}:{address[1]}"}

    async def received(self, container: str) -> list[Received]:
        found = [one for one in self.server.messages if one["_container_id"] == container]
        return [Received(container, LEVELS[one["level"]], one["short_message"].encode()) for one in found]


@pytest.mark.soak
class TestGelfOverTCP(Conformance):
    driver = GelfDriver
    is_lossless = False
    keeps_empty_lines = False

    @pytest_asyncio.fixture
    async def target(self) -> AsyncIterator[Target]:
        server = await TcpInput().start()
        yield GelfInput(server)
        await server.stop()

    def shown(self, line: bytes) -> bytes:
        return line.decode(errors="replace").encode()


class SplunkCollector(Target):
    def __init__(self, server: Collector) -> None:
        self.server = server
        self.upstream = ("127.0.0.1", server.port)

    def log_opts(self, address: Address | None) -> dict[str, str]:
        assert isinstance(address, tuple)
        url = f"http://{address[0]}:{address[1]}"
        acks = {"splunk-index-acknowledgment": "true"}
        return {"splunk-url": url, "splunk-token": TOKEN, "tag": "{{.FullID}}", **acks}

    async def received(self, container: str) -> list[Received]:
        events = [one["event"] for one in self.server.events if one["event"]["tag"] == container]
        return [Received(container, STREAMS[one["source"]], one["line"].encode()) for one in events]


@pytest.mark.soak
class TestSplunkWithAcknowledgement(Conformance):
    driver = SplunkDriver
    is_lossless = False

    @pytest_asyncio.fixture
    async def target(self) -> AsyncIterator[Target]:
        server = await Collector(acks=True).start()
        yield SplunkCollector(server)
        await server.stop()

    def shown(self, line: bytes) -> bytes:
        return as_json_has_it(line)
