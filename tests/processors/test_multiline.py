import subprocess
import sys
from pathlib import Path

import pytest
from processing import MS, group, groups, lines, make, run

from logd.batch import Dropped, ExecId, Group, Partial
from logd.processors.multiline import MultilineFactory
from logd.processors.stacktraces import NAMES, RULES, Machine

TRACES = Path(__file__).parent.parent / "data/traces"


def joiner(**options):
    return make(MultilineFactory(), **options)


def joined(data: bytes, **options) -> list[bytes]:
    return lines(run(joiner(**options), [[group(data.split(b"\n"))]]))


def traces():
    for preset in NAMES:
        for number, trace in enumerate((TRACES / f"{preset}.txt").read_bytes().removesuffix(b"\n").split(b"\n=====\n")):
            yield pytest.param(preset, trace, id=f"{preset}-{number}")


@pytest.mark.parametrize("presets", ["", "python,java,go,node"])
@pytest.mark.parametrize(("preset", "trace"), [*traces()])
def test_a_stack_trace_is_one_record_and_the_lines_around_it_are_not_in_it(preset, trace, presets):
    data = b"before\n" + trace + b"\nafter it\n" + trace + b"\n\nlast"
    assert joined(data, multiline=presets or preset) == [b"before", trace, b"after it", trace, b"", b"last"]


@pytest.mark.parametrize(("preset", "trace"), [*traces()])
def test_a_trace_that_is_printed_line_by_line_and_with_crlf_is_one_record_too(preset, trace):
    each = [[one] for one in groups(*(line + b"\r" for line in trace.split(b"\n")), step_ns=MS)]
    assert lines(run(joiner(multiline=preset), each)) == [trace.replace(b"\n", b"\r\n") + b"\r"]


def test_what_python_prints_here_is_one_record():
    program = (
        "def f(n):\n  return f(n - 1) if n else {}['x']\ntry: f(2)\nexcept KeyError as e: raise OSError('no') from e"
    )
    trace = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).stderr
    assert joined(b"a\n" + trace + b"b", multiline="python") == [b"a", trace[:-1], b"b"]


@pytest.mark.parametrize(
    ("preset", "begin"),
    [
        ("python", b"Traceback (most recent call last):\n  File x\nKeyError: 1\n\nDuring handling of the above\n"),
        ("go", b"panic: x\n\nordinary"),
        ("node", b"/app/x.js:1"),
        ("node", b"/app/x.js:1\ncode\n    ^\n\nordinary"),
        ("java,node", b"Error: one\nError: two"),
    ],
)
def test_what_only_looked_like_more_of_a_trace_goes_on_line_by_line(preset, begin):
    found = joined(begin + b"\nx", multiline=preset)
    assert b"\n".join(found) == begin + b"\nx"
    assert b"ordinary" not in b"".join(one for one in found if b"\n" in one)
    assert found[-2:] in ([b"ordinary", b"x"], [b"code()", b"x"], [begin.split(b"\n")[-1], b"x"])


def test_a_line_in_the_middle_of_nothing_is_a_record_of_its_own():
    data = b"\tat a.b(C.java:1)\n  File x\n    at f\ngoroutine\n}"
    assert joined(data, multiline="python,java,go,node") == data.split(b"\n")


def test_lines_are_joined_from_one_start_to_the_next():
    data = b"on\nwith it\nSTART 1\nSTART 2\na\nb\nSTART 3"
    assert joined(data, multiline_start="^START") == [
        b"on\nwith it", b"START 1", b"START 2\na\nb", b"START 3",
    ]  # fmt: skip


def test_a_record_has_the_time_of_its_first_line_and_the_place_of_all():
    first, second = group([b"S 1", b"a"], 10, 1 * MS), group([b"b", b"S 2"], 16, 2 * MS)
    processor = joiner(multiline_start="^S")
    assert processor.feed([first]) == []
    assert processor.held == {1: 10}
    assert processor.feed([second]) == [Group(1 * MS, 1, 10, 18, [b"S 1\na\nb"])]
    assert processor.held == {1: 18}
    assert processor.flush() == [Group(2 * MS, 1, 18, 22, [b"S 2"])]
    assert processor.held == {}


