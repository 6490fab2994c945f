import asyncio
import gc
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from batches import NOW_NS, batch, container, deliver, group, numbered, numbers, texts
from certificates import make_ca, make_certificate
from hypothesis import given
from hypothesis import strategies as st
from listening import until
from splunk_peer import TOKEN, Collector, HecError
from yarl import URL

from logd.batch import Batch, Group, Partial
from logd.driver import Reject, parse_options
from logd.drivers import splunk, splunk_acks, splunk_collector
from logd.drivers.splunk import SplunkDriver, SplunkOptions
from logd.drivers.splunk_records import FORMATS, EventFormat, Metadata, documents, stamp
from logd.errors import InvalidParameter
from logd.record import STDERR, STDOUT
from logd.testing.bench import Bench

TIMEOUT_S = 20.0
DRIVER = "splunk log driver"
REQUIRED = {"splunk-url": "http://127.0.0.1:8088", "splunk-token": TOKEN}


def options(**values: str) -> SplunkOptions:
    given_values = {name.replace("_", "-"): value for name, value in values.items()}
    return parse_options(DRIVER, SplunkOptions, REQUIRED | given_values)


def first_seen(lines: list[str]) -> list[str]:
    """Return lines without those that came again: on a slow machine a short deadline cuts off what was taken, too."""
    return list(dict.fromkeys(lines))


@asynccontextmanager
async def peer(**values: Any) -> AsyncIterator[Collector]:
    made = await Collector(**values).start()
    try:
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def driver(collector: Collector, **values: str) -> AsyncIterator[SplunkDriver]:
    made = SplunkDriver(options(splunk_url=collector.url, **values))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


# -- events --------------------------------------------------------------------------------------------------------


def events(form: str, *groups: Group, tag: str = "tag", attributes: dict[str, str] | None = None) -> list[Any]:
    one = Batch(container(), groups)
    made = EventFormat(one.container, form, tag, attributes or {}, Metadata("host"))
    requests = list(made.requests(one, 0, len(one), 1 << 20))
    return parse(b"".join(request.body for request in requests))


def parse(body: bytes) -> list[Any]:
    found, at, text = [], 0, body.decode()
    while at < len(text):
        one, at = json.JSONDecoder().raw_decode(text, at)
        found.append(one)
    return found


def test_an_event_has_dockers_shape_and_order() -> None:
    one = batch(b"hello")
    metadata = Metadata("host", "src", "type", "main")
    made = EventFormat(one.container, "inline", "tag", {"b": "2", "a": '"1"'}, metadata)
    (request,) = made.requests(one, 0, 1, 1000)
    assert request.body == (
        rb'{"event":{"line":"hello","source":"stdout","tag":"tag","attrs":{"a":"\"1\"","b":"2"}},'
        rb'"time":"1700000000.123457","host":"host","source":"src","sourcetype":"type","index":"main"}'
    )


@pytest.mark.parametrize("form", ["inline", "json"])
def test_what_is_empty_is_left_out_as_docker_does(form: str) -> None:
    assert events(form, group(b"x", stream=STDERR), tag="") == [
        {"event": {"line": "x", "source": "stderr"}, "time": "1700000000.123457", "host": "host"}
    ]


def test_json_is_embedded_and_anything_else_is_a_string() -> None:
    lines = [b'{"a": [1, 2.50]}', b" 12 ", b"null", b'"x"', b"[]", b"text", b'{"a":1} x', b'{"a"', b"", b"\xff", b"NaN"]
    assert [one["event"]["line"] for one in events("json", group(*lines))] == [
        {"a": [1, 2.5]},
        12,
        None,
        "x",
        [],
        "text",
        '{"a":1} x',
        '{"a"',
        "",
        "\ufffd",
        "NaN",
    ]


def test_numbers_and_names_in_embedded_json_stay_as_they_are_written() -> None:
    line = b'{\n  "n": 123456789012345678901234567890, "f": 1.00, "n": 2\n}'
    assert documents([line]) == [b'{"n":123456789012345678901234567890,"f":1.00,"n":2}']


def test_a_raw_event_is_tag_attributes_and_line() -> None:
    attributes = {"app": "shop", "env": '"x"'}
    assert [one["event"] for one in events("raw", group(b'say "hi"', b"two"), attributes=attributes)] == [
        'tag app=shop env="x" say "hi"',
        'tag app=shop env="x" two',
    ]


