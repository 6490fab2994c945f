import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processing import group, lines, make, run

from logd.batch import Group
from logd.processors.redact import RedactFactory


def masked(line: bytes, **options: str) -> bytes:
    (found,) = lines(run(make(RedactFactory(), **options), [[group([line])]]))
    return found


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        ("secret", b"a secret, the secret", b"a ***, the ***"),
        (r"password=(\S+)", b"user=me password=1234 x", b"user=me password=*** x"),
        (r"(\w+):(\w+)@", b"http://me:pass@host", b"http://***:***@host"),
        (r"a(b)?", b"a ab", b"*** a***"),
        ("x*", b"axxb", b"a***b"),
        (r"^\w+", b"one two", b"*** two"),
        ("b\nc+", b"abccd", b"a******d"),
        ("abc\nbcd", b"abcd", b"***"),
        (r"user=(\w+) \S+" + "\n" + r"\d{4}", b"user=me 1234", b"user=*** ***"),
        ("\xe9", "é ü".encode(), b"*** \xc3\xbc"),
        ("b", b"\xff\xfeb\x00", b"\xff\xfe***\x00"),
    ],
)
def test_what_a_pattern_finds_is_masked(pattern, line, expected):
    assert masked(line, redact=pattern) == expected


def test_the_mask_can_be_chosen():
    assert masked(b"a secret", redact="secret", redact_with="<gone>") == b"a <gone>"
    assert masked(b"a secret", redact="secret", redact_with="") == b"a "


@pytest.mark.parametrize(
    "number",
    [
        b"4111111111111111",
        b"4111 1111 1111 1111",
        b"4111-1111-1111-1111",
        b"5555.5555.5555.4444",
        b"2223003122003222",
        b"378282246310005",
        b"3782 822463 10005",
        b"30569309025904",
        b"6011111111111117",
        b"4222222222222",
        b"6304000000000000000",
    ],
)
def test_card_numbers_are_masked(number):
    for before, after in (
        (b"", b""),
        (b"card: ", b"."),
        (b'"', b'",'),
        (b"1234 ", b" 5678"),
        (b"pan=", b"&x"),
        (b"\xff", b"\xff"),
    ):
        assert masked(before + number + after, redact_presets="cards") == before + b"***" + after


@pytest.mark.parametrize(
    "line",
    [
        b"4111111111111112",
        b"4111 1111 1111 1112",
        b"1700000000123",
        b"17000000001234567890",
        b"1761234567890123456",
        b"x=0.4111111111111111",
        b"994111111111111111",
        b"2024-01-01 10:00:00.123456",
        b"411111111111",
        b"41111111111111111111",
    ],
)
def test_other_numbers_are_not(line):
    assert masked(line, redact_presets="cards") == line


def test_a_card_number_right_after_digits_that_are_none_is_found():
    line = b"4111 1111 1111 1112 4111 1111 1111 1111 and 3333 4111111111111111"
    assert masked(line, redact_presets="cards") == b"4111 1111 1111 1112 *** and 3333 ***"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"from me@example.com to <you.b+c@mail.example.co.uk>", b"from *** to <***>"),
        ("jürgen@bücher.example".encode(), b"***"),
        (b"user@host 5@", b"user@host 5@"),
        (b"@example.com", b"@example.com"),
        (b'{"mail":"a@b.cd"}', b'{"mail":"***"}'),
    ],
)
def test_mail_addresses_are_masked(line, expected):
    assert masked(line, redact_presets="emails") == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Authorization: Bearer abc.DEF-1_2~+/==", b"Authorization: Bearer ***"),
        (b'"authorization":"bearer x"', b'"authorization":"bearer ***"'),
        (b"GET /?access_token=abc&x=1", b"GET /?access_token=***&x=1"),
        (b"a bearer.", b"a bearer."),
    ],
)
def test_bearer_tokens_are_masked(line, expected):
    assert masked(line, redact_presets="bearer") == expected


def test_only_changed_lines_leave_their_group():
    item = group([b"a", b"secret", b"b", b"c"], 100)
    assert run(make(RedactFactory(), redact="secret"), [[item]]) == [
        Group(0, 1, 100, 102, [b"a"]),
        Group(0, 1, 102, 109, [b"***"]),
        Group(0, 1, 109, 113, [b"b", b"c"]),
    ]
    assert make(RedactFactory(), redact="zzz").feed([item])[0] is item


def test_what_a_line_was_parsed_into_is_masked_too():
    line = b'{"pan": 4111111111111111, "to": ["me\\u0040example.com"], "n": 1.5, "ok": true, "a@b.cd": null}'
    fields = {"pan": 4111111111111111, "to": ["me@example.com"], "n": 1.5, "ok": True, "a@b.cd": None}
    item = group([line, b"x"])._replace(fields=[fields, None])
    first, second = run(make(RedactFactory(), redact_presets="cards,emails"), [[item]])
    assert first.lines == [b'{"pan": ***, "to": ["me\\u0040example.com"], "n": 1.5, "ok": true, "***": null}']
    assert first.fields == [{"pan": "***", "to": ["***"], "n": 1.5, "ok": True, "***": None}]
    assert second.fields == [None]


def test_fields_in_which_there_is_nothing_to_mask_are_not_touched():
    item = group([b"x", b"y"])._replace(fields=[{"a": 1}, None])
    assert make(RedactFactory(), redact="secret").feed([item])[0] is item


def test_a_line_full_of_what_looks_like_card_numbers_does_not_take_for_ever():
    assert masked(b"4111 " * 100_000, redact_presets="cards").count(b"***") < 25_001


@settings(deadline=None)
@given(st.lists(st.text(alphabet="abc1 ", max_size=8).map(str.encode), min_size=1, max_size=6))
def test_afterwards_the_pattern_is_not_there_any_more(some):
    out = run(make(RedactFactory(), redact="a+\n1b?", redact_with="#"), [[group(some)]])
    assert not [line for line in lines(out) if b"a" in line or b"1" in line]
