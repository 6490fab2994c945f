"""`logs` on a terminal."""

import signal
import threading
from collections.abc import Iterator

from cli_peer import END, Logs, Peer, err, gap, out
from screen import Screen


def shown(logs: Logs, screen: Screen, *arguments: str) -> bytes:
    process = logs.popen(*arguments, stdin=screen.slave, stdout=screen.slave, stderr=screen.slave)
    return screen.read_all(process)


def test_escape_sequences_are_made_visible_and_colours_kept(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.container(
        "web", lambda: [out(0, 0, b"\x1b]0;pwned\x07\x1b[31mred\x1b[0m\x1b[2J\n"), err(1, 0, b"\x9b2J\n"), END]
    )
    assert shown(logs, screen, "web") == b"^[]0;pwned^G\x1b[31mred\x1b[0m^[[2J\n<9B>2J\n\x1b[0m"


def test_raw_lets_everything_through(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.container("web", lambda: [out(0, 0, b"\x1b]0;title\x07\x1b[2J\n"), END])
    assert shown(logs, screen, "--raw", "web") == b"\x1b]0;title\x07\x1b[2J\n"


def test_only_the_output_that_is_a_terminal_is_guarded(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.container("web", lambda: [out(0, 0, b"\x1b[2J\n"), err(1, 0, b"\x1b[2J\n"), END])
    process = logs.popen("web", stdout=-1, stderr=screen.slave)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read() == b"\x1b[2J\n"
    assert screen.read_all(process) == b"^[[2J\n"


def test_names_have_colours_of_their_own_and_one_width(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.container("a", lambda: [out(0, 0, b"1\n"), err(2, 0, b"3\n"), END])
    peer.container("long", lambda: [out(1, 0, b"2\n"), END])
    assert shown(logs, screen, "a", "long") == (
        b"\x1b[36ma    | \x1b[0m1\n\x1b[33mlong | \x1b[0m2\n\x1b[36ma    | \x1b[0m3\n"
    )


def test_a_colour_left_on_does_not_reach_the_next_container(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.container("a", lambda: [out(0, 0, b"\x1b[31mred\nmore\n"), END])
    peer.container("b", lambda: [out(1, 0, b"plain\n"), END])
    assert shown(logs, screen, "--color", "never", "a", "b") == (
        b"a | \x1b[31mred\x1b[0m\na | more\x1b[0m\nb | plain\n"
    )


def test_no_color_is_honoured(peer: Peer, logs: Logs, screen: Screen) -> None:
    logs.environment["NO_COLOR"] = "1"
    peer.container("a", lambda: [out(0, 0, b"1\n"), END])
    peer.container("b", lambda: [out(1, 0, b"2\n"), END])
    assert shown(logs, screen, "a", "b") == b"a | 1\nb | 2\n"


def test_color_always_colours_names_in_a_pipe(peer: Peer, logs: Logs) -> None:
    peer.container("a", lambda: [out(0, 0, b"1\n"), END])
    peer.container("b", lambda: [out(1, 0, b"2\n"), END])
    assert logs("--color=always", "a", "b").stdout == b"\x1b[36ma | \x1b[0m1\n\x1b[33mb | \x1b[0m2\n"


def test_a_prompt_without_an_end_stands_alone_before_another_stream(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.container("a", lambda: [out(0, 0, b"prompt> "), err(1, 0, b"error\n"), END])
    peer.container("b", lambda: [END])
    assert shown(logs, screen, "--color=never", "a", "b") == b"a | prompt> \na | error\n"


def test_a_gap_is_marked(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.container("web", lambda: [gap(0, 2, 0, 0, "disk \x1b[31m full"), END])
    assert shown(logs, screen, "web") == (
        b"\x1b[1;31mlogs: web: an unknown number of bytes of stderr missing here: disk ^[[31m full\x1b[0m\n"
    )


def test_an_interrupt_leaves_the_terminal_without_the_containers_colours(
    peer: Peer, logs: Logs, screen: Screen
) -> None:
    stop = threading.Event()

    def waiting() -> Iterator[bytes]:
        yield out(0, 0, b"\x1b[31mred\n")
        stop.wait(20)
        yield END

    peer.container("web", waiting)
    process = logs.popen("-f", "web", stdout=screen.slave, stderr=screen.slave)
    screen.read_until(b"red\n")
    process.send_signal(signal.SIGINT)
    assert screen.read_all(process) == b"\x1b[31mred\n\x1b[0m"
    assert process.returncode == -signal.SIGINT
    stop.set()


def test_a_message_of_the_daemon_is_guarded_too(peer: Peer, logs: Logs, screen: Screen) -> None:
    peer.routes["GET /logd/containers/x/logs"] = lambda _: (404, {"message": "No such container: \x1b[2J\x1b[31mx"})
    assert shown(logs, screen, "x") == b"logs: No such container: ^[[2J^[[31mx\n"
