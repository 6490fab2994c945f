"""Docker's log plugins, against one that is a process of its own and parses entries with Google's protobuf package."""

import asyncio
import contextlib
import fcntl
import json
import os
import random
import secrets
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from docker_plugin_peer import HOLDS, DockerPlugin, LogEntry, parse
from hypothesis import given
from hypothesis import strategies as st

from logd.batch import Batch, ContainerInfo, Group, Partial
from logd.driver import parse_options
from logd.drivers import plugin_registry
from logd.drivers.docker_plugin import DockerPluginDriver, PluginOptions, driver_named, info_of, is_there, whole
from logd.drivers.plugin_client import shown
from logd.drivers.plugin_entries import PART_BYTES, frames
from logd.drivers.plugin_registry import RegistryError, Tls, find, parse_address
from logd.record import STDERR, STDOUT
from logd.testing.conformance import DriverConformance
from logd.testing.proxy import Address
from logd.testing.target import Received, Target

T = 1_700_000_000_123_456_789
WAIT_S = 30.0
SOURCES = {STDOUT: "stdout", STDERR: "stderr"}


# -- entries ----------------------------------------------------------------------------------------------------------


def split(data: bytes) -> list[bytes]:
    """Return the messages of the frames, which must end with the data."""
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        assert len(data) >= 4 + size
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def parsed(*groups: Group) -> list[Any]:
    return [LogEntry.FromString(one) for frame in frames("ab" * 32, groups) for one in split(frame)]


def group(*lines: bytes, time_ns: int = T, stream: int = STDOUT, partial: Partial | None = None) -> Group:
    return Group(time_ns, stream, 0, sum(map(len, lines)) + len(lines), list(lines), partial)


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=8),
    st.sampled_from([STDOUT, STDERR]),
    st.integers(0, (1 << 63) - 1),
)
def test_any_lines_are_written_as_googles_package_writes_them(lines: list[bytes], stream: int, time_ns: int) -> None:
    theirs = [LogEntry(source=SOURCES[stream], time_nano=time_ns, line=line).SerializeToString() for line in lines]
    ours = [one for frame in frames("ab" * 32, [group(*lines, time_ns=time_ns, stream=stream)]) for one in split(frame)]
    assert ours == theirs


@given(st.binary(max_size=PART_BYTES), st.integers(1, (1 << 31) - 1), st.booleans())
def test_a_part_of_a_line_is_written_as_googles_package_writes_it(line: bytes, ordinal: int, last: bool) -> None:
    identifier = secrets.token_hex(32)
    theirs = LogEntry(source="stdout", time_nano=T, line=line, partial=True)
    theirs.partial_log_metadata.id = identifier
    theirs.partial_log_metadata.ordinal = ordinal
    theirs.partial_log_metadata.last = last
    (frame,) = frames("ab" * 32, [group(line, partial=Partial(identifier, ordinal, last))])
    assert split(frame) == [theirs.SerializeToString()]


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384])
def test_lines_at_the_edges_of_a_length_are_whole(length: int) -> None:
    assert [one.line for one in parsed(group(b"x" * length, b"end"))] == [b"x" * length, b"end"]


def test_a_line_that_a_processor_made_too_long_comes_in_parts_that_belong_together() -> None:
    line = random.Random(1).randbytes(2 * PART_BYTES + 5)
    entries = parsed(group(b"before", line, b"after"))
    parts = [one for one in entries if one.partial]
    assert [one.line for one in entries if not one.partial] == [b"before", b"after"]
    assert b"".join(one.line for one in parts) == line
    metadata = [one.partial_log_metadata for one in parts]
    assert [(one.ordinal, one.last) for one in metadata] == [(1, False), (2, False), (3, True)]
    assert len({one.id for one in metadata}) == 1
    assert len(metadata[0].id) == 64
    assert entries == parsed(group(b"before", line, b"after"))


def test_each_record_is_one_item_so_that_what_was_read_can_be_counted() -> None:
    encoded = list(frames("ab" * 32, [group(b"one", b"x" * 3 * PART_BYTES), group(b"three", stream=STDERR)]))
    assert len(encoded) == 3
    sizes = [len(one) for one in encoded]
    assert [whole(encoded, size) for size in (0, sizes[0] - 1, sizes[0], sum(sizes) - 1, sum(sizes))] == [0, 0, 1, 2, 3]


