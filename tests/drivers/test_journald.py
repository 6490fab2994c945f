"""journald, against a real systemd-journald of the test's own; read back with journalctl."""

import asyncio
import fcntl
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journald_peer import Journald, journald, message, until

from logd.batch import Batch, ContainerInfo, ExecId, Group, Partial
from logd.driver import parse_options
from logd.drivers.journald import (
    RESERVED,
    SIOCOUTQ,
    JournaldDriver,
    JournaldOptions,
    entries,
    field,
    sanitize,
    surely_read,
)
from logd.errors import InvalidParameter
from logd.record import STDERR, STDOUT

ID = "ab" * 32
T = 1_700_000_000_123_000_000
WAIT_S = 20.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journald]:
    """For tests that only write to it; each takes a container's name of its own."""
    with journald(tmp_path_factory.mktemp("journald")) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Journald]:
    """For tests that stop it."""
    with journald(tmp_path / "journald") as running:
        yield running


def options(log_opts: dict[str, str], *, at_create: bool = False) -> JournaldOptions:
    return parse_options("journald log driver", JournaldOptions, log_opts, at_create=at_create)


def driver_for(peer: Journald, **log_opts: str) -> JournaldDriver:
    more = {name.replace("_", "-"): value for name, value in log_opts.items()}
    return JournaldDriver(options({"journald-socket": str(peer.socket), **more}))


def container(name: str, **more: Any) -> ContainerInfo:
    return ContainerInfo(**{"id": ID, "name": name, "image_name": "alpine:3", **more})


def batch(info: ContainerInfo, *lines: bytes, first: int = 0, stream: int = STDOUT) -> Batch:
    return Batch(info, [Group(T + first, stream, first, first + len(lines), list(lines))])


async def sent(peer: Journald, *batches: Batch, **log_opts: str) -> list[dict[str, Any]]:
    """What the journal holds of the first batch's container after they were sent."""
    driver = driver_for(peer, **log_opts)
    await driver.open()
    for one in batches:
        await driver.send(one)
    await driver.close()
    name = batches[0].container.name
    return peer.entries(f"CONTAINER_NAME={name}")


# -- options ----------------------------------------------------------------------------------------------------------


def test_there_are_the_options_of_docker_and_the_path_of_the_socket(shared: Journald) -> None:
    given = options({"tag": "t", "labels": "a,b", "labels-regex": "^c", "env": "E", "env-regex": "^F"})
    assert (given.journald_socket, given.labels) == ("/run/systemd/journal/socket", ("a", "b"))
    assert options({"journald-socket": str(shared.socket)}, at_create=True).journald_socket == str(shared.socket)


