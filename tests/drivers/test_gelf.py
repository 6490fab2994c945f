import asyncio
import itertools
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from batches import NOW_NS, batch, container, deliver, group, numbered, numbers, texts
from certificates import encrypt_key, make_ca, make_certificate
from gelf_peer import CHUNK_TIMEOUT_S, Reassembly, TcpInput, UdpInput, check, unpack
from hypothesis import given
from hypothesis import strategies as st
from listening import until

from logd.batch import Batch, ContainerInfo, Group, Partial
from logd.driver import Reject, parse_options
from logd.drivers.gelf import GelfDriver, GelfMessages, GelfOptions
from logd.drivers.gelf_format import MessageFormat, Packing, chunks, timestamp
from logd.drivers.unacknowledged import TooLargeError, records_within
from logd.errors import InvalidParameter
from logd.record import STDERR, STDOUT
from logd.testing.bench import Bench

TIMEOUT_S = 20.0
DRIVER = "gelf log driver"


def options(address: str, **values: str) -> GelfOptions:
    given_values = {name.replace("_", "-"): value for name, value in values.items()}
    return parse_options(DRIVER, GelfOptions, {"gelf-address": address, **given_values})


@asynccontextmanager
async def driver(address: str, **values: str) -> AsyncIterator[GelfDriver]:
    made = GelfDriver(options(address, **values))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def udp() -> AsyncIterator[UdpInput]:
    made = UdpInput()
    yield made
    made.close()


@pytest.fixture
async def tcp() -> AsyncIterator[TcpInput]:
    made = await TcpInput().start()
    yield made
    await made.stop()


# -- messages ------------------------------------------------------------------------------------------------------


def messages(
    *groups: Group, who: ContainerInfo | None = None, attributes: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    made = MessageFormat(who or container(), "host", "tag", attributes or {})
    return [check(text) for text in b"".join(made.blocks(groups)).split(b"\0")[:-1]]


def test_a_message_has_dockers_fields_in_dockers_order() -> None:
    who = container(
        image_id="sha256:" + "a" * 64,
        image_name="shop:1",
        entrypoint="/run",
        args=("--port", "80"),
        created_ns=1_600_000_000_500_000_000,
    )
    made = MessageFormat(who, "host", "tag", {"app": "shop", "_zone": "eu"})
    assert b"".join(made.blocks([group(b'say "hi"', stream=STDERR)])) == (
        rb'{"version":"1.1","host":"host","short_message":"say \"hi\"","timestamp":1700000000.123,"level":3,'
        b'"_app":"shop","_command":"/run --port 80","_container_id":"%b","_container_name":"web",'
        b'"_created":"2020-09-13T12:26:40.5Z","_image_id":"sha256:%b","_image_name":"shop:1","_tag":"tag",'
        b'"_zone":"eu"}\0' % (who.id.encode(), b"a" * 64)
    )


def test_times_have_milliseconds_as_go_writes_them() -> None:
    assert timestamp(NOW_NS) == b"1700000000.123"
    assert timestamp(1_700_000_000_000_999_999) == b"1700000000"
    assert timestamp(1_700_000_000_120_000_000) == b"1700000000.12"


@pytest.mark.parametrize(
    "name", ["container_id", "_container_id", "tag", "created", "id", "_id", "partial_id", "", "_"]
)
def test_a_label_takes_no_other_fields_place(name: str) -> None:
    (plain,) = messages(group(b"x"), who=(who := container()))
    assert messages(group(b"x"), who=who, attributes={name: "forged"}) == [plain]


def test_a_label_named_like_a_field_without_underscore_is_another_field() -> None:
    (one,) = messages(group(b"x"), attributes={"short_message": "forged", "level": "0", "host": "forged"})
    assert one["short_message"] == "x"
    assert one["level"] == 6
    assert one["_host"] == "forged"


def test_what_a_processor_read_out_becomes_additional_fields_of_texts_and_numbers() -> None:
    fields = [
        {"level": "info", "n": 1 << 70, "f": 1.5, "deep": {"a": [True, None]}, "yes": True, "null": None, "id": 7},
        None,
        {"tag": "forged", "bad": "\ud800", "inf": float("inf"), "app": "line"},
    ]
    first, second, third = messages(group(b"a", b"b", b"c", fields=fields), attributes={"app": "label"})
    more = {name: value for name, value in first.items() if name not in second}
    assert more == {"_level": "info", "_n": 1 << 70, "_f": 1.5, "_deep": '{"a":[true,null]}', "_yes": "true"}
    assert third["_tag"] == "tag"
    assert third["_app"] == "label"
    assert third["_bad"] == "\ufffd"
    assert third["_inf"] == "inf"


def test_a_part_of_a_line_tells_which_one_it_is() -> None:
    (one,) = messages(group(b"part", partial=Partial("f" * 64, 3, False)), attributes={"partial_last": "forged"})
    told = {name: value for name, value in one.items() if name.startswith("_partial")}
    assert told == {
        "_partial_message": "true",
        "_partial_id": "f" * 64,
        "_partial_ordinal": 3,
        "_partial_last": "false",
    }


any_lines = st.lists(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), min_size=1, max_size=30)


