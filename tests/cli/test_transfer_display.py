"""What is shown of a transfer's messages."""

import os

import pytest
from screen import Screen, plain

from logd.cli.registry.display import Display

HOSTILE = "\x1b]0;title\x07\x1b[31mred"
MESSAGES = [
    {"status": "Pulling from app", "id": "latest"},
    {"status": "Pulling fs layer", "id": "aa", "progressDetail": {}},
    {"status": "Downloading", "id": "aa", "progressDetail": {"current": 0, "total": 100}},
    {"status": "Downloading", "id": "aa", "progressDetail": {"current": 50}},
    {"status": "Pull complete", "id": "aa", "progressDetail": {}},
    {"progressDetail": {}, "aux": {"Tag": "x"}},
    {"status": f"Status: {HOSTILE}"},
    {"stream": f"Step 1\n{HOSTILE}\n"},
]


def test_in_a_pipe_there_are_plain_lines_without_progress() -> None:
    read, write = os.pipe()
    with Display(write) as display:
        display.show(MESSAGES)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read().decode()
    assert text == (
        "latest: Pulling from app\naa: Pulling fs layer\naa: Pull complete\n"
        f"Status: ^[]0;title^G^[[31mred\nStep 1\n{HOSTILE}\n"
    )


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_terminal_gets_nothing_to_obey_from_a_message(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TERM", kind)
    screen.resize(100, 30)
    with Display(screen.slave) as display:
        display.show([{**MESSAGES[2], "id": HOSTILE, "status": HOSTILE}, *MESSAGES])
        display.write("end\n")
    screen.read_until(b"\nend\n")
    assert b"\x1b]" not in screen.text
    assert b"\x07" not in screen.text
    assert "Step 1\n^[]0;title^Gred\n" in plain(screen.text)
    assert ("━" in plain(screen.text)) == (kind == "xterm")


def test_what_is_told_after_bars_stands_below_them(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen.resize(100, 30)
    with Display(screen.slave) as display:
        display.show(MESSAGES[1:3])
        display.show([{"status": "done"}, *MESSAGES[1:3], {"status": "all done"}])
    screen.read_until(b"all done\n")
    first, second, _ = plain(screen.text).split("done\n")
    for part in (first, second):
        assert part.rstrip("\n").split("\r")[-1].startswith("aa Downloading")