# -- where plugins are ------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Folders of plugins in place of the host's."""
    made = {name: tmp_path / name for name in ("run", "etc", "lib")}
    monkeypatch.setattr(plugin_registry, "SOCKETS", made["run"])
    monkeypatch.setattr(plugin_registry, "SPECS", (made["etc"], made["lib"]))
    for folder in made.values():
        folder.mkdir()
    return made


def listen(path: Path) -> None:
    """Leave a socket behind."""
    path.parent.mkdir(exist_ok=True)
    os.mknod(path, 0o140600)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_a_plugin_is_found_by_its_socket_before_any_file(folders: dict[str, Path]) -> None:
    put(folders["etc"] / "one.spec", "tcp://127.0.0.1:1")
    listen(folders["run"] / "one.sock")
    listen(folders["run"] / "two" / "two.sock")
    assert find("one").socket == str(folders["run"] / "one.sock")
    assert find("two").socket == str(folders["run"] / "two" / "two.sock")
    assert plugin_registry.names() == ["one", "two"]


def test_a_plugin_is_found_by_a_file_that_names_its_address(folders: dict[str, Path]) -> None:
    put(folders["lib"] / "a.spec", "unix:///srv/a.sock\n")
    put(folders["lib"] / "b" / "b.spec", "tcp://127.0.0.1:8080")
    tls = {"InsecureSkipVerify": False, "CAFile": "/ca", "CertFile": "/cert", "KeyFile": "/key"}
    put(folders["etc"] / "c.json", json.dumps({"Name": "c", "Addr": "https://example.com", "TLSConfig": tls}))
    put(folders["lib"] / "c.spec", "tcp://127.0.0.1:9")
    assert find("a") == plugin_registry.Address("http://plugin.moby.localhost", "/srv/a.sock")
    assert find("b") == plugin_registry.Address("http://127.0.0.1:8080")
    assert find("c") == plugin_registry.Address("https://example.com", tls=Tls("/ca", "/cert", "/key"))
    assert plugin_registry.names() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("x.spec", "gopher://a:1", "address 'gopher://a:1': unsupported scheme (supported: unix, tcp, http, https)"),
        ("x.spec", "", "address '': unsupported scheme"),
        ("x.spec", "unix://relative.sock", "unix:// and the absolute path of a socket is needed"),
        ("x.spec", "tcp://127.0.0.1", "tcp://HOST:PORT is needed"),
        ("x.spec", "tcp://127.0.0.1:99999", "Port out of range"),
        ("x.json", "{", "Expecting property name"),
        ("x.json", "[]", 'an object with the text "Addr" is needed'),
        ("x.json", '{"Addr": 1}', 'an object with the text "Addr" is needed'),
        ("x.json", '{"Addr": "https://a", "TLSConfig": {"CAFile": 1}}', "TLSConfig: an object of"),
    ],
)
def test_a_file_that_says_nothing_of_use_is_refused_by_name(
    folders: dict[str, Path], file: str, text: str, words: str
) -> None:
    put(folders["etc"] / file, text)
    with pytest.raises(RegistryError) as refusal:
        find("x")
    assert str(refusal.value).startswith(str(folders["etc"] / file))
    assert words in str(refusal.value)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a:latest", ".x", "x\n", "é", "a" * 200])
def test_what_can_be_no_name_never_becomes_a_path(folders: dict[str, Path], name: str) -> None:
    listen(folders["run"] / "x.sock")
    assert driver_named(name) is None
    assert not is_there(name)


def test_a_certificate_is_verified_unless_it_is_said_that_it_is_not() -> None:
    verified = parse_address("https://example.com").tls
    assert verified is not None
    assert verified.context().check_hostname
    assert not Tls(is_unverified=True).context().check_hostname


def test_a_strangers_words_can_not_steer_a_terminal() -> None:
    assert shown("a\x1b[31m\nb\r" + "x" * 1000) == "a [31m b" + " " + "x" * (500 - 9)


# -- a plugin ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[DockerPlugin]:
    """A plugin that runs, where Docker looks for it."""
    one = DockerPlugin(tmp_path / "plugin", f"logd-test-{secrets.token_hex(4)}").start()
    yield one
    one.stop()


