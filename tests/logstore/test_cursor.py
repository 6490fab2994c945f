import pytest

from logd.errors import InvalidParameter
from logd.logstore.cursor import format_cursor, parse_cursor


@pytest.mark.parametrize("positions", [(0, 0), (17, 0), (2**64 - 1, 3)])
def test_a_cursor_survives_being_text(positions):
    assert parse_cursor(format_cursor(positions)) == positions


def test_the_text_begins_with_its_version():
    assert format_cursor((5, 7)) == "1:5:7"


@pytest.mark.parametrize("text", ["", "5:7", "1:5:7:9", "1:-5:7", "1:5:x", " 1:5:7", "1:5:7\n", "1:٥:7"])
def test_what_is_no_cursor_is_refused_with_the_form_that_is_one(text):
    with pytest.raises(InvalidParameter, match=r"is not VERSION:STDOUT:STDERR"):
        parse_cursor(text)


def test_another_version_is_refused_by_name():
    with pytest.raises(InvalidParameter, match=r"'2:5:7' has version 2 \(supported: 1\)"):
        parse_cursor("2:5:7")


def test_a_position_that_no_index_can_hold_is_refused():
    with pytest.raises(InvalidParameter, match="position beyond"):
        parse_cursor(f"1:{2**64}:0")