@pytest.mark.parametrize(
    ("log_opts", "words"),
    [
        ({"priority": "3"}, "unknown log opt 'priority' for journald log driver"),
        ({"journald-socket": "run/socket"}, "journald-socket: 'run/socket' is not an absolute path"),
    ],
)
def test_a_bad_option_is_refused(log_opts: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        options(log_opts)


def test_without_a_journald_no_container_is_created_but_one_that_exists_is_left_alone(tmp_path: Path) -> None:
    log_opts = {"journald-socket": str(tmp_path / "socket")}
    with pytest.raises(InvalidParameter, match=r"^journald is not enabled on this host"):
        options(log_opts, at_create=True)
    assert options(log_opts)


# -- fields -----------------------------------------------------------------------------------------------------------


async def test_an_entry_has_every_field_of_docker(shared: Journald) -> None:
    info = container("every")
    (entry,) = await sent(shared, batch(info, b"hello"), tag="{{.Name}}!")
    expected = {
        "MESSAGE": "hello",
        "PRIORITY": "6",
        "CONTAINER_ID": ID[:12],
        "CONTAINER_ID_FULL": ID,
        "CONTAINER_NAME": "every",
        "CONTAINER_TAG": "every!",
        "SYSLOG_IDENTIFIER": "every!",
        "IMAGE_NAME": "alpine:3",
        "SYSLOG_TIMESTAMP": "2023-11-14T22:13:20.123Z",
        "CONTAINER_LOG_ORDINAL": "1",
    }
    ours = {name: value for name, value in entry.items() if not name.startswith("_")}
    assert len(ours.pop("CONTAINER_LOG_EPOCH")) == 64
    assert ours == expected
    assert entry["_TRANSPORT"] == "journal"


async def test_stderr_has_the_priority_of_an_error(shared: Journald) -> None:
    info = container("stderr")
    (entry,) = await sent(shared, batch(info, b"x", stream=STDERR))
    assert (entry["PRIORITY"], entry["CONTAINER_TAG"]) == ("3", ID[:12])


async def test_parts_of_a_line_say_which_part_they_are(shared: Journald) -> None:
    info = container("parts")
    parts = [Group(T, STDOUT, n, n + 1, [b"x"], Partial("f" * 64, n, n == 3)) for n in (1, 2, 3)]
    found = await sent(shared, Batch(info, [*parts, Group(T, STDOUT, 9, 10, [b"whole"])]))
    names = ("CONTAINER_PARTIAL_ID", "CONTAINER_PARTIAL_ORDINAL", "CONTAINER_PARTIAL_LAST", "CONTAINER_PARTIAL_MESSAGE")
    assert [tuple(entry.get(name) for name in names) for entry in found] == [
        ("f" * 64, "1", "false", "true"),
        ("f" * 64, "2", "false", "true"),
        ("f" * 64, "3", "true", None),
        (None, None, None, None),
    ]


async def test_a_line_of_an_exec_says_which_and_no_label_does(shared: Journald) -> None:
    info = container("execs", labels={"container.exec": "forged"})
    of_exec = Group(T, STDOUT, 0, 2, [b"x"], fields=[{"exec": ExecId("0123456789ab")}])
    found = await sent(shared, Batch(info, [of_exec, Group(T, STDOUT, 2, 4, [b"y"])]), labels="container.exec")
    assert [entry.get("CONTAINER_EXEC") for entry in found] == ["0123456789ab", None]


async def test_labels_become_fields_but_never_those_that_mean_something(shared: Journald) -> None:
    labels = {
        "com.example/Rôle": "web",
        "__x": "one\nPRIORITY=0",
        "message": "forged",
        "PRIORITY": "0",
        "_PID": "1",
        "container_id": "forged",
        "Container-Log.Ordinal": "7",
        "9lives": "no field",
        "é": "no name is left",
        "n" * 70: "too long",
    }
    info = container("labels", labels=labels, env=("MODE=a=b",))
    (entry,) = await sent(shared, batch(info, b"hello"), labels=",".join(labels), env="MODE")
    ours = {name: value for name, value in entry.items() if not name.startswith("_") and name not in RESERVED}
    assert ours == {"COM_EXAMPLE_R_LE": "web", "X": "one\nPRIORITY=0", "PID": "1", "MODE": "a=b"}
    assert (entry["PRIORITY"], entry["MESSAGE"], entry["CONTAINER_LOG_ORDINAL"]) == ("6", "hello", "1")
    assert entry["_PID"] == str(os.getpid())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("io.kubernetes.pod.name", "IO_KUBERNETES_POD_NAME"), ("?io.x", "IO_X"), ("?!io.x", "IO_X"), ("a-b9Z", "A_B9Z")],
)
def test_a_label_is_named_as_docker_names_it(name: str, wanted: str) -> None:
    assert sanitize(name) == wanted


# -- lines ------------------------------------------------------------------------------------------------------------


async def test_a_line_arrives_with_every_byte_and_can_not_forge_a_field(shared: Journald) -> None:
    info = container("bytes")
    lines = [
        *(b"", b" ", b"a=b", b"\r", b"\x00", bytes(range(256)), "größe\u2028😀".encode(), b"\xff\xfe"),
        b"MESSAGE=x",
        b"joined\nPRIORITY=0\n_PID=1",
        b"\nMESSAGE\n" + struct.pack("<Q", 3) + b"abc\n",
        b"\n\n",
        *(bytes([byte]) for byte in range(256)),
    ]
    found = await sent(shared, batch(info, *lines))
    assert [message(entry) for entry in found] == lines
    assert {(entry["PRIORITY"], entry["_PID"]) for entry in found} == {("6", str(os.getpid()))}


async def test_a_line_too_large_for_a_datagram_arrives_too(shared: Journald) -> None:
    info = container("large")
    lines = [b"m" * (1 << 20), b"first\n" + b"z" * (9 << 20), b"after"]
    found = await sent(shared, batch(info, *lines))
    assert [message(entry) for entry in found] == lines


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.dictionaries(st.text("ab", min_size=1), st.text()))
def test_entries_parse_into_what_they_were_made_of(lines: list[bytes], values: dict[str, str]) -> None:
    shared = b"".join(field(name, value.encode()) for name, value in values.items())
    for number, entry in enumerate(entries([Group(T, STDOUT, 0, 0, lines)], shared, 5)):
        assert parse_entry(entry) == {
            **{name.encode(): value.encode() for name, value in values.items()},
            b"PRIORITY": b"6",
            b"SYSLOG_TIMESTAMP": b"2023-11-14T22:13:20.123Z",
            b"CONTAINER_LOG_ORDINAL": b"%d" % (5 + number),
            b"MESSAGE": lines[number],
        }