@given(any_lines)
def test_every_line_but_an_empty_one_is_one_message_whatever_it_holds(lines: list[bytes]) -> None:
    groups = [group(*lines), group(*lines[::-1], stream=STDERR), group(*lines, fields=[{"a": 1}] * len(lines))]
    made = MessageFormat(container(), "host", "tag", {"bad": "\udcff"})
    stream = b"".join(made.blocks(groups))
    records = [line.decode(errors="replace") for one in groups for line in one.lines]
    assert [check(text)["short_message"] for text in stream.split(b"\0")[:-1]] == [one for one in records if one]
    one_by_one = [text for one in groups for text in made.messages(one)]
    assert b"".join(text + b"\0" for text in one_by_one if text) == stream
    whole = GelfMessages(made, Packing("gzip", 1), groups)
    ends = itertools.accumulate(len(text) + 1 if text else 0 for text in one_by_one)
    for count, (end, text) in enumerate(zip(ends, one_by_one, strict=True), 1):
        if text:
            assert records_within(end, whole) >= count
            assert records_within(end - 1, whole) < count


def test_a_million_lines_are_not_encoded_at_once() -> None:
    blocks = list(MessageFormat(container(), "host", "tag", {}).blocks([group(*[b"x"] * 100_000)]))
    assert max(map(len, blocks)) < 1 << 20
    assert sum(block.count(b"\0") for block in blocks) == 100_000


# -- datagrams -----------------------------------------------------------------------------------------------------


@given(
    st.binary(max_size=4000).map(lambda text: b"{" + text * 30), st.sampled_from(["gzip", "zlib", "none"]), st.data()
)
def test_a_message_can_be_had_back_from_its_datagrams_in_any_order(
    message: bytes, compression: str, data: st.DataObject
) -> None:
    level = data.draw(st.integers(-1, 9))
    pieces = Packing(compression, level).datagrams(message)
    assert all(len(piece) <= 1420 for piece in pieces)
    reassembly = Reassembly()
    whole = [reassembly.add(piece, 0) for piece in data.draw(st.permutations(pieces))]
    assert whole[:-1] == [None] * (len(pieces) - 1)
    assert unpack(whole[-1] or b"") == (compression, message)


@pytest.mark.parametrize(("size", "count"), [(1420, 1), (1421, 2), (2 * 1408, 2), (2 * 1408 + 1, 3), (128 * 1408, 128)])
def test_a_message_has_as_many_chunks_as_it_needs(size: int, count: int) -> None:
    pieces = Packing("none", 1).datagrams(b"x" * size)
    assert len(pieces) == count
    assert sum(map(len, pieces)) == size + (12 * count if count > 1 else 0)


