import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.api.runs import compile_pattern, matching_runs
from logd.errors import InvalidParameter
from logd.record import STDOUT, Run


def grep(pattern: str, data: bytes) -> list[tuple[int, bytes]]:
    return [(run.position, run.data) for run in matching_runs(Run(7, STDOUT, 100, data), compile_pattern(pattern))]


def test_lines_in_which_the_pattern_is_found_come_whole_and_neighbours_together():
    assert grep("b", b"abc\nbbb\nxyz\nb") == [(100, b"abc\nbbb\n"), (112, b"b")]
    assert grep("q", b"abc\n") == []


def test_the_ends_of_a_line_are_anchors():
    assert grep("^b$", b"abc\nb\nbb\n") == [(104, b"b\n")]
    assert grep("^$", b"a\n\nb\n") == [(102, b"\n")]


def test_a_match_over_the_end_of_a_line_is_none():
    assert grep(r"a\sb", b"a\nb\na b\n") == [(104, b"a b\n")]
    assert grep(r"[^x]$", b"x\ny\n") == [(102, b"y\n")]


def test_bytes_that_are_no_text_are_searched_too():
    assert grep("ü", b"\xff\xc3\xbc\n\x00\n") == [(100, b"\xff\xc3\xbc\n")]


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", r"(?=x)", "[z-a]", r"\1"])
def test_a_pattern_that_re2_refuses_is_a_bad_request_with_its_reason(pattern):
    with pytest.raises(InvalidParameter, match=re.escape(repr(pattern)) + ": ."):
        compile_pattern(pattern)


@given(st.text("ab\n", max_size=40), st.sampled_from(["a", "^a", "b$", "aa?b", "^$", "a|^b", "[^a]", "b*"]))
def test_the_lines_are_those_that_a_line_by_line_search_finds(text, pattern):
    data = text.encode()
    lines = data.splitlines(keepends=True)
    expected = [line for line in lines if re.search(pattern.encode(), line.rstrip(b"\n"))]
    assert b"".join(found for _, found in grep(pattern, data)) == b"".join(expected)
    for position, found in grep(pattern, data):
        assert data[position - 100 : position - 100 + len(found)] == found