def test_a_blank_raw_event_is_left_out_where_the_collector_would_refuse_it() -> None:
    assert [one["event"] for one in events("raw", group(b"", b" \t\r", b"a", b"\x0b"), tag="")] == ["a"]
    assert events("raw", group(b"", b" "), tag="") == []
    assert [one["event"] for one in events("raw", group(b"", b"a"))] == ["tag ", "tag a"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_part_of_a_line_tells_which_one_it_is(form: str) -> None:
    (one,) = events(form, group(b"part", partial=Partial("f" * 64, 3, True)))
    where = one["fields"] if form == "raw" else one["event"]
    told = {name: text for name, text in where.items() if name.startswith("partial")}
    assert told == {
        "partial_message": "true",
        "partial_id": "f" * 64,
        "partial_ordinal": "3",
        "partial_last": "true",
    }


def test_what_a_processor_read_out_goes_along_beside_the_line() -> None:
    fields = [{"level": "info", "n": 1 << 70, "deep": {"a": [True, None]}, "bad": "\ud800"}, None]
    first, second = events("inline", group(b"a", b"b", fields=fields))
    assert first["event"]["fields"] == {"level": "info", "n": 1 << 70, "deep": {"a": [True, None]}, "bad": "\ufffd"}
    assert "fields" not in second["event"]


def test_times_have_the_decimals_that_go_prints() -> None:
    assert stamp(1_700_000_000_000_000_000) == b"1700000000.000000"
    assert stamp(NOW_NS) == b"1700000000.123457"


any_lines = st.lists(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), min_size=1, max_size=30)


@given(any_lines, st.sampled_from(FORMATS), st.integers(50, 3000), st.booleans())
def test_every_line_is_one_event_whatever_it_holds(lines: list[bytes], form: str, size: int, has_tag: bool) -> None:
    one = Batch(container(), [group(*lines[:1]), group(*lines, position=9999), group(*lines[::-1], stream=STDERR)])
    made = EventFormat(one.container, form, "tag" if has_tag else "", {}, Metadata("host"))
    requests = list(made.requests(one, 0, len(one), size))
    records = [record.line for record in one.records()]
    assert [request.begin for request in requests] + [len(one)] == [0] + [request.end for request in requests]
    assert len({request.key for request in requests}) == len(requests)
    for request in requests:
        found = parse(request.body)
        assert len(found) == request.events
        assert len(request.body) <= size or request.end - request.begin == 1
        for number, event in enumerate(found):
            line = records[request.record(number)].decode(errors="replace")
            if form == "raw":
                assert event["event"] == ("tag " if has_tag else "") + line
            elif form == "inline":
                assert event["event"]["line"] == line
            else:
                assert event["event"]["line"] == line or json.loads(line) == event["event"]["line"]


@given(any_lines, st.data())
def test_any_stretch_of_a_batch_can_be_had(lines: list[bytes], data: st.DataObject) -> None:
    one = Batch(container(), [group(*lines), group(*lines, stream=STDERR)])
    begin = data.draw(st.integers(0, len(one)))
    end = data.draw(st.integers(begin, len(one)))
    made = EventFormat(one.container, "inline", "", {}, Metadata("host"))
    bodies = b"".join(request.body for request in made.requests(one, begin, end, 300))
    wanted = [record.line.decode(errors="replace") for record in one.records()][begin:end]
    assert [event["event"]["line"] for event in parse(bodies)] == wanted


# -- options -------------------------------------------------------------------------------------------------------


