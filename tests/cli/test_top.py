"""`logd top` on a terminal, against a scripted daemon, and its parts that need no terminal; `logd stats`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_peer import Peer, Request
from screen import Screen, plain

from logd.cli import stats_command
from logd.cli.top_table import COLUMNS, TITLES, Order, fitting
from logd.cli.top_view import View, keys
from logd.cli.usage import Usage, compare
from logd.errors import NotFound

SECOND = 1_000_000_000
LEAVES = b"\x1b[?1049l"
"""What gives the terminal's own screen back."""

Popen = Callable[..., subprocess.Popen[bytes]]


def figures(name: str, seconds: float, **changed: Any) -> dict[str, Any]:
    """A container after so many seconds: half a CPU, 2 MB/s received, 3 MB/s written, 100 kB/s of log."""
    used = {
        "cpu_ns": 0.5 * SECOND, "rx_bytes": 2_000_000, "tx_bytes": 0, "read_bytes": 0, "written_bytes": 3_000_000,
        "log_bytes": 100_000,
    }  # fmt: skip
    return {
        "id": name.encode().hex().ljust(64, "0")[:64], "name": name, "image": "busybox", "state": "running",
        "health": "", "restarts": 0, "time_ns": int((1_700_000_000 + seconds) * SECOND),
        "memory_working_set": 16 << 20, "memory_limit": 64 << 20, "pids": 3,
        "pressure": {"cpu": {"avg10": 12.4}, "memory": {"avg10": 0.0}, "io": {"avg10": 1.0}},
        "driver_state": "delivering", "driver_lag_s": 0.0,
        **{key: int(rate * seconds) for key, rate in used.items()}, **changed,
    }  # fmt: skip


def answer(seconds: float, *containers: dict[str, Any]) -> dict[str, Any]:
    return {
        "time_ns": int((1_700_000_000 + seconds) * SECOND),
        "online_cpus": 2,
        "memory_total": 1 << 34,
        "containers": list(containers),
    }


def usages(*containers: dict[str, Any]) -> list[Usage]:
    return compare(None, answer(0, *containers))


def serve(peer: Peer, *names: str, **changed: Any) -> None:
    began = time.monotonic()

    def stats(_: Request) -> tuple[int, object]:
        seconds = time.monotonic() - began
        return 200, answer(seconds, *(figures(name, seconds, **changed) for name in names))

    peer.routes["GET /logd/stats"] = stats


