import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logd.pattern import LinePattern, Pattern, parse_line_pattern

LINES = st.lists(
    st.binary(max_size=6) | st.sampled_from([b"", b"a", b"ab", b"b a", b"a\nb", b"\xff", b"\r"]), max_size=8
)
PATTERNS = st.sampled_from(
    ["a", "^a", "b$", "^$", r"\s", r"[^x]", r"a\s*b", r"(?s)a.*b", r"a[^c]+", r"\Aa", r"b\z", r"\ba\b", r"\B", "", "x*",
     r"(?-m)^a", r"(?-m:b$)", r"\n", r"a\nb", "(?i)A|^b", r"[[:space:]]", r"\W", r".", r"(?s).", r"\C", r"\Qa\E"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(PATTERNS, LINES)
def test_lines_searched_together_give_what_each_alone_gives(text, lines):
    pattern = LinePattern(text)
    assert pattern.lines_with(lines) == [number for number, line in enumerate(lines) if pattern.found_in(line)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"ab", b"", b"xx"]), min_size=60, max_size=90), st.integers(0, 5))
def test_it_is_so_too_where_nearly_each_line_has_it(lines, start):
    lines = [b"a"] * 62 * start + lines + [b"x", b"a", b"", b"ba"]
    assert LinePattern("a|^$").lines_with(lines) == [
        n for n, line in enumerate(lines) if line in {b"a", b"ab", b"", b"ba"}
    ]


def test_a_pattern_never_goes_over_a_lines_end():
    assert LinePattern(r"a\s+b").lines_with([b"a", b"b", b"a b"]) == [2]
    assert LinePattern(r"a[^c]*b").lines_with([b"a", b"b", b"acb", b"ab"]) == [3]


def test_a_line_that_was_joined_of_several_is_searched_as_a_whole():
    assert LinePattern(r"a\nb").lines_with([b"a\nb", b"a", b"b"]) == [0]
    assert LinePattern(r"^b").lines_with([b"a\nb", b"a"]) == [0]


def test_a_search_that_fails_at_each_lines_end_is_linear():
    lines = [b"error " + b"x" * 90] * 20_000
    assert LinePattern(r'error[^"]*timeout').lines_with(lines) == []


def test_patterns_are_equal_by_their_text_and_kind():
    assert LinePattern("a") == LinePattern("a")
    assert len({LinePattern("a"), LinePattern("a"), LinePattern("b")}) == 2
    assert Pattern("a") != LinePattern("a")


@pytest.mark.parametrize("text", ["(", "(?<=a)b", "*"])
def test_what_is_wrong_is_said_in_re2s_words(text):
    with pytest.raises(ValueError, match=re.escape(f"invalid regular expression {text!r}: ")):
        parse_line_pattern(text)


def test_no_text_is_no_pattern():
    assert parse_line_pattern("") is None
