"""`logs`, started as a person starts it, against a daemon on a real socket."""

import base64
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from cli_peer import BASE, END, SECOND, Logs, Peer, Request, err, failure, gap, out, start


def test_one_container_in_a_pipe_is_its_very_bytes_on_their_streams(peer: Peer, logs: Logs) -> None:
    binary = bytes(range(256)) * 100
    peer.container("web", lambda: [out(0, 0, b"a\x1b[2J\r\n") + err(0, 0, b"oops\n"), out(1, 8, binary), END])
    done = logs("web")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\x1b[2J\r\n" + binary, b"oops\n")
    assert peer.queries("/logd/containers/web/logs") == [{"stdout": "1", "stderr": "1"}]
    assert len(peer.requests) == 1


def test_a_container_that_printed_nothing_shows_nothing(peer: Peer, logs: Logs) -> None:
    peer.container("web", lambda: [start(0, 0), END])
    done = logs("web")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_options_reach_the_daemon(peer: Peer, logs: Logs) -> None:
    peer.container("web", lambda: [END])
    arguments = ("-f", "-n", "7", "--since=1700000000", "--until", "1700000009", "--grep", "a|b c", "--stream=stderr")
    assert logs(*arguments, "web").returncode == 0
    assert peer.queries("/logd/containers/web/logs") == [{
        "stdout": "0", "stderr": "1", "follow": "1", "restarts": "1", "tail": "7", "since": "1700000000.000000000",
        "until": "1700000009.000000000", "grep": "a|b c",
    }]  # fmt: skip


def test_timestamps_stand_before_each_line(peer: Peer, logs: Logs) -> None:
    peer.container(
        "web", lambda: [out(0.25, 0, b"a\nb\n"), err(1, 0, b"c\n"), out(2, 4, b"half"), out(3, 8, b" whole\n"), END]
    )
    done = logs("-t", "web")
    stamp = b"2023-11-14T22:13:20.250000000Z"
    assert done.stdout == stamp + b" a\n" + stamp + b" b\n2023-11-14T22:13:22.000000000Z half whole\n"
    assert done.stderr == b"2023-11-14T22:13:21.000000000Z c\n"


def test_several_containers_are_interleaved_by_time_with_their_names(peer: Peer, logs: Logs) -> None:
    peer.container("web", lambda: [out(0, 0, b"w0\n"), out(2, 3, b"w2\nw2b\n"), out(5, 10, b"w5\n"), END])
    peer.container("database", lambda: [out(1, 0, b"d1\n") + out(3, 3, b"d3\n"), err(4, 0, b"d4\n"), END])
    done = logs("web", "database")
    assert done.stdout == (b"web | w0\ndatabase | d1\nweb | w2\nweb | w2b\ndatabase | d3\nweb | w5\n")
    assert done.stderr == b"database | d4\n"
    assert done.returncode == 0


def test_a_line_without_an_end_does_not_run_into_another_containers(peer: Peer, logs: Logs) -> None:
    peer.container("a", lambda: [out(0, 0, b"prompt> "), out(2, 8, b"and on\n"), END])
    peer.container("b", lambda: [out(1, 0, b"b1\n"), END])
    assert logs("a", "b").stdout == b"a | prompt> \nb | b1\na | and on\n"


def test_a_follower_shows_a_line_at_once_although_others_are_silent(peer: Peer, logs: Logs) -> None:
    release = threading.Event()
    now = (time.time_ns() - BASE) / SECOND

    def silent() -> Iterator[bytes]:
        yield start(0, 0)
        assert release.wait(20)
        yield END

    def talking() -> Iterator[bytes]:
        yield out(1, 0, b"old\n")
        yield out(now + 3600, 4, b"new\n")
        assert release.wait(20)
        yield END

    peer.container("silent", silent)
    peer.container("talking", talking)
    with logs.popen("-f", "silent", "talking", stdout=-1) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"talking | old\n", b"talking | new\n"]
        release.set()
        assert process.wait(20) == 0


def test_the_past_of_followed_containers_is_merged_by_time(peer: Peer, logs: Logs) -> None:
    def slow() -> Iterator[bytes]:
        time.sleep(0.03)  # less than the patience with a silent container
        yield out(0, 0, b"first\n")
        yield END

    peer.container("slow", slow)
    peer.container("quick", lambda: [out(1, 0, b"second\n"), END])
    assert logs("-f", "quick", "slow").stdout == b"slow | first\nquick | second\n"