def container(folder: Path, **more: Any) -> ContainerInfo:
    return ContainerInfo(**{"id": secrets.token_hex(32), "name": "web", "run_folder": str(folder), **more})


def driver_for(plugin: DockerPlugin, info: ContainerInfo, **log_opts: str) -> DockerPluginDriver:
    kind = driver_named(plugin.name)
    assert kind is not None
    options = parse_options(plugin.name, PluginOptions, {name.replace("_", "-"): v for name, v in log_opts.items()})
    driver = kind(options)
    driver.resume(info, b"")
    return driver


@pytest_asyncio.fixture
async def info(tmp_path: Path) -> ContainerInfo:
    return container(tmp_path)


@pytest_asyncio.fixture
async def driver(plugin: DockerPlugin, info: ContainerInfo) -> AsyncIterator[DockerPluginDriver]:
    """An open driver."""
    one = driver_for(plugin, info)
    await one.open()
    yield one
    await one.close()


def batch_of(info: ContainerInfo, first: int, count: int, width: int = 100) -> Batch:
    lines = [b"%010d".ljust(width, b".") % number for number in range(first, first + count)]
    return Batch(info, [Group(T, STDOUT, first * (width + 1), (first + count) * (width + 1), lines)])


def lines_of(*batches: Batch) -> list[bytes]:
    return [record.line for batch in batches for record in batch.records()]


async def until(holds: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WAIT_S):
        while not (found := holds()):
            await asyncio.sleep(0.005)
    return found


def pipes(folder: Path) -> list[Path]:
    return list((folder / "logging").iterdir())


