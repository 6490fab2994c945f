"""Runs of a store as groups for a driver: whatever is put in comes out again, over-long lines in marked parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.batch import EXEC_FIELD, Dropped, Group, exec_of
from logd.forward.delivery import split
from logd.forward.intake import Intake, cut, line_begin, take_records
from logd.logstore.lines import LineAssembler
from logd.record import STDERR, STDOUT, ExecRun, Gap, Run

ID = "c" * 64
LIMIT = 8


def groups_of(chunks: list[tuple[int, bytes]], *, begin: tuple[int, int] = (0, 0)) -> list[Group]:
    """Put chunks of the two streams through the same line assembly that a reader has."""
    lines, runs, at = LineAssembler(LIMIT), [], {STDOUT: begin[0], STDERR: begin[1]}
    for number, (stream, data) in enumerate(chunks):
        lines.feed(Run(number, stream, at[stream], data), runs)
        at[stream] += len(data)
    lines.cut_all(runs)
    out: list = []
    Intake(ID, LIMIT, begin, (-1, -1)).take(runs, out)
    return out


def test_a_line_beyond_the_limit_comes_in_numbered_parts_that_share_an_id() -> None:
    (first, second, third, short) = groups_of([(STDOUT, b"a" * 20 + b"\nshort\n")])
    parts = [one.partial for one in (first, second, third)]
    assert [(part.ordinal, part.last) for part in parts] == [(1, False), (2, False), (3, True)]
    assert len({part.id for part in parts}) == 1
    assert b"".join(one.lines[0] for one in (first, second, third)) == b"a" * 20
    assert (short.lines, short.partial) == ([b"short"], None)


def test_lines_of_an_exec_say_so_in_their_fields_and_no_other_text_does() -> None:
    out: list = []
    runs = [Run(0, STDOUT, 0, b"own\n"), ExecRun.of("0123456789ab", Run(1, STDOUT, 4, b"a\nb\n"))]
    Intake(ID, LIMIT, (0, 0), (-1, -1)).take(runs, out)
    assert [(one.lines, exec_of(one)) for one in out] == [([b"own"], ""), ([b"a", b"b"], "0123456789ab")]
    assert out[1].fields == [{EXEC_FIELD: "0123456789ab"}] * 2
    assert exec_of(out[0]._replace(fields=[{EXEC_FIELD: "0123456789ab"}])) == ""  # as `parse` may read it out of a line


def test_a_last_line_without_a_newline_is_a_part_that_no_other_follows_as_with_docker() -> None:
    (whole, rest) = groups_of([(STDOUT, b"one\nrest")])
    assert (whole.partial, rest.lines) == (None, [b"rest"])
    assert rest.partial is not None
    assert (rest.partial.ordinal, rest.partial.last, line_begin(rest, LIMIT)) == (1, False, -1)


def test_a_line_that_just_fits_is_whole() -> None:
    (group,) = groups_of([(STDOUT, b"12345678\n")])
    assert (group.lines, group.partial) == ([b"12345678"], None)


def test_a_reading_that_begins_in_the_middle_of_an_over_long_line_goes_on_with_its_parts() -> None:
    _, second, third = groups_of([(STDOUT, b"a" * 20 + b"\n")])
    begin = line_begin(second, LIMIT)
    assert (begin, line_begin(third, LIMIT)) == (0, -1)
    out: list = []
    Intake(ID, LIMIT, (second.end, 0), (begin, -1)).take([Run(0, STDOUT, second.end, b"a" * 4 + b"\n")], out)
    assert out == [third]


def test_a_gap_is_dropped_and_ends_an_over_long_line() -> None:
    out: list = []
    found = [Run(0, STDOUT, 0, b"a" * 8), Gap(1, STDOUT, 8, 5, "no-space"), Run(2, STDOUT, 13, b"b\n")]
    Intake(ID, LIMIT, (0, 0), (-1, -1)).take(found, out)
    assert out[1] == Dropped(STDOUT, 8, 13, "no-space")
    assert out[2].partial is None


CHUNKS = st.lists(
    st.tuples(st.sampled_from([STDOUT, STDERR]), st.text("ab\n", min_size=1, max_size=30).map(str.encode)), max_size=12
)


@given(CHUNKS)
def test_groups_and_their_lines_give_the_bytes_again_and_their_places_join(chunks: list[tuple[int, bytes]]) -> None:
    for stream in (STDOUT, STDERR):
        groups = [one for one in groups_of(chunks) if one.stream == stream]
        at, rebuilt = 0, b""
        for group in groups:
            assert group.position == at
            is_cut = group.partial is not None and not group.partial.last
            text = b"\n".join(group.lines) + (b"" if is_cut else b"\n")
            rebuilt += text[: group.end - group.position]
            at = group.end
        assert rebuilt == b"".join(data for one, data in chunks if one == stream)


@given(CHUNKS, st.integers(0, 40))
def test_a_cut_of_the_items_loses_and_doubles_nothing(chunks: list[tuple[int, bytes]], count: int) -> None:
    items = groups_of(chunks)
    done, rest = split(items, count)
    lines = [line for one in items for line in one.lines]
    assert [line for one in done for line in one.lines] == lines[:count]
    assert [line for one in rest for line in one.lines] == lines[count:]
    assert [line for one in take_records(items, count) for line in one.lines] == lines[:count]
    assert sum(one.end - one.position for one in done + rest) == sum(one.end - one.position for one in items)


@pytest.mark.parametrize("count", [1, 2])
def test_a_group_is_cut_at_a_line(count: int) -> None:
    group = Group(5, STDOUT, 100, 107, [b"a", b"bb", b"c"], fields=[{}, {"x": 1}, None])
    first, second = cut(group, count)
    assert first.end == second.position
    assert first.lines + second.lines == group.lines
    assert [*(first.fields or ()), *(second.fields or ())] == group.fields
