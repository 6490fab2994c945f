"""DNS messages: what is read, what is written, and that nothing a stranger sends does harm."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.network import dns_wire as wire
from logd.network.dns_upstream import servers_of
from logd.network.dns_wire import Malformed
from logd.network.naming import _needs_dot


def question(name: str, kind: int = wire.A, *, identifier: int = 7, edns: int = 0) -> bytes:
    additional = struct.pack(">BHHIH", 0, wire.OPT, edns, 0, 0) if edns else b""
    head = wire.HEADER.pack(identifier, wire.RECURSION_DESIRED, 1, 0, 0, 1 if edns else 0)
    return head + wire.encode_name(name) + struct.pack(">HH", kind, wire.INTERNET) + additional


def test_a_question_is_read() -> None:
    query = wire.parse_query(question("Web.Example", wire.AAAA, edns=4096))
    assert (query.id, query.name, query.kind) == (7, "web.example", wire.AAAA)
    assert (query.has_edns, query.udp_bytes) == (True, wire.MAX_UDP_BYTES)
    assert wire.parse_query(question("web")).udp_bytes == 512


def test_an_answer_repeats_the_question_as_it_was_spelled() -> None:
    message = question("WeB")
    answer = wire.reply(wire.parse_query(message), [wire.address_record("10.213.0.2")])
    identifier, flags, questions, answers, _, additional = wire.HEADER.unpack_from(answer)
    assert (identifier, questions, answers, additional) == (7, 1, 1, 0)
    assert flags == wire.RESPONSE | wire.RECURSION_DESIRED | wire.RECURSION_AVAILABLE
    assert answer[12 : 12 + len(message) - 12] == message[12:]
    assert answer.endswith(bytes((0, 4, 10, 213, 0, 2)))


def test_an_answer_that_is_too_long_is_cut_between_records_and_says_so() -> None:
    query = wire.parse_query(question("web"))
    records = [wire.address_record(f"10.213.0.{number}") for number in range(100)]
    answer = wire.reply(query, records, limit=512)
    _, flags, _, answers, *_ = wire.HEADER.unpack_from(answer)
    assert len(answer) <= 512
    assert flags & wire.TRUNCATED
    assert len(answer) == 12 + len(query.question) + answers * 16
    assert not wire.HEADER.unpack_from(wire.reply(query, records))[1] & wire.TRUNCATED


def test_edns_is_answered_with_edns() -> None:
    query = wire.parse_query(question("web", edns=1232))
    answer = wire.reply(query)
    assert wire.HEADER.unpack_from(answer)[5] == 1
    assert answer[-11:] == struct.pack(">BHHIH", 0, wire.OPT, 1232, 0, 0)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 11,
        question("web")[:-1],
        question("web")[:14],
        wire.HEADER.pack(1, wire.RESPONSE, 1, 0, 0, 0) + b"\0\0\1\0\1",
        wire.HEADER.pack(1, 0, 2, 0, 0, 0) + b"\0\0\1\0\1",
        wire.HEADER.pack(1, 0, 0, 0, 0, 0),
        wire.HEADER.pack(1, 0x2800, 1, 0, 0, 0) + b"\0\0\1\0\1",
        wire.HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        wire.HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x3f" * 300,
        wire.HEADER.pack(1, 0, 1, 0, 0, 0) + (b"\x01a" * 200) + b"\0\0\1\0\1",
    ],
)
def test_what_is_no_question_is_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        wire.parse_query(message)


def test_a_response_is_never_answered_so_that_two_servers_do_not_talk_for_ever() -> None:
    assert wire.identify(wire.reply(wire.parse_query(question("web")))) is None
    assert wire.identify(b"\0" * 5) is None
    assert wire.identify(question("web")[:14]) == 7


@given(st.binary(max_size=600))
def test_no_bytes_at_all_do_more_than_be_malformed(message: bytes) -> None:
    try:
        query = wire.parse_query(message)
    except Malformed:
        wire.identify(message)
        return
    assert len(wire.reply(query, [wire.address_record("::1")], limit=query.udp_bytes)) <= query.udp_bytes
    wire.address_of_pointer(query.name)


@given(st.binary(max_size=100), st.integers(0, 65535))
def test_no_bytes_at_all_are_taken_for_the_answer_to_another_question(message: bytes, sent: int) -> None:
    query = wire.parse_query(question("some.name.that.is.asked"))
    assert not wire.answers(message, query, sent) or message[:2] == sent.to_bytes(2, "big")


def test_an_answer_counts_only_with_its_id_and_its_question() -> None:
    query = wire.parse_query(question("web"))
    good = wire.with_id(wire.reply(query), 99)
    assert wire.answers(good, query, 99)
    assert not wire.answers(good, query, 98)
    assert not wire.answers(wire.with_id(question("web"), 99), query, 99)
    other = wire.parse_query(question("wex"))
    assert not wire.answers(wire.with_id(wire.reply(other), 99), query, 99)


def test_pointers_name_addresses_of_both_kinds() -> None:
    assert wire.address_of_pointer("2.0.213.10.in-addr.arpa") == "10.213.0.2"
    assert wire.address_of_pointer(".".join("2" + "0" * 27 + "00df") + ".ip6.arpa") == "fd00::2"
    for wrong in ("0.213.10.in-addr.arpa", "a.b.c.d.in-addr.arpa", "1.ip6.arpa", "²" * 32 + ".ip6.arpa", ""):
        assert wire.address_of_pointer(wrong) is None
    record = wire.pointer_record("web.net")
    assert record is not None
    assert record.endswith(b"\x03web\x03net\x00")
    assert wire.pointer_record("a" * 64) is None
    with pytest.raises(ValueError, match="no name"):
        wire.encode_name("a..b")


def test_name_servers_are_read_from_resolv_conf() -> None:
    text = "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.1\nnameserver\nnameserver fe80::1\nnameserver x.y\n"
    assert servers_of(text) == ("10.0.0.1", "fe80::1")


@pytest.mark.parametrize(
    ("options", "expected"), [([], False), (["ndots:0"], False), (["ndots:2"], True), (["rotate", "ndots:x"], False)]
)
def test_an_ndots_option_above_zero_keeps_plain_names_inside(options: list[str], expected: bool) -> None:
    assert _needs_dot(options) is expected
