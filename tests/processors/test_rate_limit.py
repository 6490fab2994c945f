import pytest
from processing import MS, dropped, group, groups, lines, make, run

from logd.batch import Dropped, Group, Partial
from logd.processors.rate_limit import RateLimitFactory


def limiter(**options):
    return make(RateLimitFactory(), **options)


def test_the_burst_passes_and_a_marker_stands_for_the_rest_once_lines_may_pass_again():
    items = [group([b"%d" % number for number in range(10)]), group([b"later"], 20, 2000 * MS)]
    assert run(limiter(rate_limit="2", rate_limit_burst="3"), [items]) == [
        group([b"0", b"1", b"2"]),
        Dropped(1, 6, 20, "rate-limit"),
        Group(2000 * MS, 1, 20, 20, [b"[logd: 7 lines suppressed by rate-limit=2]"]),
        items[1],
    ]


def test_without_more_output_the_marker_comes_when_lines_are_let_go():
    processor = limiter(rate_limit="1")
    assert dropped(processor.feed([group([b"a", b"b"])])) == [(2, 4, "rate-limit")]
    assert processor.held == {1: 4}
    assert processor.flush_after_s == 1
    assert processor.flush() == [Group(0, 1, 4, 4, [b"[logd: 1 line suppressed by rate-limit=1]"])]
    assert processor.held == {}
    assert processor.flush() == []


@pytest.mark.parametrize(("rate", "expected"), [("10", 30), ("0.5", 3), ("1000", 300)])
def test_no_more_than_the_rate_passes_over_time_and_a_marker_a_second(rate, expected):
    items = groups(*[b"x"] * 300, step_ns=10 * MS)  # 100 a second for three
    out = run(limiter(rate_limit=rate, rate_limit_burst="1"), [[one] for one in items])
    markers = [line for line in lines(out) if line.startswith(b"[logd")]
    assert abs(len(lines(out)) - len(markers) - expected) <= 1
    assert len(markers) <= 4
    suppressed = sum(int(line.split()[1]) for line in markers)
    assert suppressed + len(lines(out)) - len(markers) == 300


def test_it_goes_by_the_time_of_the_lines_and_not_by_that_of_their_delivery():
    items = groups(*[b"x"] * 100, step_ns=1000 * MS)
    assert lines(run(limiter(rate_limit="1"), [items])) == [b"x"] * 100


def test_both_streams_share_the_rate_and_each_has_its_marker():
    items = [
        group([b"a"], 0, 0, 1),
        group([b"b"], 0, 0, 2),
        group([b"c"], 2, 0, 1),
        group([b"d"], 4, 5000 * MS, 1),
    ]
    assert run(limiter(rate_limit="1"), [items]) == [
        items[0],
        Dropped(2, 0, 2, "rate-limit"),
        Dropped(1, 2, 4, "rate-limit"),
        Group(5000 * MS, 1, 4, 4, [b"[logd: 1 line suppressed by rate-limit=1]"]),
        Group(5000 * MS, 2, 2, 2, [b"[logd: 1 line suppressed by rate-limit=1]"]),
        items[3],
    ]


def test_an_over_long_line_passes_or_is_suppressed_as_a_whole_and_counts_once():
    def parts(position, name):
        return [
            Group(0, 1, position, position + 3, [b"abc"], Partial(name, 1, False)),
            Group(0, 1, position + 3, position + 6, [b"def"], Partial(name, 2, False)),
            Group(0, 1, position + 6, position + 8, [b"g"], Partial(name, 3, True)),
        ]

    out = run(limiter(rate_limit="1"), [[*parts(0, "a" * 64), *parts(8, "b" * 64)]])
    assert lines(out) == [b"abc", b"def", b"g", b"[logd: 1 line suppressed by rate-limit=1]"]


def test_a_clock_that_is_set_back_neither_stops_nor_opens_it():
    items = [group([b"a"], 0, 10_000 * MS), group([b"b"], 2, 0), group([b"c"], 4, 1000 * MS)]
    assert dropped(run(limiter(rate_limit="1"), [items])) == [(2, 4, "rate-limit")]