def test_records_of_one_line_stay_together():
    items = joiner(multiline_start="^S").feed([group([b"S 1", b"S 2", b"S 3", b"S 4"])])
    assert items == [group([b"S 1", b"S 2", b"S 3"])]
    everything = group([b"one", b"two", b"three"])
    assert joiner(multiline="python").feed([everything])[0] is everything


def test_streams_are_joined_apart():
    items = [
        group([b"S 1"], 0, 0, 1),
        group([b"S 2"], 0, 0, 2),
        group([b"a"], 4, 0, 1),
        group([b"b"], 4, 0, 2),
    ]
    assert lines(run(joiner(multiline_start="^S"), [items])) == [b"S 1\na", b"S 2\nb"]


def test_a_line_that_comes_too_late_is_not_joined_and_neither_is_held_for_it():
    processor = joiner(multiline_start="^S", multiline_flush="100ms")
    late, other = group([b"late"], 4, 101 * MS), group([b"e"], 0, 202 * MS, 2)
    assert processor.feed([group([b"S 1"], 0, 0)]) == []
    assert lines(processor.feed([late])) == [b"S 1"]
    assert lines(processor.feed([other])) == [b"late"]
    assert processor.flush_after_s == 0.1


def test_a_record_is_not_larger_than_its_bound():
    data = b"S\n" + b"\n".join([b"0123456789"] * 5)
    assert joined(data, multiline_start="^S", multiline_max_size="21") == [
        b"S\n0123456789",
        b"0123456789\n0123456789",
        b"0123456789\n0123456789",
    ]
    trace = b"Traceback (most recent call last):\n" + b"  x\n" * 9 + b"KeyError: 1"
    assert joined(trace, multiline="python", multiline_max_size="50") == [trace[:50], trace[51:]]
    assert joined(b"S" * 99 + b"\nS", multiline_start="^S", multiline_max_size="21") == [b"S" * 99, b"S"]


def test_parts_of_an_over_long_line_are_not_joined_and_end_what_is_held():
    one = Group(0, 1, 4, 8, [b"S 22"], Partial("a" * 64, 1, False))
    two = Group(0, 1, 8, 11, [b"33"], Partial("a" * 64, 2, True))
    items = [group([b"S 1"]), one, two, group([b"a", b"S 4", b"b"], 11)]
    out = run(joiner(multiline_start="^S"), [items])
    assert lines(out) == [b"S 1", b"S 22", b"33", b"a", b"S 4\nb"]
    assert out[1:3] == [one, two]


def test_lines_of_an_exec_are_not_joined_with_the_containers():
    of_exec = group([b"b", b"c"], 6)._replace(fields=[{"exec": ExecId("0123456789ab")}] * 2)
    items = [group([b"start"]), of_exec, group([b"d"], 10)]
    assert lines(run(joiner(multiline_start="start"), [items])) == [b"start", b"b", b"c", b"d"]


def test_nothing_is_joined_over_a_gap():
    gap = Dropped(1, 4, 9, "lost")
    assert run(joiner(multiline_start="^S"), [[group([b"S 1"]), gap, group([b"a"], 9)]]) == [
        group([b"S 1"]), gap, group([b"a"], 9),
    ]  # fmt: skip


def test_a_thousand_lines_that_may_each_begin_a_trace_are_looked_at_once_each():
    data = b"\n".join([b"/app/x.js:1", b"code()", b"   ^", b""] * 5000)
    assert joined(data, multiline="node") == data.split(b"\n")


def test_no_uncertain_state_leads_to_itself():
    for rules in RULES.values():
        assert not [rule for rule in rules if "?" in rule.state and rule.next == rule.state]
    assert Machine(NAMES).begin.found_in(b"panic: x")
