"""Delivery, seen from the destination: what arrives, after whatever happened to driver, forwarder and daemon."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from probing import wait_until

COUNT = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo line $i; done"


def numbered(count: int) -> list[str]:
    return [f"line {number}" for number in range(1, count + 1)]


def settled(drivers: Callable[[str], dict[str, Any]], container: str, name: str = "probe") -> dict[str, Any]:
    """Return the driver's account once nothing is waiting."""
    return wait_until(lambda: (found := drivers(container)[name]) and not found["buffered"] and found)


def forwarders(daemon: Any) -> dict[str, dict[str, Any]]:
    found = daemon.get("/logd/plugins")["forwarders"]
    return {one["plugin"]: one for one in found}


@pytest.mark.calm
def test_every_line_of_both_streams_arrives_at_its_position(run: Any, probe: Any, drivers: Any) -> None:
    target = probe()
    container = run("printf 'one\\n\\ntwo\\nrest'; echo oops >&2", "--log-driver", "probe", *target.options())
    account = settled(drivers, container)
    stdout = [(0, b"one"), (4, b""), (5, b"two"), (9, b"rest")]
    assert sorted(target.lines()) == [("stderr", 0, b"oops"), *(("stdout", at, line) for at, line in stdout)]
    assert (account["captured"], account["delivered"], account["difference"]) == (18, 18, 0)