def test_json_has_a_cursor_from_which_after_resumes(peer: Peer, logs: Logs) -> None:
    whole_id = peer.container("web", lambda: [
        start(100, 50), out(0, 100, b"a\nb\n"), err(1, 50, b"\xff\"\n"), gap(2, 1, 104, 6, "x"), out(3, 110, b"end"),
        END,
    ])  # fmt: skip
    lines = [json.loads(line) for line in logs("--json", "web").stdout.splitlines()]
    common = {"container": whole_id, "name": "web"}
    stamp = "2023-11-14T22:13:2{}.000000000Z"
    assert lines == [
        {"time": stamp.format(0), **common, "stream": "stdout", "line": "a", "cursor": f"{whole_id}@1:102:50"},
        {"time": stamp.format(0), **common, "stream": "stdout", "line": "b", "cursor": f"{whole_id}@1:104:50"},
        {
            "time": stamp.format(1), **common, "stream": "stderr", "line": "\ufffd\"",
            "line_base64": base64.b64encode(b'\xff"').decode(), "cursor": f"{whole_id}@1:104:53",
        },
        {
            "time": stamp.format(3), **common, "stream": "stdout", "line": "end", "partial": True,
            "cursor": f"{whole_id}@1:113:53",
        },
    ]  # fmt: skip
    logs("--json", "--after", lines[2]["cursor"], "web")
    assert peer.queries(f"/logd/containers/{whole_id}/logs")[-1]["after"] == "104,53"


def test_cursors_of_several_containers_go_to_their_own(peer: Peer, logs: Logs) -> None:
    one, two = peer.container("one", lambda: [END]), peer.container("two", lambda: [END])
    assert logs("--after", f"{two}@1:2:0", "--after", "one@1:1:0", "one", "two").returncode == 0
    assert peer.queries(f"/logd/containers/{one}/logs")[0]["after"] == "1,0"
    assert peer.queries(f"/logd/containers/{two}/logs")[0]["after"] == "2,0"


@pytest.mark.parametrize("cursor", ["other@1:0:0", "1:0:0"])
def test_a_cursor_of_a_container_that_is_not_shown_is_refused(peer: Peer, logs: Logs, cursor: str) -> None:
    peer.container("one", lambda: [END])
    peer.container("two", lambda: [END])
    done = logs("--after", cursor, "one", "two")
    assert done.returncode == 125
    assert b"(shown: one, two)" in done.stderr


def test_a_gap_is_told_on_stderr_where_it_is(peer: Peer, logs: Logs) -> None:
    peer.container("web", lambda: [out(0, 0, b"a\n"), gap(1, 1, 2, 900, "max-size"), out(2, 902, b"b\n"), END])
    done = logs("web")
    assert (done.returncode, done.stdout) == (0, b"a\nb\n")
    assert done.stderr == b"logs: web: 900 bytes of stdout missing here: max-size\n"


def test_an_error_of_the_daemon_in_the_middle_makes_it_fail(peer: Peer, logs: Logs) -> None:
    peer.container("web", lambda: [out(0, 0, b"a\n"), failure("you are too slow")])
    done = logs("web")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"a\n", b"logs: web: you are too slow\n")


def test_a_connection_that_breaks_is_no_silent_end(peer: Peer, logs: Logs) -> None:
    peer.container("web", lambda: [out(0, 0, b"a\n")])
    done = logs("web")
    assert (done.returncode, done.stdout) == (1, b"a\n")
    assert b"before the end of the log" in done.stderr


def test_one_broken_container_does_not_stop_the_others(peer: Peer, logs: Logs) -> None:
    peer.container("bad", lambda: [out(0, 0, b"x\n")])
    peer.container("good", lambda: [out(1, 0, b"y\n"), END])
    done = logs("bad", "good")
    assert (done.returncode, done.stdout) == (1, b"bad | x\ngood | y\n")
    assert b"logs: bad: " in done.stderr


def test_a_follower_goes_on_where_it_was_after_the_daemon_restarted(peer: Peer, logs: Logs) -> None:
    answers = iter([
        [start(10, 20), out(0, 10, b"a\n"), err(0, 20, b"e\n")],  # the daemon dies here
        [start(12, 22), out(1, 12, b"b\n"), END],
    ])  # fmt: skip
    peer.container("web", lambda: next(answers))
    done = logs("-f", "-n", "2", "--since", "1", "web")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\nb\n", b"e\n")
    first, second = peer.queries("/logd/containers/web/logs")
    assert first["tail"] == "2"
    assert second == {"stdout": "1", "stderr": "1", "follow": "1", "restarts": "1", "after": "12,22"}