def test_the_defaults_are_dockers() -> None:
    made = options()
    assert made.splunk_format == "inline"
    assert made.splunk_verify_connection
    assert made.splunk_gzip_level == -1
    assert not any((made.splunk_gzip, made.splunk_insecureskipverify, made.splunk_index_acknowledgment))


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(options())
    with pytest.raises(InvalidParameter) as refused:
        options(splunk_token="secret\ntoken")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"splunk-url": "http://h"}, "splunk: splunk-token is expected"),
        ({"splunk-token": "t"}, "splunk: splunk-url is expected"),
        ({}, "splunk: splunk-url is expected"),
        (
            REQUIRED | {"splunk-url": "http://h/path"},
            "splunk: expected format scheme://dns_name_or_ip:port for splunk-url",
        ),
        (REQUIRED | {"splunk-url": "ftp://h"}, "splunk: expected format"),
        (REQUIRED | {"splunk-url": "h:8088"}, "splunk: expected format"),
        (REQUIRED | {"splunk-url": "http://h?x=1"}, "splunk: expected format"),
        (REQUIRED | {"splunk-url": "http://h#x"}, "splunk: expected format"),
        (REQUIRED | {"splunk-url": "http://u:p@h"}, "splunk: expected format"),
        (REQUIRED | {"splunk-url": "http://"}, "splunk: expected format"),
        (REQUIRED | {"splunk-url": "http://h\n"}, "splunk: expected format"),
        (REQUIRED | {"splunk-url": "http://h:70000"}, "splunk: failed to parse http://h:70000 as url value in splunk-"),
        (REQUIRED | {"splunk-token": ""}, "splunk-token is expected"),
        (REQUIRED | {"splunk-format": "xml"}, "unknown format specified xml, supported formats are inline, json and r"),
        (REQUIRED | {"splunk-gzip": "yes"}, "splunk-gzip: 'yes' (accepted: true, false)"),
        (REQUIRED | {"splunk-gzip-level": "10"}, "not supported level '10' for splunk-gzip-level (supported values be"),
        (REQUIRED | {"splunk-gzip-level": "-2"}, "not supported level '-2' for splunk-gzip-level"),
        (REQUIRED | {"splunk-gzip-level": "x"}, "not supported level 'x'"),
        (REQUIRED | {"splunk-insecureskipverify": "2"}, "splunk-insecureskipverify: '2' (accepted"),
        (REQUIRED | {"splunk-verify-connection": ""}, "splunk-verify-connection: '' (accepted"),
        (REQUIRED | {"splunk-index-acknowledgment": "on"}, "splunk-index-acknowledgment: 'on' (accepted"),
        (REQUIRED | {"splunk-capath": "/no"}, "splunk-capath: open /no: No such file or directory"),
        (REQUIRED | {"splunk-capath": "/dev/null"}, "splunk-capath: open /dev/null"),
        (REQUIRED | {"splunk-wrong": "1"}, "unknown log opt 'splunk-wrong' for splunk log driver"),
    ],
)
def test_what_docker_refuses_at_create_or_start_is_refused_at_create(values: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_options(DRIVER, SplunkOptions, values, at_create=True)
    assert words in str(refused.value)


def test_all_of_dockers_options_are_taken_together(tmp_path: Path) -> None:
    made = parse_options(
        DRIVER,
        SplunkOptions,
        {
            "env": "a",
            "env-regex": "b",
            "labels": "c",
            "labels-regex": "d",
            "tag": "e",
            "splunk-url": "https://splunk.example:8088/",
            "splunk-token": TOKEN,
            "splunk-source": "s",
            "splunk-sourcetype": "t",
            "splunk-index": "i",
            "splunk-capath": str(make_ca(tmp_path, "ca")),
            "splunk-caname": "SplunkServerDefaultCert",
            "splunk-insecureskipverify": "false",
            "splunk-format": "raw",
            "splunk-verify-connection": "false",
            "splunk-gzip": "true",
            "splunk-gzip-level": "9",
            "splunk-index-acknowledgment": "true",
        },
        at_create=True,
    )
    assert made.splunk_url == "https://splunk.example:8088"


def test_a_proxy_is_taken_from_the_environment_but_not_for_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert splunk_collector.proxy_of(URL("https://splunk.example:8088")) == "http://proxy.example:3128"
    for url in ("http://splunk.example", "https://localhost:8088", "https://[::1]:8088", "https://a.inside.example"):
        assert splunk_collector.proxy_of(URL(url)) is None


# -- what a collector gets -----------------------------------------------------------------------------------------

ODD = [b"", b"\xff\xfe", b"nul\0nul", b"two\nlines", b'{"a": 1}', b'ends in ",', "é\u2028\x7f".encode(), b"x" * 2000]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("gzip", ["true", "false"])
async def test_a_collector_takes_any_line_in_its_order(form: str, gzip: str) -> None:
    who = container(labels={"app": "shop"}, env=("MODE=test",))
    async with (
        peer() as collector,
        driver(collector, splunk_format=form, splunk_gzip=gzip, labels="app", env="MODE", tag="{{.Name}}") as made,
    ):
        one = Batch(who, [group(*ODD), group(b"failed", stream=STDERR)])
        await made.send(one)
        assert one.acknowledged == len(one)
        wanted = [line.decode(errors="replace") for line in [*ODD, b"failed"]]
        if form == "raw":
            assert collector.lines == [f"web app=shop MODE=test {line}" for line in wanted]
        else:
            if form == "json":
                wanted[4] = {"a": 1}  # type: ignore[call-overload]
            assert collector.lines == wanted
            assert [one["event"]["source"] for one in collector.events] == ["stdout"] * len(ODD) + ["stderr"]
            assert collector.events[0]["event"]["attrs"] == {"app": "shop", "MODE": "test"}
            assert collector.events[0]["event"]["tag"] == "web"
        assert collector.events[0]["host"] == socket.gethostname()
        assert collector.requests[0].headers["Authorization"] == f"Splunk {TOKEN}"
        assert ("gzip" in collector.requests[0].headers.get("Content-Encoding", "")) == (gzip == "true")


async def test_without_a_tag_it_is_the_short_id_and_an_empty_one_removes_it() -> None:
    who = container()
    async with peer() as collector:
        async with driver(collector) as made:
            await made.send(batch(b"x", who=who))
        async with driver(collector, tag="") as made:
            await made.send(batch(b"x", who=who))
    assert [one["event"].get("tag") for one in collector.events] == [who.id[:12], None]


async def test_a_higher_level_makes_requests_smaller() -> None:
    sizes = []
    for level in ("0", "1", "9"):
        async with peer() as collector, driver(collector, splunk_gzip="true", splunk_gzip_level=level) as made:
            await made.send(batch(*numbered(0, 3000, width=50)))
            sizes.append(sum(request.content_length or 0 for request in collector.requests))
    assert sizes[0] > sizes[1] > sizes[2]


async def test_a_megabyte_goes_in_requests_that_a_proxy_takes_and_a_longer_line_by_itself() -> None:
    lines = [*numbered(0, 10_000, width=90), b"y" * (1 << 20), *numbered(0, 10)]
    async with peer() as collector, driver(collector) as made:
        await made.send(batch(*lines))
    assert collector.lines == texts(lines)
    assert sorted(size > splunk.REQUEST_BYTES for size in collector.sizes)[-2:] == [False, True]


async def test_lines_that_no_event_stands_for_need_no_request() -> None:
    async with peer() as collector, driver(collector, splunk_format="raw", tag="") as made:
        one = batch(b"", b" ")
        await made.send(one)
        assert one.acknowledged == 2
        assert not collector.requests


async def test_many_containers_post_at_a_time() -> None:
    async with peer() as collector, driver(collector) as made:
        batches = [batch(*numbered(0, 100, width=number)) for number in range(64)]
        slots = asyncio.Semaphore(made.max_in_flight)

        async def send(one: Batch) -> None:
            async with slots:
                await made.send(one)

        await asyncio.gather(*map(send, batches))
        got: dict[str, list[str]] = {}
        for event in collector.events:
            got.setdefault(event["event"]["tag"], []).append(event["event"]["line"])
        assert got == {one.container.id[:12]: texts([record.line for record in one.records()]) for one in batches}
        made.forget(batches[0].container)


# -- what a collector says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "text", "words"),
    [
        (503, 9, "Server is busy", "503 Service Unavailable - Server is busy (code 9)"),
        (429, 26, "Queue at capacity", "429 Too Many Requests - Queue at capacity (code 26)"),
        (500, 8, "Internal server error", "500 Internal Server Error"),
        (403, 4, "Invalid token", "403 Forbidden - Invalid token (code 4): splunk-token"),
        (401, 2, "Token is required", "401 Unauthorized - Token is required (code 2): splunk-token"),
        (403, 1, "Token disabled", "Token disabled (code 1): splunk-token: enable it"),
        (400, 7, "Incorrect index", "Incorrect index (code 7): splunk-index: one that the token may write to"),
        (400, 10, "Data channel is missing", "the token asks for splunk-index-acknowledgment=true"),
        (200, 9, "odd", "200 OK - odd (code 9)"),
    ],
)
async def test_what_can_be_repaired_is_tried_again_and_says_what_to_do(
    status: int, code: int, text: str, words: str
) -> None:
    async with peer() as collector, driver(collector) as made:
        collector.faults = [collector.says(status, code, text)]
        one = batch(b"line")
        with pytest.raises(
            ConnectionError, match=re.escape(f"splunk at {collector.url}: failed to send event - ")
        ) as it:
            await made.send(one)
        assert words in str(it.value)
        assert await deliver(made, one) == 1
        assert collector.lines == ["line"]


