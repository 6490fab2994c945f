"""What drivers without acknowledgement share, by syslog's and by GELF's: nothing is lost that can be kept."""

import asyncio
import fcntl
import itertools
import json
import re
import socket
import struct
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from batches import batch, deliver, numbered, rest
from listening import Listener, until

from logd.batch import Batch
from logd.driver import parse_options
from logd.drivers import datagrams, links, unacknowledged
from logd.drivers.datagrams import Pace
from logd.drivers.gelf import GelfDriver
from logd.drivers.syslog import SyslogDriver
from logd.drivers.unacknowledged import UnacknowledgedDriver, records_within

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Wire:
    """One of the drivers, and how its messages are read."""

    kind: type[UnacknowledgedDriver[Any]]
    end: bytes
    """Of a message in a stream."""

    def make(self, address: str, **values: str) -> UnacknowledgedDriver[Any]:
        named = {
            name.replace("_", "-"): value for name, value in {f"{self.kind.name}_address": address, **values}.items()
        }
        return self.kind(parse_options(self.kind.name, self.kind.options_type, named))

    @asynccontextmanager
    async def driver(self, address: str, **values: str) -> AsyncIterator[UnacknowledgedDriver[Any]]:
        made = self.make(address, **values)
        await made.open()
        try:
            yield made
        finally:
            await made.close()

    def whose(self, message: bytes) -> tuple[str, bytes]:
        """Return the beginning of a container's id, and its line."""
        if self.kind is GelfDriver:
            fields = json.loads(message)
            return fields["_container_id"][:12], fields["short_message"].encode()
        header, _, text = message.partition(b"]: ")
        return header.split()[-1].partition(b"[")[0].decode(), text.rstrip(b"\n")

    def lines(self, messages: bytes) -> list[bytes]:
        """Return the lines in what a stream has brought; half a message at its end is left out."""
        return [self.whose(one)[1] for one in messages.split(self.end)[:-1]]

    async def read(self, taken: socket.socket, count: int) -> bytes:
        """Read that many messages."""
        parts: list[bytes] = []
        async with asyncio.timeout(TIMEOUT_S):
            while count > 0:
                parts.append(await asyncio.get_running_loop().sock_recv(taken, 1 << 20))
                assert parts[-1], f"{count} lines did not come"
                count -= parts[-1].count(self.end)
        return b"".join(parts)


@pytest.fixture(params=[Wire(SyslogDriver, b"\n"), Wire(GelfDriver, b"\0")], ids=["syslog", "gelf"])
def wire(request: pytest.FixtureRequest) -> Wire:
    one: Wire = request.param
    return one


def lines_of(one: Batch) -> list[bytes]:
    return [record.line for record in one.records()]


def link(made: UnacknowledgedDriver[Any]) -> links.Link:
    assert made._link
    return made._link


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    one = Listener(receive_buffer=1 << 16)
    yield one
    one.close()


def unread(taken: socket.socket) -> int:
    """How many bytes the kernel has acknowledged and the process has not read (FIONREAD)."""
    size: int
    (size,) = struct.unpack("i", fcntl.ioctl(taken, termios.FIONREAD, b"\0" * 4))
    return size


async def settled(taken: socket.socket) -> int:
    """Wait until no more comes in; return how much is there to be read."""
    sizes = [-1, -2, -3]
    while len(set(sizes[-3:])) > 1:
        await asyncio.sleep(0.1)
        sizes.append(unread(taken))
    return sizes[-1]


# -- streams -------------------------------------------------------------------------------------------------------


async def test_no_line_is_lost_that_the_peers_kernel_had_not_acknowledged_at_a_reset(
    wire: Wire, listener: Listener
) -> None:
    lines = numbered(0, 3000, width=1000)
    who = batch(b"").container
    batches = [batch(*lines[at : at + 10], who=who) for at in range(0, len(lines), 10)]
    sent: list[Batch] = []
    async with wire.driver(listener.address) as made:
        first = await listener.take()

        async def send_all() -> None:
            for one in batches:
                tries = await deliver(made, one, TIMEOUT_S)
                sent.append(one)
                assert tries <= 2

        sending = asyncio.create_task(send_all())
        acknowledged = await settled(first)
        await until(lambda: len(sent) > 1)
        before = len(sent)
        assert sum(sum(made._encode(one).sizes()) for one in sent) <= acknowledged, "not even in the peer's kernel"
        assert before < len(batches)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        second = await listener.take()
        got = wire.lines(await wire.read(second, len(lines) - before * 10))
        await sending
        assert got == lines[before * 10 :]