@pytest.fixture
def start() -> Iterator[Popen]:
    """Start `logd` on a screen, with the screen as its controlling terminal."""
    processes = []

    def begin(peer: Peer, screen: Screen, *arguments: str) -> subprocess.Popen[bytes]:
        program = (
            "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "from logd.cli.main import main; main(sys.argv[1:])"
        )
        environment = {**os.environ, "LOGD_HOST": peer.host, "TERM": "xterm-256color"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            environment.pop(name, None)
        command = [sys.executable, "-c", program, *arguments]
        ends = {"stdin": screen.slave, "stdout": screen.slave, "stderr": screen.slave}
        processes.append(subprocess.Popen(command, env=environment, **ends))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def wide(screen: Screen) -> Screen:
    screen.resize(160, 24)
    return screen


def logd(peer: Peer, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LOGD_HOST": peer.host}
    command = [sys.executable, "-m", "logd.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


# -- a terminal ------------------------------------------------------------------------------------------------------


def test_figures_are_shown_and_q_gives_the_terminal_back(peer: Peer, wide: Screen, start: Popen) -> None:
    serve(peer, "web")
    before = wide.settings()
    process = start(peer, wide, "top", "-d", "0.1")
    wide.read_until(b"50.00%")
    wide.type(b"q")
    sent = wide.read_all(process)
    row = next(line for line in plain(sent).splitlines() if line.startswith("web") and "50.00%" in line)
    assert row.split() == [
        "web", "50.00%", "16MiB", "/", "64MiB", "25.00%", "2MB", "/", "0B", "0B", "/", "3MB", "12/0/1", "3", "100kB",
        "-", "running",
    ]  # fmt: skip
    assert process.returncode == 0
    assert wide.settings() == before
    assert sent.endswith(LEAVES)
    assert sent.rindex(b"\x1b[?25h") > sent.rindex(b"\x1b[?25l")  # the cursor is seen again


@pytest.mark.parametrize(
    ("key", "number"), [(b"\x03", None), (None, signal.SIGTERM), (None, signal.SIGHUP), (b"\x1c", signal.SIGQUIT)]
)
def test_whatever_ends_it_the_terminal_is_given_back(
    peer: Peer, wide: Screen, start: Popen, key: bytes | None, number: signal.Signals | None
) -> None:
    serve(peer, "web")
    before = wide.settings()
    process = start(peer, wide, "top", "-d", "0.1")
    wide.read_until(b"web")
    assert wide.settings() != before
    if key:
        wide.type(key)
    else:
        process.send_signal(number)
    wide.read_all(process)
    assert process.returncode == (-number if number else 0)
    assert wide.settings() == before
    assert LEAVES in wide.text


def test_a_bug_gives_the_terminal_back_too(peer: Peer, wide: Screen, start: Popen) -> None:
    peer.routes["GET /logd/stats"] = lambda _: (200, {"time_ns": 0, "containers": [{}]})
    before = wide.settings()
    process = start(peer, wide, "top")
    shown = wide.read_all(process)
    assert b"KeyError" in shown[shown.index(LEAVES) :]
    assert process.returncode == 1
    assert wide.settings() == before


def test_stopped_for_a_while_it_leaves_the_screen_and_comes_back(peer: Peer, wide: Screen, start: Popen) -> None:
    serve(peer, "web")
    before = wide.settings()
    process = start(peer, wide, "top", "-d", "0.1")
    wide.read_until(b"50.00%")
    wide.type(b"\x1a")  # Ctrl-Z
    wide.read_until(LEAVES)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert wide.settings() == before
    wide.text = b""
    process.send_signal(signal.SIGCONT)
    wide.read_until(b"50.00%")
    wide.type(b"q")
    wide.read_all(process)
    assert wide.settings() == before


def test_a_hostile_daemons_texts_are_made_visible(peer: Peer, wide: Screen, start: Popen) -> None:
    serve(peer, "x\x1b]0;pwned\x07\x1b[2J", image="\x9b2J", health="\x1b[31mred")
    process = start(peer, wide, "top", "-d", "0.1")
    wide.read_until(b"x^[]0;pwned^G^[[2J")
    wide.type(b"q")
    shown = wide.read_all(process)
    assert b"\x1b]" not in shown
    assert b"\x1b[31mred" not in shown


def test_a_daemon_that_goes_away_is_asked_until_it_is_back(
    peer: Peer, tmp_path: Path, wide: Screen, start: Popen
) -> None:
    serve(peer, "web")
    process = start(peer, wide, "top", "-d", "0.1")
    wide.read_until(b"50.00%")
    peer.path.rename(tmp_path / "away")
    wide.read_until(b"trying again: no logd daemon at")
    wide.text = b""
    (tmp_path / "away").rename(peer.path)
    wide.read_until(b"q quit")
    wide.type(b"q")
    wide.read_all(process)
    assert process.returncode == 0


def test_a_filter_is_typed_and_a_narrow_terminal_has_fewer_columns(peer: Peer, wide: Screen, start: Popen) -> None:
    serve(peer, "web", "db")
    process = start(peer, wide, "top", "-d", "0.1")
    wide.read_until(b"STATE")
    wide.text = b""
    wide.type(b"/DB\r")
    wide.read_until(b"filter: ")
    wide.text = b""
    wide.resize(40, 10)
    process.send_signal(signal.SIGWINCH)  # as the terminal's driver does for the foreground
    wide.read_until(b"CPU %")
    wide.read_until(b"\x1b[H")
    wide.type(b"q")
    lines = plain(wide.read_all(process)).splitlines()
    titles = [line for line in lines if line.startswith("NAME")]
    assert titles[-1].split() == ["NAME", "CPU", "%▼", "MEM", "%", "LOG", "/s"]
    assert not any(line.startswith("web") for line in lines)


# -- without a terminal ----------------------------------------------------------------------------------------------


def test_in_a_pipe_one_table_is_printed(peer: Peer) -> None:
    serve(peer, "web", "db")
    done = logd(peer, "top", "-d", "0.1", "--sort", "name")
    titles, first, second = done.stdout.splitlines()
    assert titles.split() == " ".join(TITLES).split()
    assert (first.split()[0], second.split()[:2]) == ("db", ["web", "50.00%"])


def test_a_program_gets_one_object_a_line(peer: Peer) -> None:
    serve(peer, "web", "db", driver_state="retrying", driver_lag_s=5.5)
    done = logd(peer, "top", "-d", "0.1", "--format", "json")
    first, _ = map(json.loads, done.stdout.splitlines())
    assert first["name"] == "db"
    assert first["cpu_percent"] == pytest.approx(50, abs=0.01)
    assert (first["driver_state"], first["driver_lag_s"], first["pressure"]["cpu"]) == ("retrying", 5.5, 12.4)


def test_stats_has_docker_columns(peer: Peer) -> None:
    serve(peer, "web", "db")
    titles, row = logd(peer, "stats", "--no-stream", "web").stdout.splitlines()
    assert titles.split("   ")[:2] == ["CONTAINER ID", "NAME"]
    assert row.split()[:6] == ["776562000000", "web", "50.00%", "16MiB", "/", "64MiB"]


def test_stats_of_a_container_that_there_is_not_says_so_at_once(peer: Peer) -> None:
    serve(peer, "web")
    done = logd(peer, "stats", "nope")
    assert (done.returncode, done.stderr) == (1, "logd: No such container: nope\n")


def test_stats_finds_containers_by_name_or_the_beginning_of_an_id() -> None:
    found = usages(figures("web", 1), figures("we", 1), figures("db", 1))
    assert [one.name for one in stats_command.select(found, ["/db", "we", found[0].id[:12]])] == ["db", "we", "web"]
    with pytest.raises(NotFound):
        stats_command.select(found, ["7765"])  # begins two ids


def test_rates_are_unknown_without_an_earlier_look_and_never_negative() -> None:
    (first,) = compare(None, answer(1, figures("web", 1)))
    assert (first.cpu_percent, first.log_rate, first.memory_percent) == (None, None, 25.0)
    (back,) = compare(answer(5, figures("web", 5)), answer(4, figures("web", 4)))
    assert back.cpu_percent is None  # the clock was set back
    cleared = figures("web", 2, log_bytes=0)
    assert compare(answer(1, figures("web", 1)), answer(2, cleared))[0].log_rate == 0


def test_numbers_are_sorted_from_the_largest_and_names_from_a() -> None:
    found = usages(figures("b", 1, pids=2), figures("a", 1, pids=9), figures("c", 1, pids=2))
    order = {title: Order(TITLES.index(title)) for title in ("NAME", "PIDS")}
    assert "".join(one.name for one in order["NAME"].sort(found)) == "abc"
    assert "".join(one.name for one in order["PIDS"].sort(found)) == "abc"
    assert "".join(one.name for one in order["NAME"]._replace(is_reversed=True).sort(found)) == "cba"
    assert "".join(one.name for one in order["PIDS"]._replace(is_reversed=True).sort(found)) == "bca"


def test_columns_go_one_by_one_until_the_rest_fits_and_the_name_is_cut_last() -> None:
    widths = [30, *(column.width for column in COLUMNS[1:])]
    assert list(fitting(widths, 500)) == list(range(len(COLUMNS)))
    for room in range(1, 200):
        shown = fitting(widths, room)
        assert sum(shown.values()) + 2 * (len(shown) - 1) <= max(room, 1)
        assert 0 in shown
    assert fitting(widths, 8) == {0: 8}


def test_keys_are_told_apart_from_a_lone_escape() -> None:
    assert list(keys(b"a\x1b[A\x1b[6~\r")) == ["a", "up", "page down", "enter"]
    assert list(keys(b"\x1b")) == ["escape"]
    assert list(keys("ü\x7f".encode())) == ["ü", "backspace"]
    assert list(keys(b"\x1b[23~q")) == []  # F11, and what came with it


def test_the_view_obeys_keys() -> None:
    view = View(Order())
    view.take(answer(1, figures("web", 1), figures("db", 1), figures("old", 1, state="exited")))

    def names(*pressed: str) -> list[str]:
        assert all(map(view.press, pressed))
        lines = [str(line) for line in view.lines(160, 10)]
        return [line.split()[0] for line in lines[2:-1] if line.strip()]

    assert names("n") == ["db", "web"]
    assert names("r") == ["web", "db"]
    assert names("a") == ["web", "old", "db"]
    assert names("/", "w", "x", "backspace") == ["web"]
    assert names("enter") == ["web"]
    assert names("escape") == ["web", "old", "db"]
    assert names("?")[:3] == ["n", "c", "m"]  # the page of help
    assert names("x") == ["web", "old", "db"]
    view.press(" ")
    view.take(answer(2))
    assert names() == ["web", "old", "db"]  # held
    view.press(" ")
    view.take(answer(3))
    assert names() == []
    assert not view.press("q")


def test_long_lists_are_scrolled_within_their_ends() -> None:
    view = View(Order(TITLES.index("NAME")))
    view.take(answer(1, *(figures(f"c{number:02}", 1) for number in range(20))))

    def first(*pressed: str) -> str:
        for key in pressed:
            view.press(key)
        return str(view.lines(80, 8)[2]).split()[0]

    assert [first(), first("down"), first("page down"), first("end"), first("down"), first("home", "up")] == [
        "c00", "c01", "c06", "c15", "c15", "c00",
    ]  # fmt: skip
