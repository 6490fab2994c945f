"""The codec of the Fluent forward protocol against msgpack and fluent-logger, and Docker's record in it."""

from typing import Any

import msgpack
import pytest
from fluent.sender import EventTime
from forward_peer import take_apart, unpack_entries
from hypothesis import given
from hypothesis import strategies as st

from logd.batch import Batch, ContainerInfo, Group, Partial
from logd.drivers import forward_protocol as protocol
from logd.drivers.fluentd_records import RecordFormat
from logd.record import STDERR, STDOUT

CONTAINER = ContainerInfo(id="c0ffee" * 10 + "c0de", name="web")
TIME_NS = 1_700_000_000_123_456_789
LENGTHS = [0, 1, 31, 32, 255, 256, 65535, 65536]


def group(lines: list[bytes], position: int = 0, **more: Any) -> Group:
    size = sum(map(len, lines)) + len(lines)
    return Group(TIME_NS, more.pop("stream", STDOUT), position, position + size, lines, **more)


def record_format(extras: dict[str, str] | None = None, *, sub_second: bool = False) -> RecordFormat:
    return RecordFormat(CONTAINER, extras or {}, sub_second=sub_second)


def records_of(made: RecordFormat, *groups: Group) -> list[dict[str, Any]]:
    """Return the records as msgpack reads them, texts that are no UTF-8 with escapes."""
    packed = b"".join(part for one in groups for part in made.entries(one, one.lines))
    unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
    unpacker.feed(packed)
    return [record for _, record in unpacker]


@pytest.mark.parametrize("length", LENGTHS)
def test_headers_are_those_of_msgpack(length: int) -> None:
    assert protocol.str_header(length) == msgpack.packb("x" * length)[: -length or None]
    assert protocol.bin_header(length) == msgpack.packb(b"x" * length)[: -length or None]
    packed = msgpack.packb(dict.fromkeys(range(length)))
    assert packed.startswith(protocol.map_header(length))
    assert protocol.map_header(length) + protocol.map_pairs(dict.fromkeys(range(length))) == packed


@given(st.integers(0, (1 << 32) * 10**9 - 1))
def test_a_time_with_nanoseconds_is_encoded_as_fluent_logger_does(time_ns: int) -> None:
    assert protocol.event_time(time_ns, sub_second=True) == msgpack.packb(EventTime.from_unix_nano(time_ns))
    assert protocol.event_time(time_ns, sub_second=False) == msgpack.packb(time_ns // 10**9)


def test_a_time_that_an_event_time_has_no_room_for_is_sent_in_whole_seconds() -> None:
    assert msgpack.unpackb(protocol.event_time(-1, sub_second=True)) == -1
    assert msgpack.unpackb(protocol.event_time(10**9 << 32, sub_second=True)) == 1 << 32


@given(st.lists(st.text(max_size=300), min_size=1, max_size=40))
def test_records_of_text_are_byte_for_byte_what_msgpack_makes_of_them(texts: list[str]) -> None:
    own = {"container_id": CONTAINER.id, "container_name": "/web", "source": "stdout"}
    expected = [msgpack.packb([TIME_NS // 10**9, {**own, "log": text}]) for text in texts]
    lines = [text.encode() for text in texts]
    assert b"".join(record_format().entries(group(lines), lines)) == b"".join(expected)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=40))
def test_any_bytes_come_through_as_they_are(lines: list[bytes]) -> None:
    entries = unpack_entries(b"".join(record_format(sub_second=True).entries(group(lines), lines)))
    assert [record[b"log"] for _, record in entries] == lines


def test_the_record_is_dockers() -> None:
    (record,) = records_of(record_format({"com.example.team": "blue"}), group([b"hello"], stream=STDERR))
    assert record == {
        "container_id": CONTAINER.id,
        "container_name": "/web",
        "source": "stderr",
        "com.example.team": "blue",
        "log": "hello",
    }


def test_a_part_of_a_long_line_tells_which_as_text() -> None:
    part, last = Partial("ab" * 32, 1, last=False), Partial("ab" * 32, 2, last=True)
    records = records_of(record_format(), group([b"be"], partial=part), group([b"gin"], 3, partial=last))
    names = ("log", "partial_message", "partial_id", "partial_ordinal", "partial_last")
    assert [tuple(record[name] for name in names) for record in records] == [
        ("be", "true", "ab" * 32, "1", "false"),
        ("gin", "true", "ab" * 32, "2", "true"),
    ]


def test_neither_labels_nor_fields_replace_what_is_dockers() -> None:
    forged = dict.fromkeys(("log", "source", "container_id", "container_name", "partial_last"), "forged")
    made = record_format({**forged, "team": "blue", "level": "label"})
    plain, with_fields = records_of(made, group([b"x"]), group([b'{"level": 3}'], 2, fields=[{**forged, "level": 3}]))
    assert (plain["log"], plain["source"]) == ("x", "stdout")
    assert "forged" not in plain.values()
    assert "forged" not in with_fields.values()
    assert (plain["level"], with_fields["level"], with_fields["team"]) == ("label", 3, "blue")
    assert with_fields["log"] == '{"level": 3}'


def test_fields_belong_to_their_lines_and_may_be_missing() -> None:
    lines = [b"a", b"b", b"c"]
    fields = [{"n": 1}, None, {"n": 3, "deep": {"list": [1.5, None, True, "x"]}}]
    records = records_of(record_format(), group(lines, fields=fields))
    assert [record.get("n") for record in records] == [1, None, 3]
    assert records[2]["deep"] == {"list": [1.5, None, True, "x"]}
    chunks = list(record_format().chunks(Batch(CONTAINER, [group(lines, fields=fields)]), 150))
    assert [unpack_entries(chunk.entries)[0][1].get(b"n") for chunk in chunks] == [1, None, 3]


def test_a_value_that_msgpack_cant_express_is_left_out_and_stands_in_the_line() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    fields = {"huge": 1 << 70, "deep": deep, "odd": "\ud800", "fine": 1}
    (record,) = records_of(record_format(), group([b"whole"], fields=[fields]))
    assert (record["log"], record["fine"], record["odd"]) == ("whole", 1, "?")
    assert not {"huge", "deep"} & set(record)


def test_a_message_names_its_tag_entries_and_options() -> None:
    packed = b"".join(record_format().entries(group([b"a", b"b"]), [b"a", b"b"]))
    message = take_apart(0, msgpack.unpackb(protocol.packed_forward("täg", packed, 2, "id"), raw=True))
    assert (message.tag.decode(), message.lines, message.chunk) == ("täg", [b"a", b"b"], b"id")
    unconfirmed = take_apart(0, msgpack.unpackb(protocol.packed_forward("t", packed, 2), raw=True))
    assert unconfirmed.option == {b"size": 2}


GROUPS = st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=30), min_size=1, max_size=20)