@pytest.mark.parametrize(
    ("status", "text"),
    [(200, "<html>Welcome to the\x07 hotel's net</html>"), (502, "Bad Gateway"), (404, "no such page"), (200, "[]")],
)
async def test_what_is_no_collector_does_not_take_lines(status: int, text: str) -> None:
    async with peer() as collector, driver(collector) as made:
        collector.faults = [collector.says_text(status, text)]
        with pytest.raises(ConnectionError, match=f"{status} .* - ") as it:
            await made.send(batch(b"line"))
        assert str(it.value).isprintable()
        collector.faults = [collector.says_text(307, "", Location="/elsewhere")]
        with pytest.raises(ConnectionError, match="307"):
            await made.send(batch(b"line"))
        collector.faults = [collector.says_text(200, "x" * (2 << 20))]
        with pytest.raises(ConnectionError, match="an answer without end"):
            await made.send(batch(b"line"))


async def test_a_token_that_was_repaired_is_used_without_a_restart() -> None:
    async with peer() as collector, driver(collector) as made:
        collector.tokens.clear()
        one = batch(b"line")
        sending = asyncio.create_task(deliver(made, one))
        await until(lambda: len(collector.requests) >= 2)
        collector.tokens.add(TOKEN)
        assert await sending >= 3
        assert collector.lines == ["line"]


