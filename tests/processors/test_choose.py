from processing import dropped, group, lines, make, run

from logd.batch import Dropped, Group, Partial
from logd.processors.choose import ChooseFactory

LINES = [b"GET /health 200", b"GET /a 500", b"error: no", b"GET /health 500", b""]


def chosen(**options):
    out = run(make(ChooseFactory(), **options), [[group(LINES)]])
    return lines(out), dropped(out)


def test_only_lines_with_the_pattern_are_sent():
    assert chosen(include="500$|^error") == (LINES[1:4], [(0, 16, "filtered"), (53, 54, "filtered")])


def test_lines_with_the_pattern_are_not_sent():
    assert chosen(exclude="/health|^$") == (LINES[1:3], [(0, 16, "filtered"), (37, 54, "filtered")])


def test_what_is_excluded_is_not_sent_though_it_is_included():
    assert chosen(include="GET", exclude="/health")[0] == [LINES[1]]


def test_a_group_of_which_all_lines_go_on_is_not_touched():
    item = group(LINES)
    assert make(ChooseFactory(), exclude="zzz").feed([item])[0] is item
    assert make(ChooseFactory(), include="zzz").feed([item]) == [Dropped(1, 0, 54, "filtered")]


def test_fields_stay_with_their_lines():
    item = group([b"a", b"b", b"a"])._replace(fields=[{"n": 1}, {"n": 2}, None])
    out = run(make(ChooseFactory(), exclude="b"), [[item]])
    assert [one.fields for one in out if isinstance(one, Group)] == [[{"n": 1}], [None]]


def test_an_over_long_line_is_judged_by_its_first_part():
    def parts(first):
        return [
            Group(0, 1, 0, 4, [first], Partial("a" * 64, 1, False)),
            Group(0, 2, 0, 4, [b"else"], Partial("b" * 64, 1, False)),
            Group(0, 1, 4, 8, [b"keep"], Partial("a" * 64, 2, False)),
            Group(0, 1, 8, 13, [b"none"], Partial("a" * 64, 3, True)),
            group([b"none", b"keep"], 13),
        ]

    assert lines(run(make(ChooseFactory(), include="keep"), [parts(b"keep")])) == [b"keep", b"keep", b"none", b"keep"]
    assert lines(run(make(ChooseFactory(), include="keep"), [parts(b"none")])) == [b"keep"]


def test_a_record_of_several_lines_is_searched_as_a_whole():
    item = Group(0, 1, 0, 12, [b"first\nERROR"])
    assert run(make(ChooseFactory(), include="^ERROR"), [[item]]) == [item]
