from itertools import pairwise

import pytest
from processing import CONTAINER, dropped, group, lines, make, run

from logd.batch import ContainerInfo, Group, Partial
from logd.processor import positions
from logd.processors.sample import SampleFactory, SampleOptions, parse_share

MANY = [b"line %06d" % number for number in range(20_000)]


def sampled(sample, item=None):
    return run(make(SampleFactory(), sample=sample), [[item or group(MANY)]])


@pytest.mark.parametrize(
    ("sample", "share"), [("2", 0.5), ("10", 0.1), ("30%", 0.3), ("99.5%", 0.995), ("0.5%", 0.005)]
)
@pytest.mark.parametrize("width", [0, 1, 5, 60, 116, 127])
def test_about_the_share_that_was_asked_for_is_sent_however_long_the_lines_are(sample, share, width):
    out = sampled(sample, group([b"x" * width] * 20_000))
    assert abs(len(lines(out)) / len(MANY) - share) < 0.015
    assert {reason for _, _, reason in dropped(out)} == {"sampled"}


def test_the_lines_are_spread():
    kept = [int(line.split()[1]) for line in lines(sampled("10"))]
    assert max(after - before for before, after in pairwise(kept)) < 150


def test_the_same_lines_are_sent_again_wherever_it_begins():
    whole = group(MANY)
    expected = lines(sampled("7"))
    begin = positions(whole)[5_000]
    later = lines(sampled("7", group(MANY[5_000:], begin)))
    assert expected[-len(later) :] == later
    assert 2_000 < len(later) < 2_300


def test_streams_and_containers_are_sampled_apart():
    other = SampleFactory().make(SampleOptions(sample=parse_share("2")), ContainerInfo(id="f" * 64, name="x"))
    first, second, third = (lines(one) for one in (
        sampled("2"), sampled("2", group(MANY, stream=2)), other.feed([group(MANY)]),
    ))  # fmt: skip
    assert len({tuple(first), tuple(second), tuple(third)}) == 3


def test_an_over_long_line_goes_or_stays_as_a_whole():
    for number in range(50):
        parts = [Group(0, 1, at, at + 1, [b"x"], Partial(f"{number * 7919:064x}", at + 1, at == 3)) for at in range(4)]
        parts[-1] = parts[-1]._replace(end=5)
        assert len(lines(run(make(SampleFactory(), sample="2"), [parts]))) in {0, 4}


def test_what_a_processor_wrote_itself_is_not_left_out():
    markers = [Group(0, 1, at, at, [b"[logd: ...]"]) for at in range(50)]
    assert SampleFactory().make(SampleOptions(sample=1), CONTAINER).feed(markers) == markers


def test_all_of_them_need_no_processor():
    for text in "1", "100%":
        assert SampleFactory().make(SampleOptions(sample=parse_share(text)), CONTAINER) is None