def test_no_message_has_more_than_128_chunks() -> None:
    with pytest.raises(TooLargeError, match="msg too large, would need 129 chunks"):
        chunks(b"x" * (128 * 1408 + 1))


@pytest.mark.parametrize("byte", [b"x", b"\0", b"\xff", b'"'])
def test_a_line_of_the_largest_size_fits_whatever_is_in_it(byte: bytes) -> None:
    assert GelfDriver(options("udp://h:1")).max_record_bytes == 16384  # Docker's
    made = MessageFormat(container(), "host", "tag", {"label": "l" * 60_000})
    for message in made.messages(group(byte * 16384)):
        assert Packing("none", 1).datagrams(message)


def test_a_line_over_tcp_stays_below_what_graylog_takes_whatever_is_in_it() -> None:
    size = GelfDriver(options("tcp://h:1")).max_record_bytes
    made = MessageFormat(container(), "host", "tag", {"label": "l" * 60_000})
    assert size == 256 << 10
    assert max(map(len, made.blocks([group(b"\0" * size)]))) < 2 << 20


# -- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("udp://127.0.0.1:12201", "udp://127.0.0.1:12201"),
        ("tcp://[::1]:12201", "tcp://[::1]:12201"),
        ("tls://graylog.example:12202/", "tls://graylog.example:12202"),
        ("UDP://Host:1", "udp://host:1"),
        ("udp://:12201", "udp://localhost:12201"),
    ],
)
def test_addresses_are_understood_as_docker_does(text: str, shown: str) -> None:
    assert str(options(text).gelf_address) == shown