@pytest.mark.parametrize("takes_before", [False, True])
@pytest.mark.parametrize("acks", [False, True])
@pytest.mark.parametrize("bad", [0, 3, 9])
async def test_a_refused_event_is_named_and_those_before_it_are_taken(takes_before: bool, acks: bool, bad: int) -> None:
    values = {"splunk_index_acknowledgment": "true"} if acks else {}
    async with peer(acks=acks) as collector, driver(collector, **values) as made:
        collector.takes_events_before_a_refused_one = takes_before
        lines = numbered(0, 10)
        collector.refuse = lambda event: (
            HecError(400, 6, "Invalid data format") if event["event"]["line"] == lines[bad].decode() else None
        )
        one = batch(*lines)
        with pytest.raises(Reject, match=r"400 Bad Request - Invalid data format \(code 6\)") as rejected:
            await made.send(one)
        assert rejected.value.record == one.acknowledged == bad
        assert set(collector.lines) == set(texts(lines[:bad]))
        await made.send(batch(*lines[bad + 1 :]))  # without having been closed
        assert set(collector.lines) == set(texts(lines)) - {lines[bad].decode()}


async def test_a_blank_line_that_is_left_out_counts_as_dropped_and_the_account_adds_up(tmp_path: Path) -> None:
    lines = [b" ", b"one", b"", b"\t\t", b"two", b""]
    async with peer() as collector:
        log_opts = {"splunk-url": collector.url, "splunk-token": TOKEN, "splunk-format": "raw", "tag": ""}
        async with Bench(tmp_path, SplunkDriver, log_opts) as bench:
            box = bench.container()
            box.prints((STDOUT, line) for line in lines)
            bench.deliver(box)
            await bench.finish()
            account = box.account
        assert collector.lines == ["one", "two"]
    assert (account["dropped"], account["delivered"], account["records"]) == ({"blank": 7}, 8, 2)
    assert (account["captured"], account["buffered"], account["difference"]) == (15, 0, 0)


async def test_a_refused_raw_event_is_counted_with_the_blank_lines_before_it() -> None:
    async with peer() as collector, driver(collector, splunk_format="raw", tag="") as made:
        collector.refuse = lambda event: HecError(400, 6, "Invalid") if event["event"] == "bad" else None
        one = batch(b"", b"a", b" ", b"", b"bad", b"z")
        with pytest.raises(Reject) as rejected:
            await made.send(one)
        assert rejected.value.record == one.acknowledged == 4
        assert collector.lines == ["a"]