async def test_what_a_slow_server_has_taken_by_the_deadline_is_not_sent_again(wire: Wire, listener: Listener) -> None:
    lines = numbered(0, 6000, width=1000)
    one = batch(*lines)
    async with wire.driver(listener.address) as made:
        first = await listener.take()
        sending = asyncio.create_task(made.send(one))
        begin = await wire.read(first, 100)
        await settled(first)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        held = wire.lines(begin + await asyncio.get_running_loop().sock_recv(first, 1 << 22))
        assert 0 < one.acknowledged <= len(held)
        assert held == lines[: len(held)]
        await made.close()
        await made.open()
        second = await listener.take()
        again = rest(one)
        _, more = await asyncio.gather(made.send(again), wire.read(second, len(again)))
        assert wire.lines(more) == lines[one.acknowledged :]


async def test_a_batch_that_was_cut_off_is_followed_by_nothing_on_the_same_connection(
    wire: Wire, listener: Listener
) -> None:
    async with wire.driver(listener.address) as made:
        await listener.take()
        sending = asyncio.create_task(made.send(batch(b"x" * (16 << 20))))
        await until(link(made).turn.locked)
        waiting = asyncio.create_task(made.send(batch(b"after")))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(ConnectionError, match="ends in the middle of a message"):
            await waiting
        with suppress(asyncio.CancelledError):
            await sending


async def test_many_containers_share_a_connection_and_their_messages_never_mix(wire: Wire, listener: Listener) -> None:
    batches = [batch(*numbered(0, 300, width=number)) for number in range(50)]
    async with wire.driver(listener.address) as made:
        only = await listener.take()
        sending = asyncio.gather(*map(made.send, batches))
        messages = (await wire.read(only, 15_000)).split(wire.end)
        await sending
    got: dict[str, list[bytes]] = {}
    for one in messages[:-1]:
        name, line = wire.whose(one)
        got.setdefault(name, []).append(line)
    assert got == {one.container.id[:12]: lines_of(one) for one in batches}


async def test_closing_ends_whoever_is_sending(wire: Wire, listener: Listener) -> None:
    async with wire.driver(listener.address) as made:
        await listener.take()
        batches = [batch(b"x" * (16 << 20)) for _ in range(3)]
        sending = [asyncio.create_task(made.send(one)) for one in batches]
        await until(link(made).turn.locked)
        await made.close()
        results = await asyncio.wait_for(asyncio.gather(*sending, return_exceptions=True), TIMEOUT_S)
        assert all(isinstance(one, ConnectionError) for one in results)
        with pytest.raises(ConnectionError, match="not connected"):
            await made.send(batches[0])


async def test_the_peers_end_is_seen_before_the_next_send_although_nothing_was_sent(
    wire: Wire, listener: Listener
) -> None:
    async with wire.driver(listener.address) as made:
        first = await listener.take()
        await made.send(batch(b"one"))
        assert wire.lines(await wire.read(first, 1)) == [b"one"]
        first.shutdown(socket.SHUT_WR)  # it would still take what comes
        await until(lambda: bool(link(made).error))
        with pytest.raises(ConnectionError, match=rf"{wire.kind.name} at tcp://127\.0\.0\.1:\d+: closed by the server"):
            await made.send(batch(b"two"))
        assert unread(first) == 0


async def test_a_dead_host_is_noticed_by_the_kernel(wire: Wire, listener: Listener) -> None:
    async with wire.driver(listener.address) as made:
        which = link(made)._socket
        assert which.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert which.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert which.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


async def test_a_server_that_closes_at_once_is_not_open(wire: Wire, listener: Listener) -> None:
    made = wire.make(listener.address)
    opening = asyncio.create_task(made.open())
    (await listener.take()).close()
    with pytest.raises(ConnectionError, match="closed by the server, right after the connection was made"):
        await opening
    await made.close()


async def test_nothing_listening_is_an_error_to_try_again_with_the_address_in_it(wire: Wire) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for address in (f"tcp://127.0.0.1:{bound.getsockname()[1]}", "tcp://no.invalid:1", "udp://no.invalid:1"):
            made = wire.make(address)
            with pytest.raises(OSError, match=re.escape(f"{wire.kind.name} at {address}: ")):
                await made.open()
            await made.close()
            with pytest.raises(ConnectionError, match="not connected"):
                await made.send(batch(b"x"))


async def test_what_a_dead_peers_kernel_threw_away_does_not_count_for_read() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = links.Stream(ours)
    await stream.write(b"line")
    assert stream.confirmed() <= 0
    theirs.close()
    assert links.queued(ours) == 0
    with pytest.raises(ConnectionResetError):
        stream.confirmed()
    stream.close()


async def test_a_record_is_within_the_bytes_that_hold_it_whole(wire: Wire, listener: Listener) -> None:
    one = batch(*numbered(0, 20), b"", b"e\0nd\n")
    async with wire.driver(listener.address) as made:
        await listener.take()
        messages = made._encode(one)
        assert sum(messages.sizes()) == sum(map(len, messages.blocks()))
        for count, end in enumerate(itertools.accumulate(messages.sizes()), 1):
            assert records_within(end, messages) >= count
            assert records_within(end - 1, messages) < count or not list(messages.sizes())[count - 1]


