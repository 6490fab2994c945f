"""The fluentd driver against a Fluent forward server that is not ours, and against peers that misbehave."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forward_peer import (
    ROOT,
    Certificates,
    Connection,
    FluentServer,
    ForwardPeer,
    Guard,
    Message,
    acknowledge,
    say_nothing,
)

from logd import plugins
from logd.batch import Batch, ContainerInfo, Group, Partial
from logd.driver import log_opts, parse_options
from logd.drivers import fluentd
from logd.drivers.fluentd import FluentdDriver, FluentdOptions
from logd.drivers.forward_address import Address
from logd.errors import InvalidParameter
from logd.record import STDERR, STDOUT

CONTAINER = ContainerInfo(
    id="c0ffee" * 10 + "c0de", name="web", labels={"team": "blue", "log": "forged", "source": "forged"}
)
TIME_NS = 1_700_000_000_123_456_789
SECURITY = {"serverHostname": "server", "sharedKey": "the key", "authorize": False, "userDict": {"anna": "secret"}}
BIG = [b"%07d" % number + b"x" * 93 for number in range(10_000)]
"""A megabyte of lines, more than one chunk."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def parse(**log_opts: str) -> FluentdOptions:
    named = {name.replace("_", "-"): value for name, value in log_opts.items()}
    return parse_options("fluentd log driver", FluentdOptions, named)


def make_batch(lines: list[bytes], position: int = 0, container: ContainerInfo = CONTAINER, **more: Any) -> Batch:
    end = position + sum(map(len, lines)) + len(lines)
    return Batch(container, [Group(TIME_NS, more.pop("stream", STDOUT), position, end, lines, **more)])


@contextlib.asynccontextmanager
async def opened(**log_opts: str) -> AsyncIterator[FluentdDriver]:
    driver = FluentdDriver(parse(**log_opts))
    try:
        await driver.open()
        yield driver
    finally:
        await driver.close()


async def open_and_send(driver: FluentdDriver, lines: list[bytes]) -> None:
    await driver.open()
    await driver.send(make_batch(lines))


async def deliver(driver: FluentdDriver, lines: list[bytes], tries: int = 20) -> int:
    """Send until all is acknowledged, as delivery does; return how often it took."""
    for attempt in range(1, tries + 1):
        batch = make_batch(lines)
        try:
            await driver.send(batch)
        except OSError:
            await driver.close()
            await driver.open()
            lines = lines[batch.acknowledged :]
        else:
            return attempt
    raise AssertionError(f"not delivered in {tries} tries")


# -- options ----------------------------------------------------------------------------------------------------------


def test_without_options_it_is_dockers_defaults_but_for_the_acknowledgement() -> None:
    options = parse()
    assert options.fluentd_address == (Address("tcp", "127.0.0.1", 24224),)
    assert options.fluentd_request_ack is True
    assert (options.fluentd_async, options.fluentd_sub_second_precision) == (False, False)
    assert (options.fluentd_buffer_limit, options.fluentd_max_retries, options.fluentd_retry_wait) == (
        1 << 20,
        2**31 - 1,
        1,
    )
    assert (options.fluentd_write_timeout, options.fluentd_read_timeout) == (0, 0)
    assert options.fluentd_async_reconnect_interval == 0


def test_an_empty_value_is_as_if_the_option_were_not_given() -> None:
    assert parse(**dict.fromkeys((name.replace("-", "_") for name in log_opts(FluentdOptions)), "")) == parse()


DOCKERS_PORTS = {"": 24224, ":": 24224, ":123": 123, ":65535": 65535}


@pytest.mark.parametrize(("port", "expected"), DOCKERS_PORTS.items())
@pytest.mark.parametrize(
    ("host", "scheme", "name"),
    [
        ("192.168.1.1", "tcp", "192.168.1.1"),
        ("[::1]", "tcp", "::1"),
        ("example.com", "tcp", "example.com"),
        ("tcp://example.com", "tcp", "example.com"),
        ("tls://example.com", "tls", "example.com"),
        ("tcp://", "tcp", "127.0.0.1"),
    ],
)
def test_an_address_has_a_host_and_perhaps_scheme_and_port(
    host: str, scheme: str, name: str, port: str, expected: int
) -> None:
    assert parse(fluentd_address=host + port).fluentd_address == (Address(scheme, name, expected),)
    for path in ("/", "/some-path"):
        with pytest.raises(InvalidParameter, match="should not contain a path element"):
            parse(fluentd_address=host + port + path)


@pytest.mark.parametrize("path", ["/some/socket.sock", "/some/socket.sock:80"])
def test_an_address_may_be_the_path_of_a_socket(path: str) -> None:
    assert parse(fluentd_address=f"unix://{path}").fluentd_address == (Address("unix", path=path),)