async def test_a_refusal_that_names_no_event_is_for_delivery_to_find_out() -> None:
    async with peer() as collector, driver(collector) as made:
        collector.faults = [collector.says(400, 6, "Invalid data format")] * 2
        with pytest.raises(Reject) as rejected:
            await made.send(batch(b"a", b"b"))
        assert rejected.value.record is None
        with pytest.raises(Reject) as rejected:
            await made.send(batch(b"a"))
        assert rejected.value.record == 0


async def test_a_request_that_is_too_large_is_cut_and_a_line_that_is_too_large_rejected() -> None:
    lines = [*numbered(0, 2000, width=50), b"y" * 200_000, b"end"]
    async with peer(most_bytes=100_000) as collector, driver(collector) as made:
        one = batch(*lines)
        with pytest.raises(Reject, match=r"413 .* too large") as rejected:
            await made.send(one)
        assert rejected.value.record == one.acknowledged == 2000
        assert collector.lines == texts(lines[:2000])
        await made.send(batch(b"end"))
        collector.most_bytes = 10  # something is wrong there, not with the lines
        with pytest.raises(ConnectionError, match="413"):
            await made.send(batch(b"end", b"end"))


# -- faults --------------------------------------------------------------------------------------------------------


async def test_nothing_listening_is_an_error_to_try_again() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        made = SplunkDriver(options(splunk_url=url))
        with pytest.raises(ConnectionError, match=f"splunk at {url}: Connect"):
            await made.open()
        await made.close()
        unverified = SplunkDriver(options(splunk_url=url, splunk_verify_connection="false"))
        await unverified.open()
        with pytest.raises(ConnectionError, match=f"splunk at {url}: Connect"):
            await unverified.send(batch(b"line"))
        await unverified.close()
        with pytest.raises(ConnectionError, match="not open"):
            await unverified.send(batch(b"line"))


async def test_verification_asks_as_docker_does_and_can_be_left_out() -> None:
    app, seen = web.Application(), []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.path))
        return web.json_response({"text": "Success", "code": 0}, status=405 if request.method == "OPTIONS" else 200)

    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    made = SplunkDriver(options(splunk_url=url))
    with pytest.raises(ConnectionError, match="failed to verify connection - 405 Method Not Allowed"):
        await made.open()
    await made.close()
    made = SplunkDriver(options(splunk_url=url, splunk_verify_connection="false"))
    await made.open()
    await made.send(batch(b"line"))
    await made.close()
    await runner.cleanup()
    assert seen == [("OPTIONS", "/services/collector/event/1.0"), ("POST", "/services/collector/event/1.0")]


@pytest.mark.parametrize("acks", [False, True])
async def test_a_reset_loses_nothing(acks: bool) -> None:
    lines = numbered(0, 5000, width=100)
    values = {"splunk_index_acknowledgment": "true"} if acks else {}
    async with peer(acks=acks) as collector, driver(collector, **values) as made:
        collector.faults = [collector.reset, collector.reset_after_taking, collector.reset]
        assert await deliver(made, batch(*lines)) == 4
        assert set(collector.lines) == set(texts(lines))


@pytest.mark.parametrize("acks", [False, True])
async def test_a_collector_that_is_away_gets_all_when_it_is_back(acks: bool) -> None:
    values = {"splunk_index_acknowledgment": "true"} if acks else {}
    async with peer(acks=acks) as collector, driver(collector, **values) as made:
        await made.send(batch(b"before"))
        await collector.stop()
        sending = asyncio.create_task(deliver(made, batch(*numbered(0, 100))))
        for _ in range(10):
            await asyncio.sleep(0)
        await collector.restart()
        assert await sending >= 1
        assert collector.lines == ["before", *texts(numbered(0, 100))]


@pytest.mark.parametrize("fault", ["never", "reads_nothing"])
async def test_a_collector_that_hangs_is_left_by_the_deadline_and_asked_again(fault: str) -> None:
    lines = numbered(0, 8000, width=100)
    async with peer() as collector, driver(collector) as made:
        collector.faults = [getattr(collector, fault)] * 2
        assert await deliver(made, batch(*lines), timeout_s=0.5) >= 3
        assert first_seen(collector.lines) == texts(lines)