def test_no_such_container_is_said_in_the_daemons_words(peer: Peer, logs: Logs) -> None:
    peer.routes["GET /logd/containers/nix/logs"] = lambda _: (404, {"message": "No such container: nix"})
    done = logs("nix")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"logs: No such container: nix\n")


def test_a_wrong_option_is_usage(logs: Logs) -> None:
    done = logs("--nix", "web")
    assert done.returncode == 125
    assert done.stderr.startswith(b"logs: option --nix not recognized\n")
    assert b"logs --help" in done.stderr


def identity(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


def listing(*containers: tuple[str, dict[str, str]]) -> list[dict[str, object]]:
    newest_first = reversed(list(enumerate(containers)))
    return [
        {"Id": identity(name), "Names": [f"/{name}"], "Labels": labels, "Created": index}
        for index, (name, labels) in newest_first
    ]


def answer_listing(peer: Peer, *names: str) -> None:
    items = listing(*((name, {}) for name in names))
    peer.routes["GET /containers/json"] = lambda _: (200, items)
    for item in items:
        peer.routes[f"GET /logd/containers/{item['Id']}/logs"] = lambda _: [out(0, 0, b"x\n"), END]


def test_a_glob_chooses_by_name_and_all_chooses_all_the_oldest_first(peer: Peer, logs: Logs) -> None:
    answer_listing(peer, "web-1", "db", "web-2")
    assert logs("web-*").stdout == b"web-1 | x\nweb-2 | x\n"
    assert logs("--all").stdout == b"web-1 | x\ndb | x\nweb-2 | x\n"
    assert logs("db", "web-?", "web-1").stdout == b"db | x\nweb-1 | x\nweb-2 | x\n"
    assert logs("d[b]").stdout == b"x\n"
    assert all(query["all"] == "1" for query in peer.queries("/containers/json"))


def test_labels_are_left_to_the_daemon_and_narrow_a_glob(peer: Peer, logs: Logs) -> None:
    answer_listing(peer, "web-1", "db")
    assert logs("-l", "app=shop", "--label", "tier").stdout == b"web-1 | x\ndb | x\n"
    assert json.loads(peer.queries("/containers/json")[0]["filters"]) == {"label": ["app=shop", "tier"]}
    assert logs("-l", "app=shop", "web*").stdout == b"x\n"


def test_a_choice_that_is_empty_is_an_error_except_of_all(peer: Peer, logs: Logs) -> None:
    answer_listing(peer)
    assert logs("web-*").stderr == b"logs: no container matches 'web-*'\n"
    assert b"no container has the label 'a=b'" in logs("-l", "a=b").stderr
    done = logs("--all")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def started(name: str) -> bytes:
    event = {"Type": "container", "Action": "start", "Actor": {"ID": identity(name), "Attributes": {"name": name}}}
    return json.dumps(event).encode() + b"\n"


def test_containers_that_start_later_join_a_followed_choice(peer: Peer, logs: Logs) -> None:
    steps = {name: threading.Event() for name in ("new", "again", "stop")}
    answer_listing(peer, "web-1")
    answers = iter([[start(0, 0), out(1, 0, b"first\n"), END], [start(6, 0), out(3, 6, b"after its restart\n"), END]])
    peer.routes[f"GET /logd/containers/{identity('web-1')}/logs"] = lambda _: next(answers)
    peer.routes[f"GET /logd/containers/{identity('web-2')}/logs"] = lambda _: [out(2, 0, b"new\n"), END]

    def happen() -> Iterator[bytes]:
        assert steps["new"].wait(20)
        yield started("other") + started("web-2")
        assert steps["again"].wait(20)
        yield started("web-1")
        steps["stop"].wait(20)

    peer.routes["GET /events"] = lambda _: happen()
    with logs.popen("-f", "-n", "5", "web-*", stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"web-1 | first\n"
        steps["new"].set()
        assert process.stdout.readline() == b"web-2 | new\n"
        steps["again"].set()
        assert process.stdout.readline() == b"web-1 | after its restart\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
        steps["stop"].set()
    first, second = peer.queries(f"/logd/containers/{identity('web-1')}/logs")
    assert (first["tail"], second["after"], "tail" in second) == ("5", "6,0", False)
    assert json.loads(peer.queries("/events")[0]["filters"]) == {"type": ["container"], "event": ["start"]}


def test_a_followed_choice_that_is_empty_waits_for_a_container(peer: Peer, logs: Logs) -> None:
    answer_listing(peer)
    stop = threading.Event()
    peer.routes[f"GET /logd/containers/{identity('web')}/logs"] = lambda _: [out(2, 0, b"here\n"), END]

    def happen() -> Iterator[bytes]:
        yield started("web")
        stop.wait(20)

    peer.routes["GET /events"] = lambda _: happen()
    with logs.popen("-f", "-l", "app=x", stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"web | here\n"
        assert process.stderr.readline() == b"logs: no container has the label 'app=x' yet: waiting\n"
        process.send_signal(signal.SIGINT)
        stop.set()
    assert json.loads(peer.queries("/events")[0]["filters"])["label"] == ["app=x"]


def test_names_for_completion_are_printed_or_nothing(peer: Peer, logs: Logs) -> None:
    answer_listing(peer, "web", "db")
    assert logs("--complete").stdout == b"db\nweb\n"
    assert logs("--complete", "-H", "unix:///nonexistent/x").stderr == b""


def endless(stop: threading.Event) -> Iterator[bytes]:
    position = 0
    while not stop.is_set():
        yield out(0, position, b"x" * 999 + b"\n")
        position += 1000


def test_a_closed_pipe_ends_it_quietly(peer: Peer, logs: Logs) -> None:
    stop = threading.Event()
    peer.container("web", lambda: endless(stop))
    process = logs.popen("web", stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == -signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()
    stop.set()


def test_an_interrupt_ends_it_quietly(peer: Peer, logs: Logs) -> None:
    stop = threading.Event()

    def waiting() -> Iterator[bytes]:
        yield out(0, 0, b"ready\n")
        stop.wait(20)
        yield END

    peer.container("web", waiting)
    process = logs.popen("-f", "web", stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    process.stdout.close()
    process.stderr.close()
    stop.set()


def test_a_full_disk_under_stdout_is_told(peer: Peer, logs: Logs) -> None:
    peer.container("web", lambda: [out(0, 0, b"x\n"), END])
    with open("/dev/full", "wb") as full:
        done = logs("web", capture_output=False, stdout=full, stderr=-1)
    assert (done.returncode, done.stderr) == (1, b"logs: write error: No space left on device\n")


def test_a_daemon_that_is_not_there_is_told_with_the_remedy(logs: Logs) -> None:
    done = logs("-H", "unix:///nonexistent/logd.sock", "web")
    assert done.returncode == 1
    assert done.stderr.startswith(b"logs: no logd daemon at unix:///nonexistent/logd.sock: start it with `systemctl")
    assert done.stderr.count(b"\n") == 1


def test_the_help_names_every_option_and_has_examples(logs: Logs) -> None:
    from logd.cli.options import FULL_NAMES, LONG

    text = logs("--help").stdout.decode()
    assert all(f"--{name.rstrip('=')}" in text for name in LONG if name != "complete")
    assert all(f"{short}, {long}" in text for short, long in FULL_NAMES.items())
    assert "Examples:" in text


def test_it_imports_the_standard_library_alone_and_starts_fast() -> None:
    import subprocess
    import sys

    code = (
        "import sys; before = set(sys.modules); import logd.cli.logs; new = set(sys.modules) - before;"
        "print(*sorted(name for name in new if name.partition('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name.partition(".")[0] == "logd" for name in done.stdout.split())
    slow = {"argparse", "http", "email", "asyncio", "click", "rich", "dataclasses", "inspect", "logging", "urllib"}
    code = f"import sys; old = set(sys.modules); import logd.cli.logs; print(*{slow!r} & set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_bulk_log_goes_through_fast(peer: Peer, logs: Logs) -> None:
    block = b"x" * 99 + b"\n"
    payload = block * 2600
    count = 400  # 104 MB

    def bulk(request: Request) -> None:
        frame = out(0, 0, payload)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (len(frame), frame)
        for _ in range(count):
            request.connection.sendall(chunk)
        request.connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(END), END))

    peer.routes["GET /logd/containers/web/logs"] = bulk
    began = time.monotonic()
    with open("/dev/null", "wb") as null:
        assert logs("web", capture_output=False, stdout=null).returncode == 0
    rate = len(payload) * count / (time.monotonic() - began) / 1e6
    assert rate > 100, f"{rate:.0f} MB/s"  # 300 and more on an idle machine; the bench measures