# -- datagrams -----------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """One with the buffer that it gets without asking for more."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        yield one


def udp(receiver: socket.socket) -> str:
    return f"udp://127.0.0.1:{receiver.getsockname()[1]}"


def plain(wire: Wire) -> dict[str, str]:
    return {"gelf_compression_type": "none"} if wire.kind is GelfDriver else {}


async def test_datagrams_sent_by_the_deadline_are_not_sent_again(wire: Wire, receiver: socket.socket) -> None:
    lines = numbered(0, 100)
    loop = asyncio.get_running_loop()
    async with wire.driver(udp(receiver), **{f"{wire.kind.name}_udp_rate": "200"}, **plain(wire)) as made:
        one = batch(*lines)
        sending = asyncio.create_task(made.send(one))
        got = [await asyncio.wait_for(loop.sock_recv(receiver, 65536), TIMEOUT_S) for _ in range(5)]
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        with suppress(BlockingIOError):
            while True:
                got.append(receiver.recv(65536))
        assert 0 < one.acknowledged == len(got) < len(lines)
    assert [wire.whose(message)[1] for message in got] == lines[: len(got)]


@pytest.mark.parametrize(("rate", "size"), [(10_000, 100), (10_000, 1000), (10_000, 8000), (500, 100), (1, 100)])
def test_a_pace_leaves_a_receiver_ten_milliseconds_and_keeps_to_its_rate(
    monkeypatch: pytest.MonkeyPatch, rate: int, size: int
) -> None:
    """A receiver that looks every 10 ms finds all in its default buffer."""
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    pace = Pace(rate)
    sent: list[float] = []
    for _ in range(2000):
        clock += pace.pause(size)
        sent.append(clock)
    in_10_ms = max(sum(at <= one < at + 0.01 for one in sent[first : first + 400]) for first, at in enumerate(sent))
    assert in_10_ms * datagrams.kernel_bytes(size) <= 212_992
    assert (len(sent) - 100) / (sent[-1] - sent[0]) <= rate


def test_what_was_not_sent_in_a_quiet_time_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    pace = Pace(1000)
    assert not any(pace.pause(100) for _ in range(10))
    clock += 3600
    pauses = [pace.pause(100) for _ in range(40)]
    assert sum(pauses) >= 0.02


async def test_batches_are_as_small_as_their_pace_needs_and_without_a_pace_of_any_size(wire: Wire) -> None:
    option = f"{wire.kind.name}_udp_rate"
    assert wire.make("udp://127.0.0.1:1").max_batch_records == 2500
    assert wire.make("udp://127.0.0.1:1", **{option: "1"}).max_batch_records == 1
    assert wire.make("udp://127.0.0.1:1", **{option: "0"}).max_batch_records == 0
    assert wire.make("tcp://127.0.0.1:1").max_batch_records == 0


async def test_a_udp_server_that_moves_to_another_address_is_followed(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as old, socket.socket(type=socket.SOCK_DGRAM) as new:
        old.bind(("127.0.0.1", 0))
        new.bind(("127.0.0.2", old.getsockname()[1]))
        for one in (old, new):
            one.settimeout(TIMEOUT_S)
        names = {"logs.example": "127.0.0.1"}  # there is no name server to change here

        async def resolve(host: str, port: int, kind: socket.SocketKind) -> list[tuple[socket.AddressFamily, object]]:
            if host not in names:
                raise socket.gaierror("no name server answers")
            return [(socket.AF_INET, (names[host], port))]

        monkeypatch.setattr(datagrams, "resolve", resolve)
        monkeypatch.setattr(unacknowledged, "RESOLVE_AGAIN_S", 0.0)
        async with wire.driver(f"udp://logs.example:{old.getsockname()[1]}", **plain(wire)) as made:
            await made.send(batch(b"one"))
            assert wire.whose(old.recv(2000))[1] == b"one"
            del names["logs.example"]
            await made.send(batch(b"two"))
            assert wire.whose(old.recv(2000))[1] == b"two"
            names["logs.example"] = "127.0.0.2"
            assert await deliver(made, batch(b"three"), TIMEOUT_S) == 2
            assert wire.whose(new.recv(2000))[1] == b"three"


async def test_that_nobody_receives_datagrams_is_an_error_where_the_system_tells(
    wire: Wire, receiver: socket.socket
) -> None:
    address = udp(receiver)
    async with wire.driver(address, **plain(wire)) as made:
        await made.send(batch(b"one"))
        receiver.close()
        with pytest.raises(ConnectionError, match=f"{wire.kind.name} at {address}: Connection refused"):
            await made.send(batch(b"two"))