async def test_what_was_taken_before_the_deadline_is_not_sent_again() -> None:
    lines = numbered(0, 20_000, width=100)
    async with peer() as collector, driver(collector) as made:

        async def pass_on(_: web.Request) -> None:
            return None

        collector.faults = [pass_on, pass_on, collector.never]
        one = batch(*lines)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await made.send(one)
        assert 0 < one.acknowledged == len(collector.events) < len(lines)


async def test_a_slow_line_gets_smaller_requests_until_something_gets_through() -> None:
    lines = numbered(0, 3000, width=200)
    async with peer() as collector, driver(collector) as made:

        async def hang_if_large(request: web.Request) -> web.StreamResponse | None:
            collector.faults.append(hang_if_large)
            return await collector.never(request) if (request.content_length or 0) > 60_000 else None

        collector.faults = [hang_if_large]
        assert await deliver(made, batch(*lines), timeout_s=0.3) >= 3
        assert first_seen(collector.lines) == texts(lines)
        assert made._size.bytes < 60_000


async def test_half_an_answer_is_none() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{"text":"Success"'
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    made = SplunkDriver(options(splunk_url=url, splunk_verify_connection="false"))
    await made.open()
    one = batch(b"line")
    with pytest.raises(ConnectionError, match=f"splunk at {url}: "):
        await made.send(one)
    assert one.acknowledged == 0
    await made.close()
    server.close()
    await server.wait_closed()


async def test_a_close_because_of_one_container_does_not_cut_off_another() -> None:
    async with peer() as collector, driver(collector) as made:
        gate = asyncio.Event()

        async def later(_: web.Request) -> None:
            await gate.wait()

        collector.faults = [later]
        sending = asyncio.create_task(made.send(batch(b"slow")))
        await until(lambda: len(collector.requests) == 1)
        await made.close()
        await made.open()
        await made.send(batch(b"quick"))
        gate.set()
        await asyncio.wait_for(sending, TIMEOUT_S)
        assert collector.lines == ["quick", "slow"]
    del sending
    gc.collect()  # a session that was not closed would complain


# -- indexer acknowledgement ---------------------------------------------------------------------------------------


async def test_a_batch_is_done_with_when_it_is_indexed_and_not_before() -> None:
    async with peer(acks=True) as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        collector.index_at_once = False
        one = batch(*numbered(0, 10_000, width=100))
        sending = asyncio.create_task(made.send(one))
        await until(lambda: collector.polls >= 2)
        assert not sending.done()
        assert one.acknowledged == 0
        assert len(collector.requests) > 1
        assert len({request.headers["X-Splunk-Request-Channel"] for request in collector.requests}) == 1
        collector.index_all()
        await asyncio.wait_for(sending, TIMEOUT_S)
        assert one.acknowledged == len(one)
        polls = collector.polls
        await asyncio.sleep(3 * splunk_acks.FIRST_POLL_S)
        assert collector.polls == polls  # nobody asks when nothing is waited for


async def test_what_is_indexed_after_the_deadline_is_not_posted_again() -> None:
    async with peer(acks=True) as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        collector.index_at_once = False
        one = batch(*numbered(0, 100))
        sending = asyncio.create_task(deliver(made, one, timeout_s=0.3))
        await until(lambda: collector.polls >= 6)
        collector.index_all()
        assert await asyncio.wait_for(sending, TIMEOUT_S) >= 2
        assert collector.lines == texts(numbered(0, 100))
        assert len(collector.requests) == 1


async def test_what_is_not_indexed_in_time_is_posted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splunk_acks, "WAIT_S", 0.2)
    async with peer(acks=True) as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        collector.index_at_once = False
        one = batch(b"line")
        with pytest.raises(TimeoutError, match="not indexed within"):
            await made.send(one)
        collector.index_at_once = True
        await made.send(one)
        assert collector.lines == ["line", "line"]


