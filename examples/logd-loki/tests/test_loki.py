"""The driver and a peer that speaks the whole push protocol: logd's conformance suite, and option by option."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from logd_loki import LokiDriver, LokiOptions
from loki_peer import LokiPeer

from logd.driver import parse_options
from logd.errors import InvalidParameter
from logd.record import STDERR, STDOUT
from logd.testing.bench import Bench
from logd.testing.conformance import DriverConformance
from logd.testing.proxy import Address
from logd.testing.target import Received, Target

URL = "http://127.0.0.1:3100"


class Loki(Target):
    def __init__(self, peer: LokiPeer) -> None:
        self.peer = peer
        self.upstream = peer.address

    def log_opts(self, address: Address | None) -> dict[str, str]:
        assert isinstance(address, tuple)
        return {"loki-url": f"http://{address[0]}:{address[1]}", "tag": "{{.FullID}}"}

    async def received(self, container: str) -> list[Received]:
        return [
            Received(container, stream, entry.line.encode())
            for stream, source in ((STDOUT, "stdout"), (STDERR, "stderr"))
            for entry in self.peer.entries(tag=container, source=source)
        ]


class TestLoki(DriverConformance):
    driver = LokiDriver
    is_lossless = False

    @pytest_asyncio.fixture
    async def target(self) -> AsyncIterator[Target]:
        async with LokiPeer() as peer:
            yield Loki(peer)

    def shown(self, line: bytes) -> bytes:
        return line.decode(errors="replace").encode()


@pytest.fixture
async def peer() -> AsyncIterator[LokiPeer]:
    async with LokiPeer() as peer:
        yield peer


async def deliver(folder: Path, lines: list[bytes], **log_opts: str) -> Bench:
    async with Bench(folder, LokiDriver, {name.replace("_", "-"): value for name, value in log_opts.items()}) as bench:
        box = bench.container("web")
        box.prints((STDOUT, line) for line in lines)
        bench.deliver(box)
        await bench.finish()
        return bench


async def test_equal_lines_of_one_moment_are_all_kept(peer: LokiPeer, tmp_path: Path) -> None:
    await deliver(tmp_path, [b"tick"] * 1000, loki_url=peer.url)
    assert [entry.line for entry in peer.entries(container_name="web", source="stdout")] == ["tick"] * 1000


@pytest.mark.parametrize("status", [429, 500, 503, 401])
async def test_a_busy_loki_gets_the_batch_again(peer: LokiPeer, tmp_path: Path, status: int) -> None:
    peer.answers = [status, status]
    bench = await deliver(tmp_path, [b"one"], loki_url=peer.url)
    assert [entry.line for entry in peer.entries()] == ["one"]
    assert bench.boxes[0].progress.retries == 2


async def test_the_line_that_loki_does_not_take_is_set_aside_and_the_others_are_kept_once(
    peer: LokiPeer, tmp_path: Path
) -> None:
    peer.poison = "bad"
    bench = await deliver(tmp_path, [b"same", b"same", b"bad", b"same", b"last"], loki_url=peer.url)
    assert [entry.line for entry in peer.entries()] == ["same", "same", "same", "last"]
    assert bench.boxes[0].account["dropped"] == {"rejected": 4}


async def test_labels_are_lokis_and_the_containers_cannot_replace_the_drivers(peer: LokiPeer, tmp_path: Path) -> None:
    await deliver(tmp_path, [b"x"], loki_url=peer.url, loki_labels="env=prod,app=mine", labels="app", tag="{{.Name}}!")
    ((_, labels),) = peer.streams
    assert dict(labels) == {"env": "prod", "app": "mine", "tag": "web!", "container_name": "web", "source": "stdout"}


@pytest.mark.parametrize(("value", "encoding"), [("true", "gzip"), ("false", "")])
async def test_it_compresses_unless_told_otherwise(peer: LokiPeer, tmp_path: Path, value: str, encoding: str) -> None:
    await deliver(tmp_path, [b"x"], loki_url=peer.url, loki_gzip=value)
    assert peer.encodings == {encoding}


async def test_the_tenant_is_sent(tmp_path: Path) -> None:
    async with LokiPeer(needs_tenant=True) as peer:
        await deliver(tmp_path, [b"x"], loki_url=peer.url, loki_tenant_id="team-a")
        assert [tenant for tenant, _ in peer.streams] == ["team-a"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("loki-url", "ftp://x", "accepted: http://host:3100"),
        ("loki-url", "loki:3100", "accepted: http://host:3100"),
        ("loki-labels", "a", "accepted: name=value"),
        ("loki-labels", "a-b=c", "a name has letters, digits and _"),
        ("loki-gzip", "yes", "accepted: true, false"),
    ],
)
def test_an_option_that_does_not_do_is_refused(option: str, value: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        parse_options("loki log driver", LokiOptions, {"loki-url": URL, option: value})


def test_the_url_is_required_and_gets_its_path() -> None:
    with pytest.raises(InvalidParameter, match="loki-url is a required parameter"):
        parse_options("loki log driver", LokiOptions, {})
    assert str(parse_options("loki log driver", LokiOptions, {"loki-url": URL}).loki_url) == f"{URL}/loki/api/v1/push"