def batch_of(texts: list[list[bytes]], begin: int = 0) -> Batch:
    groups, position = [], begin
    for number, lines in enumerate(texts):
        groups.append(group(lines, position, stream=STDOUT if number % 3 else STDERR))
        position = groups[-1].end
    return Batch(CONTAINER, groups)


@given(GROUPS, st.sampled_from([1, 500, 4096, 1 << 20]), st.integers(0, 100))
def test_chunks_hold_each_record_that_is_not_acknowledged_once_and_in_order(
    texts: list[list[bytes]], limit: int, acknowledged: int
) -> None:
    batch = batch_of(texts)
    batch.ack(acknowledged)
    lines = [line for text in texts for line in text][acknowledged:]
    chunks = list(record_format().chunks(batch, limit))
    assert [record[b"log"] for chunk in chunks for _, record in unpack_entries(chunk.entries)] == lines
    assert [chunk.end for chunk in chunks[-1:]] == ([len(batch)] if lines else [])
    assert sum(chunk.size for chunk in chunks) == len(lines)
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    assert all(chunk.size == 1 or len(chunk.entries) <= limit + 61 * chunk.size for chunk in chunks)


@given(GROUPS, st.sampled_from([500, 4096]))
def test_a_chunk_that_is_sent_again_keeps_its_id_and_one_that_has_grown_gets_another(
    texts: list[list[bytes]], limit: int
) -> None:
    first = list(record_format().chunks(batch_of(texts), limit))
    assert list(record_format().chunks(batch_of(texts), limit)) == first
    again = batch_of(texts)
    again.ack(first[0].end)
    assert [chunk.id for chunk in record_format().chunks(again, limit)] == [chunk.id for chunk in first[1:]]
    more = list(record_format().chunks(batch_of([*texts, [b"and more"]]), limit))
    assert {chunk.id: chunk.size for chunk in more if chunk.id in {one.id for one in first}} == {
        chunk.id: chunk.size for chunk in first if chunk.id in {one.id for one in more}
    }
    assert more[-1].id != first[-1].id


def test_what_is_left_of_a_batch_is_cut_into_the_same_chunks_by_whoever_cuts_it_off() -> None:
    lines = [b"%05d" % number for number in range(100)]
    first = list(record_format().chunks(Batch(CONTAINER, [group(lines)]), 4096))
    done = first[0].end
    rest = Batch(CONTAINER, [group(lines[done:], 6 * done)])
    assert [chunk.id for chunk in record_format().chunks(rest, 4096)] == [chunk.id for chunk in first[1:]]


def test_many_tiny_lines_make_chunks_of_bounded_size() -> None:
    batch = Batch(CONTAINER, [group([b""] * 50_000)])
    sizes = [len(chunk.entries) for chunk in record_format().chunks(batch, 1 << 20)]
    assert len(sizes) > 5
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (["PING"], "HELO was expected, the server said PING"),
        (["HELO"], "HELO was expected"),
        ("x\n\x1b[31m" * 300, "HELO was expected"),
        (7, "HELO was expected, the server said something else (int)"),
    ],
)
def test_a_server_that_says_anything_but_helo_is_refused(answer: Any, words: str) -> None:
    handshake = protocol.Handshake(protocol.Credentials("me", "key"))
    with pytest.raises(protocol.ProtocolError) as refused:
        handshake.ping(msgpack.unpackb(msgpack.packb(answer), raw=True))
    assert str(refused.value).startswith(words)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_credentials_are_not_shown() -> None:
    shown = repr(protocol.Credentials("me", "the-key", "user", "the-password"))
    assert "user" in shown
    assert "the-" not in shown
