"""The arguments of `logs`."""

import time

import pytest

from logd.cli.options import Options, parse_options
from logd.errors import InvalidParameter

SECOND = 1_000_000_000


def test_options_may_stand_anywhere_and_be_joined() -> None:
    options = parse_options(["-ft", "web", "-n5", "api", "--grep=a b", "-lapp=x", "-l", "y"])
    assert options == Options(
        containers=("web", "api"), follow=True, timestamps=True, tail=5, grep="a b", labels=("app=x", "y")
    )


def test_what_follows_two_dashes_is_a_name() -> None:
    assert parse_options(["--", "-f"]).containers == ("-f",)


def test_the_query_has_what_was_asked_for() -> None:
    options = parse_options(["--since", "1700000000.5", "--until=1700000001", "--stream", "stderr", "-n", "0", "x"])
    assert options.query == {
        "stdout": False, "stderr": True, "since": "1700000000.500000000", "until": "1700000001.000000000", "tail": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("text", "ago_s"), [("90s", 90), ("10m", 600), ("1h30m", 5400)])
def test_a_duration_is_counted_back_from_now(text: str, ago_s: int) -> None:
    since_ns = parse_options(["--since", text, "x"]).since_ns
    assert since_ns is not None
    assert abs(time.time_ns() - since_ns - ago_s * SECOND) < 5 * SECOND


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000),
        ("1700000000", 1_700_000_000),
    ],
)
def test_a_moment_has_dockers_forms(text: str, moment: int) -> None:
    assert parse_options(["--until", text, "x"]).until_ns == moment * SECOND


def test_a_clock_time_is_todays() -> None:
    since_ns = parse_options(["--since", "9:05", "x"]).since_ns
    assert since_ns is not None
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since_ns // SECOND)) == time.strftime("%Y-%m-%d 09:05:00")


def test_zero_and_all_and_negative_counts_are_dockers_no_limit() -> None:
    options = parse_options(["--since", "0", "--until=0", "-n", "all", "x"])
    assert (options.since_ns, options.until_ns, options.tail) == (None, None, None)
    assert parse_options(["-n", "-1", "x"]).tail is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no container given"),
        (["--nonsense", "x"], "option --nonsense not recognized"),
        (["-n", "few", "x"], "--tail: invalid value 'few' (write a number of lines, or all)"),
        (["--since", "later", "x"], "--since: invalid time 'later'"),
        (["--since", "25:00", "x"], "--since: invalid time"),
        (["--stream", "stdin", "x"], "--stream: invalid value 'stdin' (accepted: stdout, stderr, exec)"),
        (["--color", "red", "x"], "(accepted: auto, always, never)"),
        (["--after", "12", "x"], "--after: invalid cursor '12'"),
        (["--all", "x"], "leave 'x' or --all out"),
        (["--tail"], "option --tail requires argument"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_options(arguments)
    assert message in str(caught.value)
    assert caught.value.exit_code == 125


def test_an_empty_cursor_is_the_beginning() -> None:
    assert parse_options(["--after", "", "x"]).after == ()


def test_a_cursor_names_its_container_or_not() -> None:
    assert parse_options(["--after", "abc@1:5:6", "--after=1:7:8", "x"]).after == (("abc", (5, 6)), ("", (7, 8)))
