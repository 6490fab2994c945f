"""The frames of a log stream."""

import pytest
from cli_peer import BASE, END, SECOND, err, failure, gap, out, run, start

from logd.cli.client import Broken
from logd.cli.frames import End, Failure, FrameDecoder, Start, parse_cursor
from logd.record import ExecRun, Gap, Run


@pytest.mark.parametrize("size", [1, 5, 23, 24, 25, 10_000])
def test_frames_come_out_whole_however_the_bytes_are_cut(size: int) -> None:
    unknown = run(77, 1, 0, b"from a newer daemon")
    wire = b"".join([
        start(3, 4), out(0, 3, b"a\nb\n"), err(1, 4, b"x" * 300 + b"\n"), gap(2, 1, 7, 9, "max-size"), unknown,
        failure("too slow"), END,
    ])  # fmt: skip
    decoder = FrameDecoder()
    events = [event for at in range(0, len(wire), size) for event in decoder.feed(wire[at : at + size])]
    assert events == [
        Start(0, (3, 4)),
        Run(BASE, 1, 3, b"a\nb\n"),
        Run(BASE + SECOND, 2, 4, b"x" * 300 + b"\n"),
        Gap(BASE + 2 * SECOND, 1, 7, 9, "max-size"),
        Failure(BASE, "too slow"),
        End(BASE),
    ]


def test_lines_of_an_exec_are_known_and_those_after_them_are_not():
    wire = run(7, 0, 3, b"0123456789ab") + out(0, 3, b"a\n") + out(0, 5, b"b\n")
    first, second = FrameDecoder().feed(wire)
    assert (first, second) == (Run(BASE, 1, 3, b"a\n"), Run(BASE, 1, 5, b"b\n"))
    assert isinstance(first, ExecRun)
    assert first.exec_id == "0123456789ab"
    assert not isinstance(second, ExecRun)


def test_a_length_that_no_daemon_sends_is_refused() -> None:
    with pytest.raises(Broken, match="not a log stream"):
        FrameDecoder().feed(b"HTTP/1.1 200 OK, and so on: not frames")


def test_a_cursor_reads_back() -> None:
    assert parse_cursor(f"1:0:{1 << 60}") == (0, 1 << 60)


@pytest.mark.parametrize("text", ["", "1:2", "2:0:0", "1:-1:0", "1:a:0", "1:1:1:1", "1:²:0"])
def test_a_cursor_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="copy one from --json"):
        parse_cursor(text)