def test_several_addresses_are_separated_by_commas() -> None:
    options = parse(fluentd_address="one:1, tls://two,unix:///three")
    assert [str(one) for one in options.fluentd_address] == ["tcp://one:1", "tls://two:24224", "unix:///three"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("://", "missing protocol scheme"),
        ("something://", "unsupported scheme: 'something'"),
        ("udp://", "unsupported scheme: 'udp'"),
        ("unixgram://", "unsupported scheme: 'unixgram'"),
        ("tcp+tls://", "unsupported scheme: 'tcp+tls'"),
        ("corrupted:c", "invalid port"),
        ("tcp://example.com:port", "invalid port"),
        ("tcp://example.com:-1", "invalid port"),
        ("tcp://example.com:65536", "invalid port"),
        ("unix://", "path is empty"),
        ("unix:///" + "x" * 107, "longer than the 107 bytes"),
        ("tcp://a..b", "invalid host name"),
        ("tcp://[::1", "Invalid IPv6 URL"),
        ("exa mple", "invalid character"),
        ("a,,b", "an address is empty"),
        ("a,udp://b", "unsupported scheme: 'udp'"),
    ],
)
def test_an_address_that_does_not_do_is_refused_with_the_reason(address: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse(fluentd_address=address)
    assert str(refused.value).startswith(f"invalid fluentd-address ({address}): ")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fluentd_async", "true", True),
        ("fluentd_async_reconnect_interval", "0", 0.0),
        ("fluentd_async_reconnect_interval", "100ms", 0.1),
        ("fluentd_async_reconnect_interval", "10s", 10.0),
        ("fluentd_buffer_limit", "8m", 8 << 20),
        ("fluentd_max_retries", "0", 0),
        ("fluentd_max_retries", "2147483647", 2**31 - 1),
        ("fluentd_retry_wait", "1m", 60.0),
        ("fluentd_request_ack", "false", False),
        ("fluentd_sub_second_precision", "1", True),
        ("fluentd_write_timeout", "5s", 5.0),
        ("fluentd_read_timeout", "0", 0.0),
        ("fluentd_compress", "gzip", "gzip"),
        ("fluentd_shared_key", "k", "k"),
    ],
)
def test_a_value_is_taken_as_docker_takes_it(name: str, value: str, expected: Any) -> None:
    assert getattr(parse(**{name: value}), name) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fluentd_async": "x"}, "fluentd-async: 'x'"),
        ({"fluentd_request_ack": "x"}, "fluentd-request-ack: 'x'"),
        ({"fluentd_sub_second_precision": "x"}, "fluentd-sub-second-precision: 'x'"),
        *(
            ({"fluentd_async_reconnect_interval": value}, "invalid value for fluentd-async-reconnect-interval:")
            for value in ("-1", "1", "-1s", "99ms", "11s")
        ),
        ({"fluentd_async_reconnect_interval": "99ms"}, 'value ("99ms") must be between 100ms and 10s'),
        ({"fluentd_buffer_limit": "-1"}, "fluentd-buffer-limit: invalid size: '-1'"),
        ({"fluentd_max_retries": "-1"}, "fluentd-max-retries: '-1'"),
        ({"fluentd_max_retries": "2147483648"}, "invalid fluentd-max-retries: value out of range"),
        ({"fluentd_max_retries": "9" * 5000}, "invalid fluentd-max-retries: value out of range"),
        ({"fluentd_retry_wait": "1"}, "fluentd-retry-wait: invalid duration"),
        ({"fluentd_write_timeout": "1"}, "invalid value for fluentd-write-timeout: value must be a duration"),
        ({"fluentd_write_timeout": "-1s"}, "fluentd-write-timeout: value must be a duration that is non-negative"),
        ({"fluentd_read_timeout": "-1"}, "invalid value for fluentd-read-timeout: value must be a duration"),
        ({"fluentd_read_timeout": "-1s"}, "fluentd-read-timeout: value must be a duration that is non-negative"),
        ({"fluentd_async_connect": "true"}, "unknown log opt 'fluentd-async-connect' for fluentd log driver"),
        ({"fluentd_compress": "zstd"}, "fluentd-compress: 'zstd'"),
        ({"fluentd_tls_ca_cert": "/nowhere"}, "fluentd-tls-ca-cert: '/nowhere' is not the absolute path of a file"),
        ({"fluentd_tls_cert": "here"}, "fluentd-tls-cert: 'here' is not the absolute path of a file"),
        ({"fluentd_tls_skip_verify": "true"}, "fluentd-tls-skip-verify is of use for a tls:// fluentd-address only"),
        ({"fluentd_address": "tls://a", "fluentd_tls_key": __file__}, "fluentd-tls-key needs fluentd-tls-cert"),
        ({"fluentd_username": "anna"}, "fluentd-username and fluentd-password are given together"),
        ({"fluentd_self_hostname": "me"}, "fluentd-self-hostname is of use with fluentd-shared-key only"),
    ],
)
def test_a_value_that_does_not_do_is_refused_when_the_container_is_created(given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse(**given)
    assert words in str(refused.value)


def test_the_options_do_not_show_secrets() -> None:
    shown = repr(parse(fluentd_shared_key="the-key", fluentd_username="anna", fluentd_password="the-password"))
    assert "anna" in shown
    assert "the-" not in shown


def test_the_driver_is_one_of_the_built_in_plugins() -> None:
    assert plugins.load().drivers["fluentd"] is FluentdDriver


def test_every_option_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "drivers" / "fluentd.md").read_text()
    missing = [name for name in log_opts(FluentdOptions) if name.startswith("fluentd-") and f"`{name}`" not in text]
    assert not missing


