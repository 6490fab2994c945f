import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processing import group, make, run

from logd.batch import Group, Partial
from logd.processors.parse import MAX_LEVELS, ParseFactory, parse_json, parse_logfmt


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b'{"a": 1, "b": {"c": [null, true, "\xc3\xa9"]}}', {"a": 1, "b": {"c": [None, True, "é"]}}),
        (b'  {"a":"x"}\r', {"a": "x"}),
        (b"{}", {}),
        (b'{"a":1} x', None),
        (b'{"a":1}{"a":2}', None),
        (b'{"a":1},{"a":2}', None),
        (b'{"a":', None),
        (b'["a"]', None),
        (b"1", None),
        (b'"a"', None),
        (b"", None),
        (b"plain", None),
        (b'{"a":"\xff"}', None),
        (b'{"a":NaN}', None),
        (b'{"a":' * MAX_LEVELS + b"1" + b"}" * MAX_LEVELS, orjson.loads(b'{"a":' * 32 + b"1" + b"}" * 32)),
        (b'{"a":' * (MAX_LEVELS + 1) + b"1" + b"}" * (MAX_LEVELS + 1), None),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", None),
        (b'{"a":' + b"[" * 9999, None),
        (b'{"a":[' + b",".join([b"{}"] * 99) + b"]}", {"a": [{}] * 99}),
    ],
)
def test_a_line_that_is_a_json_object_has_its_members_as_fields(line, fields):
    assert parse_json(line) == fields


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            b'level=info msg="a \\"b\\" \\n\\t\\\\ c" n=1 ok',
            {"level": "info", "msg": 'a "b" \n\t\\ c', "n": "1", "ok": True},
        ),
        (b"  ts=2024-01-02T03:04:05.6Z\tcaller=x.go:1  \r", {"ts": "2024-01-02T03:04:05.6Z", "caller": "x.go:1"}),
        (b'a= b=""', {"a": "", "b": ""}),
        (b"a=1 a=2", {"a": "2"}),
        (b"url=/a?b", {"url": "/a?b"}),
        ("ü=ß".encode(), {"ü": "ß"}),
        (b"a=\xff", {"a": "\ufffd"}),
        (b'a="\\u00e9\\ud83d\\ude00\\ud800"', {"a": "é😀\ufffd"}),
        (b"just some words", None),
        (b"GET /index?a=b HTTP/1.1", None),
        (b'a="unfinished', None),
        (b'a="b"c', None),
        (b'a=b"c', None),
        (b"a==b", None),
        (b"=b", None),
        (b"", None),
        (b'a="' + b"\\" * 100_001, None),
        (b"a" * 100_000 + b"?=", None),
    ],
)
def test_a_logfmt_line_has_its_pairs_as_fields(line, fields):
    assert parse_logfmt(line) == fields


def test_lines_stay_as_they_are_and_those_that_say_nothing_have_no_fields():
    items = [group([b'{"a": 1}', b"plain", b'{"b": 2}']), group([b"plain"], 24)]
    first, second = run(make(ParseFactory(), parse="json"), [items])
    assert first == items[0]._replace(fields=[{"a": 1}, None, {"b": 2}])
    assert second is items[1]


def test_what_a_line_of_an_exec_says_of_itself_stays():
    item = group([b'{"exec": "mine", "a": 1}', b"plain"])._replace(fields=[{"exec": "0123456789ab"}] * 2)
    (done,) = run(make(ParseFactory(), parse="json"), [[item]])
    assert done.fields == [{"exec": "0123456789ab", "a": 1}, {"exec": "0123456789ab"}]


def test_a_part_of_an_over_long_line_is_not_read():
    item = Group(0, 1, 0, 7, [b'{"a":1}'], Partial("a" * 64, 1, False))
    assert run(make(ParseFactory(), parse="json"), [[item]]) == [item]


@settings(deadline=None)
@given(st.binary(max_size=30) | st.text(alphabet='a="\\ u0d8{}[]:,1', max_size=30).map(str.encode))
@example(b'a="\\ud800"')
def test_any_line_gives_fields_that_can_be_sent_or_none(line):
    for fields in parse_json(line), parse_logfmt(line):
        orjson.dumps(fields)
        assert fields is None or isinstance(fields, dict)