@pytest.mark.calm
def test_a_destination_that_is_down_stops_neither_the_start_nor_the_container(
    run: Any, probe: Any, drivers: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("refuse")
    container = run(COUNT.format(n=1000), "--log-driver", "probe", *target.options())
    assert forwarding.docker("wait", container).stdout == "0\n"
    failing = wait_until(lambda: (one := drivers(container)["probe"])["error"] and one)
    assert (failing["state"], failing["error"], failing["delivered"]) == ("retrying", "nobody listens", 0)
    assert failing["buffered"] == failing["captured"] > 0
    assert forwarding.docker("logs", "--tail", "1", container).stdout == "line 1000\n"
    target.behave("well")
    account = settled(drivers, container)
    assert target.texts() == numbered(1000)
    assert account["difference"] == 0


@pytest.mark.calm
def test_what_was_acknowledged_before_a_reset_is_not_sent_again(run: Any, probe: Any, drivers: Any) -> None:
    target = probe()
    target.behave("reset")
    container = run(COUNT.format(n=1000), "--log-driver", "probe", *target.options())
    wait_until(lambda: drivers(container)["probe"]["retries"] > 2)
    target.behave("well")
    settled(drivers, container)
    assert target.texts() == numbered(1000)


@pytest.mark.calm
def test_a_destination_that_never_answers_is_tried_again_after_the_deadline(run: Any, probe: Any, drivers: Any) -> None:
    target = probe()
    target.behave("hang")
    container = run("echo one", "--log-driver", "probe", "--log-opt", "send-timeout=200ms", *target.options())
    wait_until(lambda: drivers(container)["probe"]["retries"] > 1)
    target.behave("well")
    settled(drivers, container)
    assert target.texts() == ["one"]


@pytest.mark.calm
def test_a_rejected_record_is_a_dead_letter_and_the_others_arrive(
    run: Any, probe: Any, drivers: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("reject bad")
    container = run(
        "echo one; echo bad two; echo three; echo bad four; echo five", "--log-driver", "probe", *target.options()
    )
    account = settled(drivers, container)
    assert target.texts() == ["one", "three", "five"]
    assert (account["dropped"], account["difference"]) == ({"rejected": 17}, 0)
    letters = forwarding.data_root / "containers" / container / "log" / "dead-letters" / "probe.jsonl"
    assert [json.loads(line)["line"] for line in letters.read_text().splitlines()] == ["bad two", "bad four"]


@pytest.mark.calm
def test_a_record_that_breaks_the_connection_each_time_is_found_and_set_aside(
    run: Any, probe: Any, drivers: Any
) -> None:
    target = probe()
    target.behave("poison bad")
    container = run("echo one; echo bad two; echo three", "--log-driver", "probe", *target.options())
    account = settled(drivers, container)
    assert target.texts() == ["one", "three"]
    assert (account["dropped"], account["difference"]) == ({"poison": 8}, 0)


def test_a_mistake_in_a_driver_stops_its_delivery_only_and_is_shown(run: Any, probe: Any, drivers: Any) -> None:
    good, bad = probe("good"), probe("bad")
    bad.behave("raise")
    container = run(
        "echo one; sleep 60", "--log-driver", "good=probe,bad=probe", *good.options("good:"), *bad.options("bad:")
    )
    wait_until(lambda: drivers(container)["bad"]["state"] == "failed")
    wait_until(lambda: good.texts() == ["one"])
    assert drivers(container)["bad"]["error"] == "a mistake in the driver"
    assert bad.texts() == []


def test_a_driver_that_holds_up_its_loop_is_ended_and_others_do_not_notice(
    run: Any, probe: Any, drivers: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("spin")
    spinning = run("echo one", "--log-driver", "probe", *target.options())
    other = run("while true; do date +%s.%N; sleep 0.1; done", "--log-driver", "json-file")
    wait_until(lambda: forwarders(forwarding)["probe"]["restarts"] >= 1)
    lag_s = (
        time.time_ns() / 1e9
        - os.stat(forwarding.docker("inspect", "-f", "{{.LogPath}}", other).stdout.strip()).st_mtime
    )
    assert lag_s < 1.0
    target.behave("well")
    settled(drivers, spinning)
    assert target.texts() == ["one"]


def test_a_driver_that_ends_its_process_goes_on_in_the_next_one(
    run: Any, probe: Any, drivers: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("exit")
    container = run(COUNT.format(n=100), "--log-driver", "probe", *target.options())
    wait_until(lambda: forwarders(forwarding)["probe"]["restarts"] >= 2)
    target.behave("well")
    settled(drivers, container)
    assert target.texts() == numbered(100)


def test_a_removed_container_answers_at_once_and_its_backlog_arrives_after_a_restart_too(
    run: Any, probe: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("refuse")
    container = run(COUNT.format(n=500), "--name", "leaving", "--log-driver", "probe", *target.options())
    forwarding.docker("wait", container)
    forwarding.docker("rm", container)
    run("true", "--name", "leaving", "--log-driver", "local")
    forwarding.restart()
    target.behave("well")
    wait_until(lambda: target.texts() == numbered(500))
    wait_until(lambda: not any((forwarding.data_root / "draining").iterdir()))


@pytest.mark.calm
def test_a_container_run_with_rm_delivers_its_last_line(probe: Any, forwarding: Any) -> None:
    target = probe()
    target.behave("refuse")
    forwarding.docker(
        "run", "--rm", "--network", "none", "--log-driver", "probe", *target.options(), "busybox", "echo", "last words"
    )
    target.behave("well")
    wait_until(lambda: target.texts() == ["last words"])


@pytest.mark.parametrize("victim", ["forwarder", pytest.param("daemon", marks=pytest.mark.soak)])
def test_no_line_is_lost_or_out_of_order_when_a_process_is_killed_again_and_again(
    run: Any, probe: Any, drivers: Any, forwarding: Any, victim: str
) -> None:
    target = probe()
    limits = ("--log-opt", "cache-max-size=50k", "--log-opt", "cache-max-file=1000")
    script = "i=0; while true; do i=$((i+1)); echo line $i; [ $((i % 100)) != 0 ] || sleep 0.1; done"
    container = run(script, "--log-driver", "probe", *limits, *target.options())
    for _ in range(4):  # a plugin that dies more often in a short time is left alone for a while
        seen = len(target.lines())
        wait_until(lambda seen=seen: len(target.lines()) > seen)
        if victim == "daemon":
            forwarding.kill()
            forwarding.start()
        else:
            pid = wait_until(lambda: forwarders(forwarding)["probe"]["pid"])
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: forwarders(forwarding)["probe"]["pid"] not in {0, pid})
    forwarding.docker("kill", container)
    account = settled(drivers, container)
    first_seen = list(dict.fromkeys(target.texts()))
    assert first_seen == forwarding.docker("logs", container).stdout.splitlines()
    assert account["difference"] == 0


@pytest.mark.calm
def test_drivers_come_and_go_while_the_container_runs(run: Any, probe: Any, drivers: Any, forwarding: Any) -> None:
    first, second = probe("first"), probe("second")
    container = run("i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done", "--log-driver", "local")
    wait_until(lambda: forwarding.docker("logs", container).stdout.count("\n") > 5)
    forwarding.logd("log", "driver", "add", container, "a=probe", "--from", "start", *first.options())
    wait_until(lambda: len(first.texts()) > 10)
    forwarding.logd("log", "driver", "add", container, "b=probe", "--from", "cursor:a", *second.options())
    wait_until(lambda: len(second.texts()) > 5)
    forwarding.logd("log", "driver", "remove", container, "a")
    assert set(drivers(container)) == {"b"}
    count = len(first.texts())
    assert first.texts() == numbered(count)
    wait_until(lambda: int(second.texts()[-1].split()[1]) > count + 20)
    begin = int(second.texts()[0].split()[1])
    assert second.texts() == [f"line {number}" for number in range(begin, begin + len(second.texts()))]
    assert begin <= count


def test_undelivered_segments_are_kept_up_to_the_budget_and_the_loss_beyond_it_is_counted(
    run: Any, probe: Any, drivers: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("refuse")
    limits = ("max-size=20k", "max-file=2", "undelivered-max-size=200k")
    options = [word for one in limits for word in ("--log-opt", one)]
    container = run(COUNT.format(n=50_000), "--log-driver", "local,probe", *options, *target.options())
    forwarding.docker("wait", container)
    printed = sum(len(f"{line}\n") for line in numbered(50_000))  # the last of it may come after the exit
    waiting = wait_until(lambda: (one := drivers(container)["probe"])["captured"] == printed and one)
    assert 150_000 < waiting["buffered"] <= 240_000
    target.behave("well")
    account = settled(drivers, container)
    assert account["difference"] == 0
    assert account["dropped"].keys() == {"retention"}
    assert account["delivered"] == waiting["buffered"]
    arrived = [text for text in target.texts() if text.startswith("line ")]
    assert arrived[-1] == "line 50000"
    assert len(arrived) == len(set(arrived))


@pytest.mark.calm
def test_what_was_kept_for_a_driver_goes_once_it_has_it(run: Any, probe: Any, drivers: Any, forwarding: Any) -> None:
    target = probe()
    target.behave("refuse")
    limits = ("--log-opt", "max-size=20k", "--log-opt", "max-file=2")
    script = COUNT.format(n=20_000)
    ended = run(script, "--log-driver", "local,probe", *limits, *target.options())
    lives = run(f"{script}; sleep 1000", "--log-driver", "local,probe", *limits, *target.options())

    def segments(container: str) -> int:
        return len(list((forwarding.data_root / "containers" / container / "log").glob("*.index")))

    wait_until(lambda: min(segments(ended), segments(lives)) > 5)
    forwarding.docker("wait", ended)
    target.behave("well")
    wait_until(lambda: max(segments(ended), segments(lives)) <= 2)
    assert len(target.texts()) == 40_000


@pytest.mark.calm
def test_with_mode_blocking_the_container_waits_for_its_driver_and_nothing_is_dropped(
    run: Any, probe: Any, drivers: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("refuse")
    limits = ("max-size=20k", "max-file=2", "undelivered-max-size=100k", "mode=blocking")
    options = [word for one in limits for word in ("--log-opt", one)]
    container = run(f"yes {99 * 'x'} | head -c 6000000", "--log-driver", "local,probe", *options, *target.options())
    wait_until(lambda: drivers(container)["probe"]["buffered"] > 100_000)
    held = drivers(container)["probe"]["captured"]
    assert forwarding.docker("inspect", "-f", "{{.State.Running}}", container).stdout == "true\n"
    target.behave("well")
    assert forwarding.docker("wait", container).stdout == "0\n"
    account = settled(drivers, container)
    assert held < 6_000_000
    assert (account["delivered"], account["dropped"], account["difference"]) == (6_000_000, {}, 0)
    assert len(target.texts()) == 60_000


@pytest.mark.calm
def test_a_plugin_that_is_broken_is_named_and_the_others_work(forwarding: Any) -> None:
    found = json.loads(forwarding.logd("plugins", "--format", "json").stdout)
    broken = {one["plugin"]: one["reason"] for one in found["broken"]}
    assert broken["broken (logd_probe_broken)"] == "RuntimeError: this plugin was never finished"
    assert "probe" in {one["name"] for one in found["drivers"]}


@pytest.mark.calm
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--log-driver", "probe"], "probe-file is a required parameter of the probe log driver"),
        (["--log-driver", "probe,x=probe"], "probe-file is a required parameter of the probe log driver"),
        (["--log-driver", "probe", "--log-opt", "probe-fiel=x"], "unknown log opt 'probe-fiel' for probe log driver"),
        (["--log-driver", "nix"], 'error looking up logging plugin nix: plugin "nix" not found'),
        (
            ["--log-driver", "local", "--log-opt", "probe:probe-file=x"],
            "log opt 'probe:probe-file': no driver is named 'probe'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_at_create_and_leaves_nothing(
    forwarding: Any, options: list[str], words: str
) -> None:
    done = forwarding.docker("create", "--name", "never", *options, "busybox", "true", check=False)
    assert words in done.stderr
    assert forwarding.docker("ps", "-aq").stdout == ""
