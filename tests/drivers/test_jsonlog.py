"""Records of json-file, compared with what dockerd has written, and with its way of escaping told byte by byte."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from logd.batch import ExecId, Group, Partial
from logd.drivers.jsonlog import MANY, encode, encode_attributes
from logd.record import STDERR, STDOUT, STREAM_NAMES
from logd.units import format_time_short, parse_rfc3339

RECORDED = Path(__file__).parents[1] / "data" / "json-file" / "dockerd-20.10.24.json.gz"
"""The file of a container that printed `nasty_lines()`, `err` to stderr, and at last `unterminated` without newline;
dockerd 20.10.24, the options below."""
ATTRIBUTES = {"tag": "nasty/<loggen:latest>", "a": 'x<\t"é\u2028\x7f', "b": "\\", "E": "1&2"}
DOCKER_SPLITS_AT = 16384
T = 1_700_000_000_120_000_000


def nasty_lines() -> list[bytes]:
    return [
        *(b"", b"plain", b"", b'ends in ",', b'{"a": "b",', b'",', b"\\", b'\\"', b"\\t\t", b"a\tb\rc", b"C:\\temp"),
        b"\x7f<b>&amp;</b>",
        "größe 😀 日本語 \u2028 \u2029 \ufffd \ufeff \ufdd0 \U0010ffff".encode(),
        *(b"\xe2\x82", b"\xe2\x82x", b"\xed\xa0\x80", b"\xed\xb2\x80\xed\xb3\xbf", b"\xc0\x80\xf5\x80\xf8"),
        *(b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xff\xfe?\x00?"),
        *(bytes([byte]) for byte in range(256) if byte != 10),
        bytes(byte for byte in range(256) if byte != 10),
        *(bytes((a, b)) for a in (0x5C, 0xC2, 0xE0, 0xED, 0xF0, 0xF4) for b in range(256) if b != 10),
        b"l" * 20480,
        b'<\t\xff"\\' * 4096,
    ]


def as_docker_splits(lines: list[bytes]) -> Iterator[tuple[bytes, Partial | None]]:
    for line in lines:
        if len(line) <= DOCKER_SPLITS_AT:
            yield line, None
            continue
        for ordinal, at in enumerate(range(0, len(line), DOCKER_SPLITS_AT), 1):
            yield line[at : at + DOCKER_SPLITS_AT], Partial("0" * 64, ordinal, at + DOCKER_SPLITS_AT >= len(line))


def by_the_byte(line: bytes) -> bytes:
    """moby's escaping, told once more: no table, no batch."""
    out = bytearray()
    while line:
        size = next((n for n in (1, 2, 3, 4) if is_character(line[:n])), 0)
        head, line = line[: size or 1], line[size or 1 :]
        if not size:
            out += b"\\ufffd"
        elif head in (b'"', b"\\"):
            out += b"\\" + head
        elif head == b"\n":
            out += b"\\n"
        elif head == b"\r":
            out += b"\\r"
        elif head < b" " or head in (b"<", b">", b"&", "\u2028".encode(), "\u2029".encode()):
            out += b"\\u%04x" % ord(head.decode())
        else:
            out += head
    return bytes(out)


def is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def record_by_the_byte(group: Group, line: bytes) -> bytes:
    newline = b"" if group.partial and not group.partial.last else b"\\n"
    rest = f'","stream":"{STREAM_NAMES[group.stream]}","time":"{format_time_short(group.time_ns)}"}}\n'
    return b'{"log":"' + by_the_byte(line) + newline + rest.encode()


def test_records_are_those_that_dockerd_wrote_of_the_same_lines() -> None:
    records = gzip.decompress(RECORDED.read_bytes()).splitlines(keepends=True)
    expected = as_docker_splits(nasty_lines())
    unterminated = Partial("0" * 64, 1, last=False)
    attributes = encode_attributes(ATTRIBUTES)
    for record in records:
        told = json.loads(record)
        if told["stream"] == "stderr":
            line, partial, stream = b"err", None, STDERR
        else:
            (line, partial), stream = next(expected, (b"unterminated", unterminated)), STDOUT
        group = Group(parse_rfc3339(told["time"]), stream, 0, 0, [line], partial)
        assert encode([group], attributes) == record
    assert next(expected, None) is None