def parse_entry(entry: bytes) -> dict[bytes, bytes]:
    found = {}
    while entry:
        head, _, entry = entry.partition(b"\n")
        name, is_text, value = head.partition(b"=")
        if not is_text:
            (size,) = struct.unpack_from("<Q", entry)
            value, entry = entry[8 : 8 + size], entry[9 + size :]
        found[name] = value
    return found


# -- ordinals ---------------------------------------------------------------------------------------------------------


def ordinals(found: list[dict[str, Any]]) -> list[int]:
    return [int(entry["CONTAINER_LOG_ORDINAL"]) for entry in found]


async def test_records_are_numbered_and_keep_their_number_when_they_are_sent_again(shared: Journald) -> None:
    info = container("numbered")
    first, second = batch(info, b"1", b"2"), batch(info, b"3", b"4", first=2)
    assert ordinals(await sent(shared, first, second)) == [1, 2, 3, 4]
    assert max(len(first.memo), len(second.memo)) <= 64
    later = driver_for(shared)
    later.resume(info, first.memo)
    await later.send(batch(info, b"3", b"4", first=2))
    found = shared.entries("CONTAINER_NAME=numbered")
    assert ordinals(found) == [1, 2, 3, 4, 3, 4]
    assert len({entry["CONTAINER_LOG_EPOCH"] for entry in found}) == 1


async def test_a_crash_before_the_first_memo_was_kept_changes_no_number(shared: Journald) -> None:
    info = container("crash")
    await sent(shared, batch(info, b"1", b"2"))
    found = await sent(shared, batch(info, b"1"), batch(info, b"2", b"3", first=1))
    assert ordinals(found) == [1, 2, 1, 2, 3]
    assert len({entry["CONTAINER_LOG_EPOCH"] for entry in found}) == 1


async def test_containers_are_numbered_each_for_itself_and_sent_side_by_side(shared: Journald) -> None:
    infos = [container(f"side{number}", id=f"{number:064x}") for number in range(JournaldDriver.max_in_flight)]
    driver = driver_for(shared)
    await asyncio.gather(*(driver.send(batch(info, *(b"%d" % n for n in range(2500)))) for info in infos))
    for info in infos:
        found = shared.entries(f"CONTAINER_NAME={info.name}")
        assert [(n, message(entry)) for n, entry in zip(ordinals(found), found, strict=True)] == [
            (n + 1, b"%d" % n) for n in range(2500)
        ]


RATE_LIMITED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_journald as t
from journald_peer import Journald
Path(sys.argv[2], "cgroup.procs").write_text("0")
driver = t.JournaldDriver(t.options({"journald-socket": sys.argv[1]}))
asyncio.run(driver.send(t.batch(t.container("limited"), *(b"%d" % n for n in range(3000)))))
"""


def test_what_the_rate_limit_of_journald_leaves_out_is_missing_in_the_numbers(tmp_path: Path) -> None:
    root = Path("/sys/fs/cgroup/unified" if Path("/sys/fs/cgroup/unified").is_dir() else "/sys/fs/cgroup")
    unit = root / f"logd-test-{os.getpid()}.service"  # journald limits units, not processes without one
    unit.mkdir()
    try:
        with journald(tmp_path / "journald", RateLimitIntervalSec="1h", RateLimitBurst="100") as peer:
            argv = [sys.executable, "-c", RATE_LIMITED, str(peer.socket), str(unit), str(Path(__file__).parent)]
            subprocess.run(argv, check=True)
            found = ordinals(peer.entries("CONTAINER_NAME=limited"))
    finally:
        until(lambda: not (unit / "cgroup.procs").read_text())
        unit.rmdir()
    assert 100 <= len(found) < 3000
    assert found == list(range(1, len(found) + 1))


# -- faults -----------------------------------------------------------------------------------------------------------


async def test_while_no_journald_is_there_sending_fails_and_is_done_later(own: Journald) -> None:
    info = container("away")
    driver = driver_for(own)
    await driver.open()
    own.stop()
    with pytest.raises(OSError, match="refused"):
        await driver.send(batch(info, b"1"))
    await driver.close()
    own.socket.unlink()
    with pytest.raises(FileNotFoundError):
        await driver.open()
    await driver.close()
    own.start()
    await driver.open()
    await driver.send(batch(info, b"1"))
    assert ordinals(own.entries("CONTAINER_NAME=away")) == [1]


LINES = [b"%d" % number for number in range(3000)]
"""More than the queue of the socket holds (net.unix.max_dgram_qlen: 10, with systemd 512)."""


async def filled(peer: Journald) -> None:
    """Wait until the queue of a journald that is stopped is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.connect(str(peer.socket))
        async with asyncio.timeout(WAIT_S):
            while select.select([], [probe], [], 0)[1]:
                await asyncio.sleep(0.005)