async def test_a_plugin_is_told_of_the_container_as_docker_tells_it(plugin: DockerPlugin, tmp_path: Path) -> None:
    info = container(
        tmp_path,
        image_id="sha256:" + "1" * 64,
        image_name="alpine:3",
        entrypoint="sh",
        args=("-c", "true"),
        created_ns=T,
        env=("A=1", "B=\udcff"),
        labels={"app": "shop"},
        log_path="/var/x-json.log",
    )
    driver = driver_for(plugin, info, any_key="any value", labels="app", tag="{{no template}", max_size="10m")
    await driver.open()
    (pipe,) = pipes(tmp_path)
    assert (pipe.stat().st_mode & 0o777, pipe.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    await driver.send(batch_of(info, 0, 10))
    await driver.close()
    assert pipes(tmp_path) == []
    assert plugin.calls()[0]["method"] == "Plugin.Activate"  # a daemon that lists what is there asks that too
    assert [one["method"] for one in plugin.calls("LogDriver")] == ["LogDriver.StartLogging", "LogDriver.StopLogging"]
    start, stop = plugin.calls("Logging")
    assert start["body"] == {
        "File": str(pipe),
        "Info": {
            "Config": {"any-key": "any value", "labels": "app", "tag": "{{no template}", "max-size": "10m"},
            "ContainerID": info.id,
            "ContainerName": "/web",
            "ContainerEntrypoint": "sh",
            "ContainerArgs": ["-c", "true"],
            "ContainerImageID": "sha256:" + "1" * 64,
            "ContainerImageName": "alpine:3",
            "ContainerCreated": "2023-11-14T22:13:20.123456789Z",
            "ContainerEnv": ["A=1", "B=\udcff"],
            "ContainerLabels": {"app": "shop"},
            "LogPath": "/var/x-json.log",
            "DaemonName": "docker",
        },
    }
    assert stop["body"] == {"File": str(pipe)}
    assert info_of(info, {})["Config"] == {}


async def test_what_the_plugin_has_read_is_sent(plugin: DockerPlugin, driver: Any, info: ContainerInfo) -> None:
    batches = [batch_of(info, first, 3000) for first in range(0, 9000, 3000)]
    for batch in batches:
        await driver.send(batch)
    entries = await until(lambda: len(found := plugin.entries()) == 9000 and found)
    assert [one["line"] for one in entries] == lines_of(*batches)
    assert {(one["source"], one["time_nano"], one["partial"]) for one in entries} == {("stdout", T, False)}


async def test_a_plugin_that_does_not_read_is_waited_for_and_holds_up_nobody_else(
    plugin: DockerPlugin, driver: Any, info: ContainerInfo, tmp_path: Path
) -> None:
    plugin.behave("hold")
    held = asyncio.create_task(driver.send(batch_of(info, 0, 20_000)))
    other = DockerPlugin(tmp_path / "other", f"{plugin.name}-other").start()
    try:
        another = driver_for(other, container(tmp_path))
        await another.open()
        await another.send(batch_of(container(tmp_path), 0, 5000))
        await another.close()
    finally:
        other.stop()
    assert not held.done()
    plugin.behave("well")
    await held
    await until(lambda: plugin.count() == 20_000)


async def test_what_a_killed_plugin_had_not_read_is_sent_to_the_next_and_nothing_twice(
    plugin: DockerPlugin, driver: Any, info: ContainerInfo
) -> None:
    first, second = batch_of(info, 0, 500), batch_of(info, 500, 8000)
    await driver.send(first)
    sending = asyncio.create_task(driver.send(second))
    await until(lambda: plugin.count() > 2000)
    plugin.behave("hold")
    await until(lambda: plugin.calls(HOLDS))
    assert not sending.done()
    plugin.kill()
    with pytest.raises(ConnectionResetError, match="the plugin has closed the pipe"):
        await sending
    seen = len(plugin.lines())
    assert second.acknowledged == seen - 500
    await driver.close()
    plugin.behave("well")
    plugin.start()
    await driver.open()
    await driver.send(Batch(info, [group(*lines_of(second)[second.acknowledged :])]))
    await until(lambda: plugin.count() == 8500)
    assert plugin.lines() == lines_of(first, second)


async def test_a_plugin_that_dies_with_the_rest_of_a_batch_in_the_pipe_has_got_what_it_read(
    plugin: DockerPlugin, driver: Any, info: ContainerInfo, tmp_path: Path
) -> None:
    await driver.send(batch_of(info, 0, 10))
    await until(lambda: plugin.count() == 10)
    plugin.behave("hold")
    batch = batch_of(info, 10, 100)  # the pipe has room for all of it
    sending = asyncio.create_task(driver.send(batch))
    await until(lambda: plugin.calls(HOLDS))
    await until(lambda: in_pipe(*pipes(tmp_path)) > 90 * 100)
    plugin.kill()
    with pytest.raises(ConnectionResetError, match="the plugin has closed the pipe"):
        await asyncio.wait_for(sending, WAIT_S)
    assert batch.acknowledged == plugin.count() - 10 < 10


def in_pipe(path: Path) -> int:
    """Return how many bytes are in a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    finally:
        os.close(fd)


async def test_a_deadline_counts_what_was_read_until_then(
    plugin: DockerPlugin, driver: Any, info: ContainerInfo
) -> None:
    batch = batch_of(info, 0, 20_000)
    sending = asyncio.create_task(driver.send(batch))
    await until(lambda: plugin.count() > 100)
    plugin.behave("hold")
    await until(lambda: plugin.calls(HOLDS))
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending
    assert batch.acknowledged == len(plugin.lines())


async def test_a_plugin_that_never_opens_its_pipe_says_nothing_was_sent(
    plugin: DockerPlugin, info: ContainerInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.drivers.docker_plugin.OPEN_TIMEOUT_S", 0.3)
    plugin.behave("shut")
    driver = driver_for(plugin, info)
    with pytest.raises(OSError, match="has not opened its pipe within"):
        await driver.open()
    await driver.close()
    assert pipes(tmp_path) == []


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("refuse loki-url is required", "^error creating logger: loki-url is required$"),
        ("fail", "^error creating logger: LogDriver.StartLogging: out of order$"),
        ("volume", "^error looking up logging plugin .*: Plugin does not implement the requested driver: plugin="),
    ],
)
async def test_what_a_plugin_objects_to_is_said(
    plugin: DockerPlugin, info: ContainerInfo, mood: str, words: str
) -> None:
    plugin.behave(mood)
    driver = driver_for(plugin, info)
    with pytest.raises(OSError, match=words):
        await driver.open()
    await driver.close()


async def test_a_plugin_that_is_gone_is_named_with_its_socket(plugin: DockerPlugin, info: ContainerInfo) -> None:
    driver = driver_for(plugin, info)
    plugin.kill()
    with pytest.raises(OSError, match=rf"error looking up logging plugin {plugin.name}: {plugin.socket}: .*refused"):
        await driver.open()
    plugin.stop()
    with pytest.raises(OSError, match=f'error looking up logging plugin {plugin.name}: plugin "{plugin.name}" not'):
        await driver.open()
    await driver.close()


async def test_a_plugin_over_tcp_is_found_by_its_file(
    plugin: DockerPlugin, info: ContainerInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay stands between: what is listened at is a port."""
    relays: list[asyncio.Task[None]] = []

    def accept(*ends: Any) -> None:
        relays.append(asyncio.create_task(relayed(plugin, *ends)))

    relay = await asyncio.start_server(accept, "127.0.0.1", 0)
    put(tmp_path / "specs" / f"{plugin.name}.spec", f"tcp://127.0.0.1:{relay.sockets[0].getsockname()[1]}")
    monkeypatch.setattr(plugin_registry, "SOCKETS", tmp_path / "nowhere")
    monkeypatch.setattr(plugin_registry, "SPECS", (tmp_path / "specs",))
    async with relay:
        driver = driver_for(plugin, info)
        await driver.open()
        await driver.send(batch_of(info, 0, 10))
        await driver.close()
        await asyncio.wait_for(asyncio.gather(*relays), WAIT_S)
    await until(lambda: plugin.count() == 10)


async def relayed(plugin: DockerPlugin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand one request to the plugin, and its answer back: the driver closes the connection after it."""
    inner_reader, inner_writer = await asyncio.open_unix_connection(str(plugin.socket))

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                target.write(data)
        target.close()

    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
    for end in (inner_writer, writer):
        with contextlib.suppress(ConnectionError):
            await end.wait_closed()


async def test_pipes_that_a_killed_forwarder_left_are_ended_and_removed(
    plugin: DockerPlugin, info: ContainerInfo, tmp_path: Path
) -> None:
    (tmp_path / "logging").mkdir()
    left = tmp_path / "logging" / f"{plugin.name}@{info.id}@0123456789abcdef"
    others = tmp_path / "logging" / f"{plugin.name}@{'f' * 64}@0123456789abcdef"
    for path in (left, others):
        os.mkfifo(path)
    first, second = driver_for(plugin, info), driver_for(plugin, info, a="b")
    await first.open()
    assert [one["body"]["File"] for one in plugin.calls("StopLogging")] == [str(left)]
    await second.open()  # what another driver of the container has open is left alone
    assert len(plugin.calls("StopLogging")) == 1
    assert len(pipes(tmp_path)) == 3
    await first.send(batch_of(info, 0, 10))
    await first.close()
    await second.close()
    assert pipes(tmp_path) == [others]


async def test_a_plugin_that_is_stopped_does_not_hold_up_closing(
    plugin: DockerPlugin, info: ContainerInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.drivers.docker_plugin.STOP_TIMEOUT_S", 0.2)
    driver = driver_for(plugin, info)
    await driver.open()
    os.kill(plugin.process.pid, signal.SIGSTOP)
    async with asyncio.timeout(WAIT_S):
        await driver.close()
    assert pipes(tmp_path) == []


# -- the conformance suite --------------------------------------------------------------------------------------------


class ConformingDriver(DockerPluginDriver):
    name = "logd-test-conformance"


class Plugins(Target):
    def __init__(self, plugin: DockerPlugin) -> None:
        self.plugin = plugin

    def log_opts(self, address: Address | None) -> dict[str, str]:
        return {"some-option": "some value"}

    async def received(self, container: str) -> list[Received]:
        streams = {source: stream for stream, source in SOURCES.items()}
        found = await asyncio.to_thread(self.plugin.entries, container)
        return [Received(container, streams[one["source"]], one["line"]) for one in found]


class TestConformance(DriverConformance):
    driver = ConformingDriver
    is_networked = False
    send_timeout_s = 10.0
    patience_s = 60.0

    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[Target]:
        plugin = DockerPlugin(tmp_path / "plugin", ConformingDriver.name).start()
        yield Plugins(plugin)
        plugin.stop()


def test_the_peer_refuses_what_is_malformed() -> None:
    good = LogEntry(source="stdout", time_nano=T, line=b"x").SerializeToString()
    assert parse(good)["source"] == "stdout"
    for bad in (good[:-1], good + b"\x20\x00", good + b"\x3a\x01x"):
        with pytest.raises(Exception, match=r"."):
            parse(bad)