# -- a server that is not ours ----------------------------------------------------------------------------------------


async def test_records_reach_a_fluent_server_as_docker_sends_them() -> None:
    async with FluentServer() as server, opened(fluentd_address=server.address, labels="team,log,source") as driver:
        out, err = make_batch([b"hello", b"", "grüß".encode()]), make_batch([b"oops"], stream=STDERR)
        await driver.send(out)
        await driver.send(err)
        records = await server.records(4)
        assert out.acknowledged == 3
    assert {one["tag"] for one in records} == {CONTAINER.id[:12]}
    assert {one["time"] for one in records} == {TIME_NS // 10**9}
    assert [one["record"]["log"] for one in records] == ["hello", "", "grüß", "oops"]
    assert [one["record"]["source"] for one in records] == ["stdout"] * 3 + ["stderr"]
    common = {"container_id": CONTAINER.id, "container_name": "/web", "team": "blue"}
    assert all(one["record"].items() >= common.items() for one in records)
    assert all(len(one["record"]) == 5 for one in records)


async def test_a_tag_template_and_nanoseconds_reach_it() -> None:
    log_opts = {"tag": "docker.{{.ID}}", "fluentd_sub_second_precision": "true"}
    async with FluentServer() as server, opened(fluentd_address=server.address, **log_opts) as driver:
        await driver.send(make_batch([b"x"]))
        (one,) = await server.records(1)
    assert one["tag"] == f"docker.{CONTAINER.id[:12]}"
    assert one["time"] == {"seconds": TIME_NS // 10**9, "nanoseconds": TIME_NS % 10**9}


async def test_parts_of_a_long_line_reach_it() -> None:
    async with FluentServer() as server, opened(fluentd_address=server.address) as driver:
        parts = [Group(TIME_NS, STDOUT, 0, 2, [b"be"], Partial("ab" * 32, 1, last=False))]
        parts += [Group(TIME_NS, STDOUT, 2, 6, [b"gin"], Partial("ab" * 32, 2, last=True))]
        await driver.send(Batch(CONTAINER, parts))
        first, last = (one["record"] for one in await server.records(2))
    assert {name: first[name] for name in first if name.startswith("partial")} == {
        "partial_message": "true",
        "partial_id": "ab" * 32,
        "partial_ordinal": "1",
        "partial_last": "false",
    }
    assert (last["partial_ordinal"], last["partial_last"], last["log"]) == ("2", "true", "gin")


@pytest.mark.parametrize("compress", ["", "gzip"])
async def test_a_megabyte_of_lines_and_a_line_of_a_megabyte_reach_it(compress: str) -> None:
    tricky = [b'  "key": "value",', b'",', b"x" * (1 << 20), b'{"log":"forged"}\nsecond']
    async with FluentServer() as server, opened(fluentd_address=server.address, fluentd_compress=compress) as driver:
        await driver.send(make_batch(BIG))
        await driver.send(make_batch(tricky, position=1 << 21))
        records = await server.records(len(BIG) + len(tricky))
    assert [one["record"]["log"].encode() for one in records] == BIG + tricky


async def test_sixteen_containers_share_one_connection_without_waiting_for_each_other() -> None:
    containers = [replace(CONTAINER, id=f"{number:064x}") for number in range(FluentdDriver.max_in_flight)]
    batches = [make_batch(BIG[:200], container=container) for container in containers]
    async with FluentServer() as server, opened(fluentd_address=server.address) as driver:
        await asyncio.gather(*(driver.send(batch) for batch in batches))
        records = await server.records(200 * len(batches))
    for container in containers:
        own = [one["record"]["log"].encode() for one in records if one["record"]["container_id"] == container.id]
        assert own == BIG[:200]


async def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    path = tmp_path / "fluentd.sock"
    async with (
        FluentServer(listenOptions={"path": str(path)}) as server,
        opened(fluentd_address=f"unix://{path}") as driver,
    ):
        await driver.send(make_batch([b"x"]))
        assert len(await server.records(1)) == 1


async def test_tls_with_an_authority_of_ones_own(certificates: Certificates) -> None:
    async with FluentServer(tlsOptions=certificates.server()) as server:
        address = f"tls://localhost:{server.port}"
        async with opened(fluentd_address=address, fluentd_tls_ca_cert=certificates["ca.crt"]) as driver:
            await driver.send(make_batch(BIG))
            assert len(await server.records(len(BIG))) == len(BIG)


@pytest.mark.parametrize(
    ("certificate", "address", "log_opts", "words"),
    [
        ("server", "tls://localhost", {}, "certificate verify failed"),  # the system's authorities don't know it
        ("server", "tls://localhost", {"fluentd_tls_ca_cert": "other-ca.crt"}, "certificate verify failed"),
        ("server", "tls://127.0.0.1", {"fluentd_tls_server_name": "wrong.test"}, "Hostname mismatch"),
        ("expired", "tls://localhost", {"fluentd_tls_ca_cert": "ca.crt"}, "certificate has expired"),
    ],
)
async def test_a_wrong_certificate_is_refused_and_nothing_is_sent(
    certificates: Certificates, certificate: str, address: str, log_opts: dict[str, str], words: str
) -> None:
    files = {name: certificates[value] if value.endswith(".crt") else value for name, value in log_opts.items()}
    if words == "Hostname mismatch":
        files["fluentd_tls_ca_cert"] = certificates["ca.crt"]
    async with FluentServer(tlsOptions=certificates.server(certificate)) as server:
        driver = FluentdDriver(parse(fluentd_address=f"{address}:{server.port}", **files))
        with pytest.raises(ConnectionError, match=words) as refused:
            await driver.open()
        assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)
        await driver.close()
        assert server.received == []


async def test_a_wrong_certificate_is_taken_only_when_told_so(certificates: Certificates) -> None:
    async with FluentServer(tlsOptions=certificates.server("expired")) as server:
        log_opts = {"fluentd_address": f"tls://localhost:{server.port}", "fluentd_tls_skip_verify": "true"}
        async with opened(**log_opts) as driver:
            await driver.send(make_batch([b"x"]))
            assert len(await server.records(1)) == 1


async def test_a_name_that_the_certificate_is_for_may_be_given(certificates: Certificates) -> None:
    async with FluentServer(tlsOptions=certificates.server()) as server:
        log_opts = {"fluentd_tls_ca_cert": certificates["ca.crt"], "fluentd_tls_server_name": "fluentd.test"}
        async with opened(fluentd_address=f"tls://127.0.0.1:{server.port}", **log_opts) as driver:
            await driver.send(make_batch([b"x"]))
            assert len(await server.records(1)) == 1


async def test_a_server_may_ask_for_a_certificate_of_ours(certificates: Certificates) -> None:
    asks = {"requestCert": True, "rejectUnauthorized": True, "ca": certificates["ca.crt"]}
    async with FluentServer(tlsOptions={**certificates.server(), **asks}) as server:
        log_opts = {
            "fluentd_address": f"tls://localhost:{server.port}",
            "fluentd_tls_ca_cert": certificates["ca.crt"],
            "fluentd_tls_cert": certificates["client.crt"],
            "fluentd_tls_key": certificates["client.key"],
        }
        async with opened(**log_opts) as driver:
            await driver.send(make_batch([b"x"]))
            assert len(await server.records(1)) == 1
        without = {name: value for name, value in log_opts.items() if not name.endswith(("_cert", "_key"))}
        driver = FluentdDriver(parse(**without, fluentd_tls_ca_cert=certificates["ca.crt"]))
        with pytest.raises(ConnectionError, match=r"(?i)certificate|closed|reset"):
            await open_and_send(driver, [b"y"])
        await driver.close()


async def test_a_shared_key_lets_us_in() -> None:
    async with (
        FluentServer(security=SECURITY) as server,
        opened(fluentd_address=server.address, fluentd_shared_key="the key") as driver,
    ):
        await driver.send(make_batch([b"x", b"y"]))
        assert len(await server.records(2)) == 2


async def test_a_user_logs_in(certificates: Certificates) -> None:
    security = {**SECURITY, "authorize": True}
    async with FluentServer(security=security, tlsOptions=certificates.server()) as server:
        log_opts = {"fluentd_tls_ca_cert": certificates["ca.crt"], "fluentd_shared_key": "the key"}
        user = {"fluentd_username": "anna", "fluentd_password": "secret"}
        async with opened(fluentd_address=f"tls://localhost:{server.port}", **log_opts, **user) as driver:
            await driver.send(make_batch([b"x"]))
            assert len(await server.records(1)) == 1


@pytest.mark.parametrize(
    ("authorize", "log_opts", "words"),
    [
        (False, {"fluentd_shared_key": "wrong"}, "authentication failed: shared key mismatch"),
        (False, {"fluentd_shared_key": "the key", "fluentd_self_hostname": "server"}, "[Ss]ame hostname"),
        (True, {"fluentd_shared_key": "the key"}, "authentication failed: missing authentication information"),
        (
            True,
            {"fluentd_shared_key": "the key", "fluentd_username": "anna", "fluentd_password": "wrong"},
            "authentication failed: username/password mismatch",
        ),
    ],
)
async def test_who_does_not_know_the_secrets_is_told_why(authorize: bool, log_opts: dict[str, str], words: str) -> None:
    async with FluentServer(security={**SECURITY, "authorize": authorize}) as server:
        driver = FluentdDriver(parse(fluentd_address=server.address, **log_opts))
        with pytest.raises(ConnectionError, match=words):
            await driver.open()
        await driver.close()


async def test_a_server_that_asks_for_a_key_which_is_not_given_is_said_to_do_so() -> None:
    async with FluentServer(security=SECURITY) as server:
        driver = FluentdDriver(parse(fluentd_address=server.address))
        with pytest.raises(ConnectionError, match=r"asks for a shared key \(fluentd-shared-key\)"):
            await open_and_send(driver, [b"x"])
        await driver.close()


async def test_a_server_that_was_restarted_while_nothing_was_sent_is_found_again_at_once() -> None:
    server = FluentServer()
    async with server:
        driver = FluentdDriver(parse(fluentd_address=server.address))
        await driver.open()
        await driver.send(make_batch([b"before"]))
        await server.records(1)
    async with server:  # at the same port
        await driver.send(make_batch([b"after"], position=7))
        records = await server.records(2)
        assert [one["record"]["log"] for one in records] == ["before", "after"]
        await driver.close()


# -- peers that do what they are told ---------------------------------------------------------------------------------


async def test_bytes_that_are_no_text_come_through_as_they_are() -> None:
    lines = [b"\xff\xfe\x00\r", bytes(range(256)), b"\x92\xce", os.urandom(70_000), b"joined\nby a processor"]
    async with ForwardPeer() as peer, opened(fluentd_address=peer.address) as driver:
        await driver.send(make_batch(lines))
        assert peer.lines == lines
        assert len(peer.connections) == 1


async def test_a_batch_is_acknowledged_only_when_the_server_has_acknowledged_all_of_it() -> None:
    async with ForwardPeer(say_nothing) as peer, opened(fluentd_address=peer.address) as driver:
        batch = make_batch(BIG)
        sending = asyncio.create_task(driver.send(batch))
        await peer.until(lambda: len(peer.lines) == len(BIG))
        assert len(peer.messages) > 1
        assert not sending.done()
        *first, last = peer.messages
        peer.connections[0].ack(*(message.chunk for message in first))
        while batch.acknowledged < sum(map(len, (message.lines for message in first))):
            await asyncio.sleep(0)
        assert not sending.done()
        peer.connections[0].ack(last.chunk)
        await sending
        assert batch.acknowledged == len(batch)


async def test_acknowledgements_are_matched_by_chunk_in_whatever_order_they_come() -> None:
    async with ForwardPeer(say_nothing) as peer, opened(fluentd_address=peer.address) as driver:
        batches = [make_batch([b"%d" % number], position=10 * number) for number in range(5)]
        sending = [asyncio.create_task(driver.send(batch)) for batch in batches]
        await peer.until(lambda: len(peer.messages) == 5)
        by_line = {message.lines[0]: message.chunk for message in peer.messages}
        for number in (3, 0, 4):
            peer.connections[0].ack(by_line[b"%d" % number])
            await sending[number]
        assert [task.done() for task in sending] == [True, False, False, True, True]
        peer.connections[0].ack(by_line[b"2"], by_line[b"1"])
        await asyncio.gather(*sending)


async def test_duplicate_unknown_and_odd_acknowledgements_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    async def babble(peer: ForwardPeer, connection: Connection, message: Message) -> None:
        connection.say({"ack": "unknown"}, {"ack": 7}, {}, None, ["ack"], {"other": "x"}, 3, "ack")
        connection.ack(*(one.chunk for one in peer.messages[:-1]))
        if len(peer.messages) != 2:
            connection.ack(message.chunk, message.chunk)

    async with ForwardPeer(babble) as peer, opened(fluentd_address=peer.address) as driver:
        await driver.send(make_batch([b"first"]))
        second = asyncio.create_task(driver.send(make_batch([b"second"], position=6)))
        await peer.until(lambda: len(peer.messages) == 2)
        await driver.send(make_batch([b"third"], position=13))
        await second  # the third message's answer acknowledges it
        assert len(peer.connections) == 1
    strange = [record for record in caplog.records if "acknowledge" in record.getMessage()]
    assert len(strange) == 1
    assert strange[0].levelno == logging.WARNING


async def test_a_server_that_reads_and_never_acknowledges_is_given_up_and_gets_the_same_chunks_again() -> None:
    async with (
        ForwardPeer(say_nothing) as peer,
        opened(fluentd_address=peer.address, fluentd_read_timeout="200ms") as driver,
    ):
        batch = make_batch(BIG)
        with pytest.raises(TimeoutError, match=r"no acknowledgement for 0\.2 s"):
            await driver.send(batch)
        assert batch.acknowledged == 0
        first = [message.chunk for message in peer.messages]
        await driver.close()
        await driver.open()
        peer.answer = acknowledge
        await driver.send(make_batch(BIG))
        again = [message.chunk for message in peer.messages if message.connection == 1]
        assert again[: len(first)] == first
        assert len(set(again)) == len(again)


async def test_without_a_read_timeout_a_missing_acknowledgement_is_still_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fluentd.ANSWER_TIMEOUT_S == 10.0
    monkeypatch.setattr(fluentd, "ANSWER_TIMEOUT_S", 0.1)
    async with ForwardPeer(say_nothing) as peer, opened(fluentd_address=peer.address) as driver:
        with pytest.raises(TimeoutError, match="no acknowledgement"):
            await driver.send(make_batch([b"x"]))


async def test_a_server_that_acknowledges_slowly_but_steadily_is_not_given_up() -> None:
    async def slowly(peer: ForwardPeer, connection: Connection, message: Message) -> None:
        await asyncio.sleep(0.15)  # what is tested is a duration: ten of them are longer than the timeout
        connection.ack(message.chunk)

    async with ForwardPeer(slowly) as peer, opened(fluentd_address=peer.address, fluentd_read_timeout="1s") as driver:
        await asyncio.gather(*(driver.send(make_batch([b"x"], position=2 * number)) for number in range(10)))
        assert len(peer.connections) == 1


async def test_a_server_that_accepts_and_never_reads_is_given_up_after_the_write_timeout() -> None:
    async with (
        ForwardPeer(reads=False) as peer,
        opened(fluentd_address=peer.address, fluentd_write_timeout="200ms") as driver,
    ):
        with pytest.raises(TimeoutError, match="fluentd-write-timeout"):
            await driver.send(make_batch([b"x" * (1 << 20)] * 20))


async def test_without_a_write_timeout_deliverys_deadline_ends_a_send_to_a_server_that_never_reads() -> None:
    async with ForwardPeer(reads=False) as peer, opened(fluentd_address=peer.address) as driver:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await driver.send(make_batch([b"x" * (1 << 20)] * 20))
        await driver.close()
        peer.reads = True
        await driver.open()
        await driver.send(make_batch([b"x"]))


async def test_of_what_is_half_acknowledged_only_the_other_half_is_sent_again() -> None:
    async def half(peer: ForwardPeer, connection: Connection, message: Message) -> None:
        if connection.number or len(peer.messages) <= 2:
            connection.ack(message.chunk)

    async with ForwardPeer(half) as peer, opened(fluentd_address=peer.address, fluentd_read_timeout="200ms") as driver:
        assert await deliver(driver, BIG) == 2
    first = [line for message in peer.messages[:2] for line in message.lines]
    again = [line for message in peer.messages if message.connection == 1 for line in message.lines]
    assert first + again == BIG


@pytest.mark.parametrize("after", [1, 100, 50_000, 700_000, 1_500_000])
async def test_a_batch_gets_through_although_every_connection_is_reset_in_the_middle(after: int) -> None:
    lines = BIG if after >= 50_000 else BIG[:100]
    async with ForwardPeer(reset_after=after) as peer, opened(fluentd_address=peer.address) as driver:
        if after == 1:  # nothing can get through
            with pytest.raises(ConnectionError):
                await driver.send(make_batch(lines))
            peer.reset_after = 0
        if after == 100:
            peer.reset_after = 20_000
        await deliver(driver, lines, tries=300)
    assert list(dict.fromkeys(peer.lines)) == lines


async def test_chunks_get_smaller_for_a_server_that_takes_small_ones_only_and_grow_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse_large(peer: ForwardPeer, connection: Connection, message: Message) -> None:
        if sum(map(len, message.lines)) > 50_000 and limited:
            connection.reset()
        else:
            connection.ack(message.chunk)

    limited = True
    async with ForwardPeer(refuse_large) as peer, opened(fluentd_address=peer.address) as driver:
        assert await deliver(driver, BIG) <= 4
        limited = False
        monkeypatch.setattr(fluentd, "GROW_AFTER_S", 0.0)
        driver._grow_at = 0.0
        for _ in range(3):
            await driver.send(make_batch(BIG))
        assert sum(map(len, peer.messages[-3].lines)) > 200_000


async def test_a_server_that_has_closed_while_nothing_was_on_its_way_is_connected_to_anew() -> None:
    async def once(peer: ForwardPeer, connection: Connection, message: Message) -> None:
        connection.ack(message.chunk)
        await connection.writer.drain()
        connection.writer.close()

    async with ForwardPeer(once) as peer, opened(fluentd_address=peer.address) as driver:
        for number in range(3):
            await driver.send(make_batch([b"%d" % number], position=2 * number))
            assert driver._connection is not None
            await driver._connection.closed.wait()
        assert peer.lines == [b"0", b"1", b"2"]
        assert len(peer.connections) == 3


async def test_a_server_that_allows_one_message_for_each_connection_gets_one() -> None:
    async def once(peer: ForwardPeer, connection: Connection, message: Message) -> None:
        connection.ack(message.chunk)
        await connection.writer.drain()
        connection.writer.close()

    guard = Guard("key", keepalive=False)
    async with (
        ForwardPeer(once, guard) as peer,
        opened(fluentd_address=peer.address, fluentd_shared_key="key") as driver,
    ):
        await driver.send(make_batch(BIG))
        await asyncio.gather(*(driver.send(make_batch([b"x"], position=2 * number)) for number in range(5)))
    assert len(peer.connections) == len(peer.messages)
    assert peer.lines[: len(BIG)] != []
    assert sorted(peer.lines) == sorted(BIG + [b"x"] * 5)


async def test_an_impostor_that_does_not_know_the_shared_key_gets_nothing() -> None:
    async with ForwardPeer(greet=Guard("another key")) as peer:
        driver = FluentdDriver(parse(fluentd_address=peer.address, fluentd_shared_key="key"))
        with pytest.raises(ConnectionError, match="shared key mismatch"):
            await driver.open()
        await driver.close()
        assert peer.messages == []


async def test_a_server_with_our_own_name_is_refused() -> None:
    async with ForwardPeer(greet=Guard("key", hostname=socket.gethostname())) as peer:
        driver = FluentdDriver(parse(fluentd_address=peer.address, fluentd_shared_key="key"))
        with pytest.raises(ConnectionError, match="same hostname between input and output"):
            await driver.open()
        await driver.close()


async def test_each_handshake_has_a_salt_of_its_own() -> None:
    guard = Guard("key")
    async with ForwardPeer(greet=guard):
        pass
    async with ForwardPeer(greet=guard) as peer:
        for _ in range(2):
            async with opened(fluentd_address=peer.address, fluentd_shared_key="key", fluentd_self_hostname="me"):
                pass
    assert [ping[1] for ping in guard.pings] == [b"me", b"me"]
    assert len({ping[2] for ping in guard.pings}) == 2


@pytest.mark.parametrize(
    "answer",
    [b"\xc1", b"\x81\x90\x01", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff" + b"x" * 200_000],
    ids=["never used", "a list as key", "deep", "large list", "large text"],
)
async def test_a_server_that_says_what_is_no_answer_is_given_up(answer: bytes) -> None:
    async def nonsense(peer: ForwardPeer, connection: Connection, message: Message) -> None:
        connection.writer.write(answer)

    async with (
        ForwardPeer(nonsense) as peer,
        opened(fluentd_address=peer.address, fluentd_read_timeout="300ms") as driver,
    ):
        with pytest.raises((ConnectionError, TimeoutError), match=r"is no msgpack|no acknowledgement"):
            await driver.send(make_batch([b"x"]))


async def test_nothing_listening_is_an_error_that_says_where(free_port: int) -> None:
    driver = FluentdDriver(parse(fluentd_address=f"127.0.0.1:{free_port}"))
    with pytest.raises(ConnectionError, match=rf"tcp://127\.0\.0\.1:{free_port}: .*refused|Connect call failed"):
        await driver.open()
    await driver.close()


async def test_another_server_takes_over_when_one_fails(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    async with ForwardPeer() as second, ForwardPeer(say_nothing) as third:
        addresses = f"127.0.0.1:{free_port},{third.address},{second.address}"
        async with opened(fluentd_address=addresses, fluentd_read_timeout="200ms") as driver:
            assert "takes over" in caplog.text
            assert await deliver(driver, [b"x"]) == 2
            assert (third.lines, second.lines) == ([b"x"], [b"x"])
            await driver.send(make_batch([b"y"], position=2))
            assert second.lines == [b"x", b"y"]
            assert len(second.connections) == 1


async def test_when_no_server_can_be_reached_all_are_named(free_port: int) -> None:
    driver = FluentdDriver(parse(fluentd_address=f"127.0.0.1:{free_port},unix:///nowhere/fluentd.sock"))
    with pytest.raises(ConnectionError, match=rf"{free_port}.*nowhere"):
        await driver.open()
    await driver.close()


async def test_without_acknowledgement_a_batch_counts_as_sent_only() -> None:
    async with ForwardPeer(say_nothing) as peer:
        driver = FluentdDriver(parse(fluentd_address=peer.address, fluentd_request_ack="false"))
        await open_and_send(driver, BIG)
        await driver.close()
        await peer.until(lambda: len(peer.lines) == len(BIG))
    assert peer.lines == BIG
    assert all(set(message.option) == {b"size"} for message in peer.messages)
    assert (driver.confirms, FluentdDriver(parse()).confirms) == (False, True)


async def test_a_connection_of_the_given_age_is_made_anew_without_a_loss() -> None:
    async with (
        ForwardPeer() as peer,
        opened(fluentd_address=peer.address, fluentd_async_reconnect_interval="100ms") as driver,
    ):
        number = 0
        while len(peer.connections) < 3:
            await asyncio.gather(
                *(driver.send(make_batch([b"%d" % one], position=9 * one)) for one in range(number, number + 4))
            )
            number += 4
    assert sorted(peer.lines) == sorted(b"%d" % one for one in range(number))


async def test_a_send_cancelled_at_any_moment_leaves_a_driver_that_can_be_opened_again() -> None:
    async with ForwardPeer() as peer, opened(fluentd_address=peer.address, fluentd_compress="gzip") as driver:
        for steps in range(40):
            sending = asyncio.create_task(driver.send(make_batch(BIG[:2000])))
            for _ in range(steps):
                await asyncio.sleep(0)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            await driver.close()
            await driver.open()
        await driver.send(make_batch(BIG[:2000]))
        assert set(peer.lines) == set(BIG[:2000])


async def test_two_routes_of_one_container_to_the_same_server_do_not_disturb_each_other() -> None:
    async with ForwardPeer() as peer, opened(fluentd_address=peer.address) as driver:
        await asyncio.gather(*(driver.send(make_batch([b"x"])) for _ in range(3)))
        assert peer.lines == [b"x"] * 3
        assert len(peer.connections) == 1


async def test_a_close_fails_what_is_on_its_way_and_open_makes_all_well() -> None:
    async with ForwardPeer(say_nothing) as peer, opened(fluentd_address=peer.address) as driver:
        sending = [asyncio.create_task(driver.send(make_batch([b"x"], position=2 * number))) for number in range(3)]
        await peer.until(lambda: len(peer.messages) == 3)
        await driver.close()
        for one in await asyncio.gather(*sending, return_exceptions=True):
            assert isinstance(one, ConnectionError)
        peer.answer = acknowledge
        await driver.open()
        await driver.send(make_batch([b"x"]))


async def test_a_close_while_a_connection_is_being_made_leaves_none() -> None:
    may_greet, guard = asyncio.Event(), Guard("key")

    async def late(connection: Connection) -> None:
        await may_greet.wait()
        await guard(connection)

    async with ForwardPeer(greet=late) as peer:
        driver = FluentdDriver(parse(fluentd_address=peer.address, fluentd_shared_key="key"))
        sending = asyncio.create_task(driver.send(make_batch([b"x"])))
        await peer.until(lambda: len(peer.connections) == 1)
        await driver.close()
        may_greet.set()
        with pytest.raises(ConnectionError, match="closed while"):
            await sending
        await open_and_send(driver, [b"x"])
        assert peer.lines == [b"x"]
        await peer.until(peer.connections[0].writer.is_closing)
        await driver.close()


async def test_an_open_that_is_cancelled_leaves_no_connection() -> None:
    async def silent(connection: Connection) -> None:
        await asyncio.Event().wait()

    async with ForwardPeer(greet=silent) as peer:
        driver = FluentdDriver(parse(fluentd_address=peer.address, fluentd_shared_key="key"))
        opening = asyncio.create_task(driver.open())
        await peer.until(lambda: len(peer.connections) == 1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert await peer.connections[0].reader.read() == b""
        await driver.close()


def test_what_was_kept_for_a_container_is_forgotten() -> None:
    driver = FluentdDriver(parse())
    driver._format(CONTAINER)
    driver.forget(CONTAINER)
    driver.forget(CONTAINER)
    assert not driver._formats