async def test_a_collector_that_starts_anew_acknowledges_nothing_of_what_it_had_before() -> None:
    async with peer(acks=True) as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        collector.index_at_once = False
        lost = batch(b"lost", b"lost")
        waiting = asyncio.create_task(made.send(lost))
        await until(lambda: collector.polls > 0)
        collector.channels.clear()  # so quickly that no connection fails
        collector.events.clear()
        collector.index_at_once = True
        with pytest.raises(ConnectionError, match="started anew"):
            await made.send(batch(b"next"))  # its number is that of the one before
        with pytest.raises(ConnectionError, match="not acknowledged"):
            await waiting
        assert lost.acknowledged == 0
        await deliver(made, lost)
        assert collector.lines == ["next", "lost", "lost"]


async def test_a_connection_that_fails_casts_doubt_on_all_that_is_not_indexed() -> None:
    async with peer(acks=True) as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        collector.index_at_once = False
        waiting = asyncio.create_task(made.send(batch(b"posted")))
        await until(lambda: collector.polls > 0)
        collector.faults = [collector.reset]
        with pytest.raises(ConnectionError):
            await made.send(batch(b"next"))
        with pytest.raises(ConnectionError, match="not acknowledged: "):
            await asyncio.wait_for(waiting, TIMEOUT_S)


async def test_a_token_without_acknowledgement_says_so() -> None:
    async with peer() as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        with pytest.raises(ConnectionError, match="the answer has no ackId"):
            await made.send(batch(b"line"))
        collector.faults = [collector.says(400, 14, "ACK is disabled")]
        with pytest.raises(ConnectionError, match="splunk-index-acknowledgment=false"):
            await made.send(batch(b"line"))


async def test_acknowledgements_that_cannot_be_asked_for_are_an_error_to_try_again() -> None:
    async with peer(acks=True) as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        collector.index_at_once = False
        waiting = asyncio.create_task(made.send(batch(b"line")))
        await until(lambda: collector.polls > 0)
        collector.tokens.clear()
        with pytest.raises(ConnectionError, match="failed to ask for acknowledgements - 403 Forbidden - Invalid token"):
            await waiting


async def test_a_container_that_is_forgotten_leaves_nothing_behind() -> None:
    async with peer(acks=True) as collector, driver(collector, splunk_index_acknowledgment="true") as made:
        collector.index_at_once = False
        one = batch(b"line")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await made.send(one)
        assert made._acks
        assert made._acks._posted
        made.forget(one.container)
        assert not made._acks._posted


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ca(tmp_path_factory.mktemp("certificates"), "ca")


async def test_over_tls_with_an_authority_of_ones_own(ca: Path) -> None:
    collector = await Collector().start(make_certificate(ca, "server"))
    async with driver(collector, splunk_capath=str(ca)) as made:
        await made.send(batch(b"line"))
    assert collector.lines == ["line"]
    await collector.stop()


@pytest.mark.parametrize(
    ("days", "host", "is_trusted", "words"),
    [
        (-1, "localhost", True, "certificate has expired"),
        (2, "SplunkServerDefaultCert", True, "Hostname mismatch"),
        (2, "localhost", False, "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_is_not_right_is_an_error_to_try_again_unless_verification_is_off(
    ca: Path, days: int, host: str, is_trusted: bool, words: str
) -> None:
    collector = await Collector().start(make_certificate(ca, f"bad{next(numbers)}", days=days, host=host))
    values = {"splunk_capath": str(ca)} if is_trusted else {}
    made = SplunkDriver(options(splunk_url=collector.url, **values))
    with pytest.raises(
        ConnectionError, match=f"splunk at {collector.url}: the server's certificate is not trusted: "
    ) as it:
        await made.open()
    assert words in str(it.value)
    await made.close()
    named = {"splunk_caname": host} if host != "localhost" else {"splunk_insecureskipverify": "true"}
    async with driver(collector, **values, **named) as made:
        await made.send(batch(b"line"))
    assert collector.lines == ["line"]
    await collector.stop()


async def test_certificates_that_vanish_after_the_create_are_an_error_to_try_again(ca: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ca.pem"
    copy.write_bytes(ca.read_bytes())
    values = REQUIRED | {"splunk-url": "https://localhost:1", "splunk-capath": str(copy)}
    made = SplunkDriver(parse_options(DRIVER, SplunkOptions, values, at_create=True))
    copy.unlink()
    with pytest.raises(ConnectionError, match="splunk-capath: open"):
        await made.open()
