"""Words of a Dockerfile: what quotes keep, what variables bring, where words end."""

import pytest

from logd.errors import InvalidParameter
from logd.images.shellwords import expand, expand_words, split

KNOWN = {"A": "one two", "B": "b", "EMPTY": "", "PATH": "/bin:/sbin"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b", ["a", "b"]),
        ("  a\t b ", ["a", "b"]),
        ("a='x y' b", ["a='x y'", "b"]),
        (r'a="x \" y" b', [r'a="x \" y"', "b"]),
        (r"a\ b c", [r"a\ b", "c"]),
        ("", []),
        ("'open ended", ["'open ended"]),
    ],
)
def test_words_are_split_as_they_are_written(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$B", "b"),
        ("${B}c", "bc"),
        ("x$", "x$"),
        ("$NONE", ""),
        ("'$B'", "$B"),
        ('"$B"', "b"),
        (r"\$B", "$B"),
        (r'"\$B \x"', r"$B \x"),
        ("${NONE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE-$B}", "b"),
        ("${NONE:-${B}x}", "bx"),
        ("${B:+set}", "set"),
        ("${EMPTY:+set}", ""),
        ("${EMPTY+set}", "set"),
        ("$A", "one two"),
        ("/x:$PATH", "/x:/bin:/sbin"),
        ("$1", ""),
    ],
)
def test_variables_and_quotes_become_what_they_stand_for(text: str, result: str) -> None:
    assert expand(text, KNOWN) == result


def test_what_a_variable_brings_is_split_outside_of_quotes_only() -> None:
    assert expand_words('$A "$A" x$B', KNOWN) == ["one", "two", "one two", "xb"]
    assert expand_words('"" $EMPTY', KNOWN) == [""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'x", "matching single-quote"),
        ('"x', "matching double-quote"),
        ("${B", "missing '}'"),
        ("${B:=x}", "unsupported modifier (:=)"),
        ("${B#x}", "unsupported modifier (#)"),
        ("${}", "bad substitution"),
        ("${NONE:?is needed}", "NONE: is needed"),
        ("${NONE?}", "NONE: not allowed to be unset"),
    ],
)
def test_what_has_no_meaning_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        expand(text, KNOWN)
    assert message in str(caught.value)