UDP = {"gelf-address": "udp://127.0.0.1:12201"}
TCP = {"gelf-address": "tcp://127.0.0.1:12201"}
TLS = {"gelf-address": "tls://localhost:12201"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "gelf-address is a required parameter"),
        ({"gelf-address": ""}, "gelf-address is a required parameter"),
        ({"gelf-address": "127.0.0.1:12201"}, "gelf: endpoint needs to be TCP or UDP"),
        ({"gelf-address": "http://127.0.0.1:12201"}, "gelf: endpoint needs to be TCP or UDP"),
        ({"gelf-address": "udp://127.0.0.1"}, "gelf: please provide gelf-address as proto://host:port"),
        ({"gelf-address": "udp://h:x"}, "invalid port"),
        ({"gelf-address": "udp://h:70000"}, "invalid port"),
        ({"gelf-address": "udp://h\n:1"}, "invalid character in URL"),
        ({"gelf-address": "udp://[::1"}, "gelf-address: "),
        (TCP | {"gelf-compression-level": "9"}, "compression is only supported on UDP"),
        (TCP | {"gelf-compression-type": "gzip"}, "compression is only supported on UDP"),
        (TLS | {"gelf-compression-type": "none"}, "compression is only supported on UDP"),
        (
            UDP | {"gelf-compression-type": "rar"},
            'unknown value "rar" for log opt "gelf-compression-type" for gelf log',
        ),
        (UDP | {"gelf-compression-level": "ultra"}, 'unknown value "ultra" for log opt "gelf-compression-level" for g'),
        (UDP | {"gelf-compression-level": "10"}, 'unknown value "10" for log opt "gelf-compression-level"'),
        (UDP | {"gelf-compression-level": "-2"}, 'unknown value "-2" for log opt "gelf-compression-level"'),
        (UDP | {"gelf-tcp-max-reconnect": "1"}, '"gelf-tcp-max-reconnect" is only valid for TCP'),
        (UDP | {"gelf-tcp-reconnect-delay": "1"}, '"gelf-tcp-reconnect-delay" is only valid for TCP'),
        (TCP | {"gelf-tcp-max-reconnect": "-1"}, '"gelf-tcp-max-reconnect" must be a positive integer'),
        (TCP | {"gelf-tcp-reconnect-delay": "invalid"}, '"gelf-tcp-reconnect-delay" must be a positive integer'),
        (TCP | {"gelf-tls-ca-cert": "/x"}, "gelf-tls-ca-cert is of use for a tls:// gelf-address only"),
        (UDP | {"gelf-tls-skip-verify": "true"}, "gelf-tls-skip-verify is of use for a tls:// gelf-address only"),
        (TLS | {"gelf-tls-skip-verify": "maybe"}, "gelf-tls-skip-verify: 'maybe' (accepted: true, false)"),
        (TLS | {"gelf-tls-ca-cert": "/no"}, "gelf-tls-ca-cert: could not read CA certificate '/no'"),
        (TLS | {"gelf-tls-cert": "/dev/null"}, "could not load X509 key pair"),
        (TLS | {"gelf-tls-key": "/dev/null"}, "gelf-tls-key needs gelf-tls-cert"),
        (UDP | {"invalid": "invalid"}, "unknown log opt 'invalid' for gelf log driver"),
    ],
)
def test_what_docker_refuses_is_refused_at_create(values: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_options(DRIVER, GelfOptions, values, at_create=True)
    assert words in str(refused.value)


def test_all_of_dockers_options_are_taken_together() -> None:
    common = {"tag": "testtag", "labels": "a", "labels-regex": "b", "env": "c", "env-regex": "d"}
    made = parse_options(
        DRIVER, GelfOptions, UDP | common | {"gelf-compression-level": "9", "gelf-compression-type": "zlib"}
    )
    assert made.packing == Packing("zlib", 9)
    hints = {"gelf-tcp-max-reconnect": "5", "gelf-tcp-reconnect-delay": "10"}
    assert parse_options(DRIVER, GelfOptions, TCP | common | hints).gelf_tcp_max_reconnect == 5
    assert parse_options(DRIVER, GelfOptions, TLS | common | hints)


def test_without_options_datagrams_are_gzip_at_best_speed() -> None:
    assert options("udp://h:1").packing == Packing("gzip", 1)
    assert options("udp://h:1", gelf_compression_level="-1").packing == Packing("gzip", -1)
    assert options("udp://h:1", gelf_compression_level="0").packing == Packing("gzip", 0)


# -- what an input gets --------------------------------------------------------------------------------------------

ODD = [b" ", b"\xff\xfe", b"nul\0nul", b"two\nlines", b'{"a": 1}', b'ends in ",', "é\u2028\x7f".encode(), b"x" * 9000]
SHOWN = [line.decode(errors="replace") for line in ODD]


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
async def test_an_input_takes_any_line_over_udp(udp: UdpInput, compression: str) -> None:
    who = container(labels={"app": "shop"}, env=("MODE=test",))
    values = {"labels": "app", "env": "MODE", "tag": "{{.Name}}/{{.ID}}"}
    async with driver(udp.address, gelf_compression_type=compression, **values) as made:
        await made.send(Batch(who, [group(*ODD), group(b"failed", b"", stream=STDERR)]))
        await until(lambda: len(udp.messages) == len(ODD) + 1)
    assert udp.lines == [*SHOWN, "failed"]
    assert [one["level"] for one in udp.messages] == [6] * len(ODD) + [3]
    assert udp.messages[0]["_app"] == "shop"
    assert udp.messages[0]["_MODE"] == "test"
    assert udp.messages[0]["_tag"] == f"web/{who.id[:12]}"
    assert udp.messages[0]["host"] == socket.gethostname()
    assert udp.compressions == {compression}
    assert max(udp.datagrams) <= 1420
    assert (len(udp.datagrams) > len(udp.messages)) == (compression == "none")
    made.forget(who)


async def test_the_level_of_compression_is_used(udp: UdpInput) -> None:
    line = " ".join(str(number * number) for number in range(1500)).encode()
    for level in ("0", "1", "9"):
        async with driver(udp.address, gelf_compression_level=level) as made:
            await made.send(batch(line))
    await until(lambda: len(udp.messages) == 3)
    count = len(udp.datagrams)
    (message,) = MessageFormat(container(), socket.gethostname(), "x" * 12, {}).messages(group(line))
    assert count == sum(-(-len(zlib.compress(message, level, 31)) // 1408) for level in (0, 1, 9))


async def test_a_message_of_which_a_chunk_is_lost_is_forgotten_by_the_peer_and_no_other_suffers() -> None:
    reassembly = Reassembly()
    first, second = chunks(b"a" * 3000), chunks(b"b" * 3000)
    for piece in first[:-1] + second[:-1]:
        assert reassembly.add(piece, 0) is None
    assert reassembly.add(second[-1], 1) == b"b" * 3000
    assert reassembly.add(b"{}", CHUNK_TIMEOUT_S + 1) == b"{}"
    assert reassembly.expired == 1


async def test_a_line_that_does_not_fit_128_chunks_is_rejected_and_the_others_are_not(udp: UdpInput) -> None:
    async with driver(udp.address, gelf_compression_type="none") as made:
        one = batch(b"before", b"x" * 200_000, b"after")  # joined by a line processor
        with pytest.raises(Reject, match="msg too large, would need 143 chunks") as rejected:
            await made.send(one)
        assert rejected.value.record == one.acknowledged == 1
        await made.send(batch(b"after"))  # without having been closed
        await until(lambda: len(udp.messages) == 2)
    assert udp.lines == ["before", "after"]


async def test_an_input_takes_any_line_over_tcp(tcp: TcpInput) -> None:
    async with driver(tcp.address) as made:
        await made.send(Batch(container(), [group(*ODD), group(b"", b"failed", stream=STDERR), group(b"")]))
        await until(lambda: len(tcp.messages) == len(ODD) + 1)
    assert tcp.lines == [*SHOWN, "failed"]
    assert not tcp.torn
    assert len(tcp.connections) == 1


async def test_lines_of_nothing_are_done_with_at_once(tcp: TcpInput, udp: UdpInput) -> None:
    for address in (tcp.address, udp.address):
        async with driver(address) as made:
            await asyncio.wait_for(made.send(batch(b"", b"")), TIMEOUT_S)
    assert not tcp.messages
    assert not udp.messages


async def test_an_empty_line_counts_as_dropped_and_the_account_adds_up(
    tcp: TcpInput, udp: UdpInput, tmp_path: Path
) -> None:
    for address in (tcp.address, udp.address):
        async with Bench(tmp_path, GelfDriver, {"gelf-address": address}) as bench:
            box = bench.container()
            box.prints([(STDOUT, b""), (STDOUT, b"one"), (STDERR, b""), (STDOUT, b""), (STDOUT, b""), (STDOUT, b"two")])
            bench.deliver(box)
            await bench.finish()
            account = box.account
        assert (account["dropped"], account["unconfirmed"], account["records"]) == ({"empty": 4}, 8, 2)
        assert (account["captured"], account["buffered"], account["difference"]) == (12, 0, 0)
    await until(lambda: tcp.lines == ["one", "two"] == udp.lines)


# -- faults --------------------------------------------------------------------------------------------------------


async def test_an_input_that_comes_back_gets_what_was_printed_meanwhile(tcp: TcpInput) -> None:
    async with driver(tcp.address) as made:
        await made.send(batch(b"before"))
        await until(lambda: len(tcp.messages) == 1)
        await tcp.stop()
        sending = asyncio.create_task(deliver(made, batch(*numbered(0, 1000))))
        await asyncio.sleep(0.05)
        await tcp.start()
        await asyncio.wait_for(sending, TIMEOUT_S)
        await until(lambda: len(tcp.messages) == 1001)
    assert tcp.lines == ["before", *texts(numbered(0, 1000))]


async def test_an_input_that_never_reads_is_left_by_the_deadline_and_half_a_message_is_followed_by_nothing(
    tcp: TcpInput,
) -> None:
    lines = numbered(0, 20_000, width=1000)
    tcp.reading.clear()
    async with driver(tcp.address) as made:
        one = batch(*lines)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await made.send(one)
        assert 0 < one.acknowledged < len(lines)  # which the peer's kernel has
        with pytest.raises(ConnectionError, match="ends in the middle of a message"):
            await made.send(batch(b"after"))
        await made.close()
        tcp.reading.set()
        await made.open()
        again = Batch(one.container, [group(*lines[one.acknowledged :])])
        assert await deliver(made, again, timeout_s=TIMEOUT_S) == 1
        await until(lambda: tcp.lines[-1:] == texts(lines[-1:]))
    assert tcp.torn <= 1
    assert set(tcp.lines) == set(texts(lines))


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ca(tmp_path_factory.mktemp("certificates"), "ca")


async def test_an_input_takes_any_line_over_tls(ca: Path) -> None:
    server = await TcpInput().start(make_certificate(ca, "server"))
    async with driver(server.address, gelf_tls_ca_cert=str(ca)) as made:
        await made.send(batch(*ODD))
        await until(lambda: len(server.messages) == len(ODD))
    assert server.lines == SHOWN
    await server.stop()


@pytest.mark.parametrize(
    ("days", "host", "is_trusted", "words"),
    [
        (-1, "localhost", True, "certificate has expired"),
        (2, "elsewhere.example", True, "Hostname mismatch, certificate is not valid for 'localhost'"),
        (2, "localhost", False, "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_is_not_right_is_an_error_to_try_again_unless_verification_is_off(
    ca: Path, days: int, host: str, is_trusted: bool, words: str
) -> None:
    server = await TcpInput().start(make_certificate(ca, f"bad{next(numbers)}", days=days, host=host))
    values = {"gelf_tls_ca_cert": str(ca)} if is_trusted else {}
    made = GelfDriver(options(server.address, **values))
    with pytest.raises(ConnectionError) as refused:
        await made.open()
    assert f"gelf at {server.address}: TLS handshake: the server's certificate is not trusted: " in str(refused.value)
    assert words in str(refused.value)
    await made.close()
    named = {"gelf_tls_server_name": host} if host != "localhost" else {"gelf_tls_skip_verify": "true"}
    async with driver(server.address, **values, **named) as made:
        await made.send(batch(b"one"))
        await until(lambda: server.lines == ["one"])
    await server.stop()


async def test_an_input_that_wants_a_certificate_gets_it_and_takes_nothing_without(ca: Path) -> None:
    server = await TcpInput().start(make_certificate(ca, "strict"), clients=ca)
    made = GelfDriver(options(server.address, gelf_tls_ca_cert=str(ca)))
    with pytest.raises(ConnectionError, match="gelf at tls"):
        await made.open()
    await made.close()
    client = make_certificate(ca, "client")
    values = {"gelf_tls_cert": str(client), "gelf_tls_key": str(client.with_suffix(".key"))}
    async with driver(server.address, gelf_tls_ca_cert=str(ca), **values) as made:
        await made.send(batch(b"one"))
        await until(lambda: server.lines == ["one"])
    await server.stop()


async def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(ca: Path) -> None:
    certificate = make_certificate(ca, "encrypted")
    values = TLS | {"gelf-tls-cert": str(certificate), "gelf-tls-key": str(encrypt_key(certificate))}
    with pytest.raises(InvalidParameter, match="make sure the key is not encrypted"):
        parse_options(DRIVER, GelfOptions, values, at_create=True)


async def test_certificates_that_vanish_after_the_create_are_an_error_to_try_again(ca: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ca.pem"
    copy.write_bytes(ca.read_bytes())
    made = GelfDriver(parse_options(DRIVER, GelfOptions, TLS | {"gelf-tls-ca-cert": str(copy)}, at_create=True))
    copy.unlink()
    with pytest.raises(ConnectionError, match="could not read CA certificate"):
        await made.open()