async def test_what_lies_in_the_queue_of_a_journald_that_dies_is_sent_again(own: Journald) -> None:
    info = container("queue")
    driver = driver_for(own)
    own.kill(signal.SIGSTOP)
    sending = asyncio.create_task(driver.send(batch(info, *LINES)))
    await filled(own)
    own.stop(signal.SIGKILL)
    own.start()
    with pytest.raises(OSError, match=r"refused|not connected"):
        await sending
    await driver.close()
    await driver.open()
    await driver.send(batch(info, *LINES))
    assert ordinals(own.entries("CONTAINER_NAME=queue")) == list(range(1, len(LINES) + 1))


async def test_a_last_entry_in_the_queue_of_a_journald_that_dies_does_not_count_as_sent(own: Journald) -> None:
    driver = driver_for(own)
    own.kill(signal.SIGSTOP)
    sending = asyncio.create_task(driver.send(batch(container("last"), b"1")))
    done, _ = await asyncio.wait([sending], timeout=0.2)
    assert not done
    own.stop(signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        await sending


async def test_a_journald_that_hangs_is_given_up_and_nothing_is_missing_when_it_goes_on(own: Journald) -> None:
    info = container("hangs")
    driver = driver_for(own)
    own.kill(signal.SIGSTOP)
    one = batch(info, *LINES)
    sending = asyncio.create_task(driver.send(one))
    await filled(own)
    sending.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert one.acknowledged == 0
    await driver.close()
    own.kill(signal.SIGCONT)
    await driver.open()
    await driver.send(batch(info, *LINES))
    found = ordinals(own.entries("CONTAINER_NAME=hangs"))
    twice = len(found) - len(LINES)
    assert found == [*range(1, twice + 1), *range(1, len(LINES) + 1)]
    assert 0 < twice <= 1000


@given(sizes=st.lists(st.integers(1, 5000), max_size=9), count=st.integers(0, 9))
def test_no_more_counts_as_read_than_was_and_all_of_it_in_the_end(sizes: list[int], count: int) -> None:
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with reading, writing:
        for size in sizes:
            writing.send(bytes(size))
        for _ in sizes[:count]:
            reading.recv(1)
        (unread,) = struct.unpack("i", fcntl.ioctl(writing, SIOCOUTQ, bytes(4)))
        found = surely_read(sizes, unread)
    assert found <= min(count, len(sizes))
    assert found == len(sizes) or count < len(sizes)


async def test_what_a_slow_journald_has_read_before_the_deadline_is_not_sent_again(tmp_path: Path) -> None:
    path, read = str(tmp_path / "socket"), 2000
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
        slow.bind(path)
        slow.setblocking(False)
        driver = JournaldDriver(options({"journald-socket": path}))
        one = batch(container("slow"), *LINES)
        sending = asyncio.create_task(driver.send(one))
        async with asyncio.timeout(WAIT_S):
            for _ in range(read):
                await asyncio.get_running_loop().sock_recv(slow, 1)
        sending.cancel()
        await asyncio.wait([sending])
    assert 0 < one.acknowledged <= read


async def test_no_record_is_missing_over_ten_kills_of_journald(own: Journald) -> None:
    info = container("kills")
    driver = driver_for(own)
    lines = [b"%d" % number for number in range(40_000)]
    killer = asyncio.create_task(asyncio.to_thread(kill_and_restart, own, 10))
    at = 0
    while at < len(lines) or not killer.done():
        if at == len(lines):
            lines += [b"%d" % number for number in range(at, at + 1000)]
        one = batch(info, *lines[at : at + random.randint(1, 3000)], first=at)
        try:
            await driver.open()
            await driver.send(one)
        except OSError:
            await driver.close()
            await asyncio.sleep(0.01)
        at += one.acknowledged
    await killer
    found = own.entries("CONTAINER_NAME=kills")
    by_ordinal = {int(entry["CONTAINER_LOG_ORDINAL"]): message(entry) for entry in found}
    assert [by_ordinal.get(number + 1) for number in range(len(lines))] == lines


def kill_and_restart(peer: Journald, times: int) -> None:
    for _ in range(times):
        time.sleep(random.uniform(0, 0.2))
        peer.stop(signal.SIGKILL)
        peer.start()
