"""Reading ps."""

import os

import pytest

from logd.engine.top import check_ps_args, parse_ps, processes
from logd.errors import InvalidParameter, LogdError

OUTPUT = """UID          PID    PPID  C STIME TTY          TIME CMD
root          10       1  0 10:00 ?        00:00:00 sh -c while true; do sleep 1; done
root          11      10  0 10:00 ?        00:00:00 sleep 1
root          99       1  0 10:00 ?        00:00:00 other
"""


def test_lines_are_chosen_by_pid_and_the_last_column_keeps_its_blanks():
    titles, rows = parse_ps(OUTPUT, {10, 11})
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [row[1] for row in rows] == ["10", "11"]
    assert rows[0][-1] == "sh -c while true; do sleep 1; done"


def test_threads_follow_their_process():
    output = "PID TTY CMD\n10 ? a\n- ? a1\n99 ? b\n- ? b1\n"
    assert parse_ps(output, {10})[1] == [["10", "?", "a"], ["-", "?", "a1"]]


@pytest.mark.parametrize(
    ("output", "words"), [("USER CMD\nroot sh\n", "Couldn't find PID"), ("PID\nx\n", "Unexpected")]
)
def test_output_without_pids_is_refused(output, words):
    with pytest.raises(LogdError, match=words):
        parse_ps(output, {1})


def test_another_column_must_not_be_called_pid():
    with pytest.raises(InvalidParameter, match='specifying "comm=PID" is not allowed'):
        check_ps_args("-o comm=PID")
    assert check_ps_args("-o pid=PID") == ["-o", "pid=PID"]


async def test_ps_shows_the_processes_that_were_asked_for():
    titles, rows = await processes("-o pid,comm", [os.getpid()])
    assert titles == ["PID", "COMMAND"]
    assert [row[0] for row in rows] == [str(os.getpid())]


async def test_options_that_do_not_go_with_a_choice_of_pids_work_too():
    _, rows = await processes("-e f -o pid,comm", [os.getpid()])
    assert [row[0] for row in rows] == [str(os.getpid())]


async def test_a_complaint_of_ps_is_the_error():
    with pytest.raises(LogdError, match=r"^ps: error"):
        await processes("--no-such-option", [1])