lines = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=8).map(str.encode),
    st.sampled_from(nasty_lines()[:21]),
    st.lists(st.sampled_from(nasty_lines()[:21]), min_size=2, max_size=4).map(b"\n".join),  # joined by a processor
    st.binary(max_size=9).map(lambda data: data.replace(b"\x7f", b"")),
)
groups = st.builds(
    Group,
    time_ns=st.integers(1, 4_000_000_000_000_000_000) | st.integers(1, 4_000_000_000).map(lambda s: s * 10**9),
    stream=st.sampled_from((STDOUT, STDERR)),
    position=st.just(0),
    end=st.just(0),
    lines=st.lists(lines, min_size=1, max_size=4),
    partial=st.none(),
    fields=st.none(),
)


@given(st.lists(groups, min_size=1, max_size=5))
def test_any_lines_in_small_groups_become_the_records_that_docker_would_write(several: list[Group]) -> None:
    assert encode(several) == b"".join(record_by_the_byte(group, line) for group in several for line in group.lines)


@given(st.lists(groups, min_size=1, max_size=2))
def test_any_lines_in_large_groups_become_the_same_records(several: list[Group]) -> None:
    large = [group._replace(lines=group.lines * MANY) for group in several]
    assert encode(large) == b"".join(record_by_the_byte(group, line) for group in large for line in group.lines)


@given(st.lists(groups, min_size=1, max_size=3))
def test_a_record_is_one_line_of_json_whatever_was_printed(several: list[Group]) -> None:
    records = encode(several, encode_attributes(ATTRIBUTES)).split(b"\n")
    assert records.pop() == b""
    assert [list(json.loads(record)) for record in records] == [["log", "stream", "attrs", "time"]] * len(records)
    assert len(records) == sum(len(group.lines) for group in several)


def test_all_parts_of_a_long_line_but_the_last_come_without_a_newline() -> None:
    parts = [Group(T, STDOUT, 0, 0, [b"x"], Partial("0" * 64, ordinal, ordinal == 3)) for ordinal in (1, 2, 3)]
    assert [json.loads(one)["log"] for one in encode(parts).splitlines()] == ["x", "x", "x\n"]


def test_a_line_of_an_exec_has_its_id_among_its_attributes() -> None:
    of_exec = Group(T, STDOUT, 0, 2, [b"a"], fields=[{"exec": ExecId("0123456789ab")}])
    for attributes in ({}, {"tag": "web"}):
        first, second = map(
            json.loads, encode([of_exec, of_exec._replace(fields=None)], encode_attributes(attributes)).splitlines()
        )
        assert first["attrs"] == {"exec": "0123456789ab", **attributes}
        assert second.get("attrs", {}) == attributes


def test_a_time_has_no_zeros_at_its_end() -> None:
    times = (T, T + 3, T // 10**9 * 10**9)
    shown = [json.loads(encode([Group(one, STDOUT, 0, 0, [b""])]))["time"] for one in times]
    assert shown == ["2023-11-14T22:13:20.12Z", "2023-11-14T22:13:20.120000003Z", "2023-11-14T22:13:20Z"]


def test_a_line_of_a_mebibyte_keeps_every_byte() -> None:
    line = bytes(range(32, 127)) * 11037 + b"."
    assert json.loads(encode([Group(T, STDOUT, 0, 0, [line])]))["log"] == line.decode() + "\n"


def test_attributes_that_are_no_text_are_shown_as_docker_shows_them() -> None:
    assert encode_attributes({}) == b""
    assert encode_attributes({"b": "\udcff\n\b", "a": "\t"}) == b'"attrs":{"a":"\\t","b":"\\ufffd\\n\\u0008"},'
