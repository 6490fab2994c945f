"""Health checks behind the docker command line, on one daemon."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LONG_S = 30.0
QUICK = ("--health-interval", "100ms", "--health-retries", "2")
NO_SECOND = ("--health-interval", "1h")


@pytest.fixture
def box(shared_busybox: Any) -> Iterator["Box"]:
    made = Box(shared_busybox)
    yield made
    made.close()


class Box:
    """Containers of one test, which sleep unless told otherwise."""

    def __init__(self, daemon: Any) -> None:
        self.daemon = daemon
        self.names: list[str] = []

    def run(self, *options: str, command: tuple[str, ...] = ("sleep", "1000"), image: str = "busybox") -> str:
        name = f"health-{time.monotonic_ns()}"
        self.names.append(name)
        self.daemon.docker("run", "-d", "--name", name, *options, image, *command)
        return name

    def inspect(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.daemon.docker("inspect", name).stdout)[0]
        return shown

    def health(self, name: str) -> dict[str, Any]:
        health: dict[str, Any] = self.inspect(name)["State"]["Health"]
        return health

    def ps(self, name: str, *options: str) -> str:
        table: str = self.daemon.docker("ps", "-a", "-f", f"name={name}", "--format", "{{.Status}}", *options).stdout
        return table.strip()

    def wait(self, name: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until = time.monotonic() + LONG_S
        while not condition(health := self.health(name)):
            assert time.monotonic() < until, f"{health}\n{self.daemon.log()}"
            time.sleep(0.02)
        return health

    def events(self, name: str, *filters: str, form: str = "{{.Action}}") -> list[str]:
        options = [word for one in (f"container={name}", *filters) for word in ("--filter", one)]
        until = str(time.time())
        shown = self.daemon.docker("events", "--since", "0", "--until", until, "--format", form, *options)
        lines: list[str] = shown.stdout.splitlines()
        return lines

    def close(self) -> None:
        self.daemon.docker("rm", "-f", *self.names)


def is_(status: str) -> Callable[[dict[str, Any]], bool]:
    return lambda health: health["Status"] == status


def test_a_container_is_starting_healthy_unhealthy_and_healthy_again(box):
    name = box.run("--health-cmd", "echo probed; test -e /well", *QUICK)
    assert re.fullmatch(r"Up .* \((health: starting|unhealthy)\)", box.ps(name))
    ill = box.wait(name, is_("unhealthy"))
    assert ill["FailingStreak"] >= 2
    assert {(probe["ExitCode"], probe["Output"]) for probe in ill["Log"]} == {(1, "probed\n")}
    assert re.fullmatch(r"Up .* \(unhealthy\)", box.ps(name, "-f", "health=unhealthy"))
    pid = box.inspect(name)["State"]["Pid"]
    Path(f"/proc/{pid}/root/well").touch()
    well = box.wait(name, is_("healthy"))
    assert well["FailingStreak"] == 0
    assert well["Log"][-1]["Start"] < well["Log"][-1]["End"]
    assert re.fullmatch(r"Up .* \(healthy\)", box.ps(name, "-f", "health=healthy"))
    assert box.ps(name, "-f", "health=none", "-f", "health=starting") == ""
    assert len(box.wait(name, lambda health: all(probe["ExitCode"] == 0 for probe in health["Log"]))["Log"]) == 5
    assert box.daemon.docker("logs", name).stdout == ""


def test_events_tell_of_each_probe_and_of_changes(box):
    name = box.run("--health-cmd", "exit 3", "--health-retries", "1", "--label", "a=b", "--health-interval", "300ms")
    box.wait(name, lambda health: len(health["Log"]) >= 2)
    box.daemon.docker("kill", name)
    events = [line.rsplit(" {", 1) for line in box.events(name, form="{{.Action}} {{json .Actor.Attributes}}")]
    actions = [action for action, _ in events]
    probe = ["exec_create: /bin/sh -c exit 3", "exec_start: /bin/sh -c exit 3", "exec_die"]
    assert actions[:9] == ["create", "start", *probe, "health_status: unhealthy", *probe]
    attributes = [json.loads("{" + text) for _, text in events[2:6]]
    exec_id = attributes[0]["execID"]
    assert re.fullmatch("[0-9a-f]{64}", exec_id)
    common = {"image": "busybox", "name": name, "a": "b"}
    assert attributes == [
        {**common, "execID": exec_id},
        {**common, "execID": exec_id},
        {**common, "execID": exec_id, "exitCode": "3"},
        common,
    ]
    assert box.events(name, "event=health_status") == ["health_status: unhealthy"]


def test_a_probe_that_takes_too_long_is_killed_and_says_so(box):
    name = box.run("--health-cmd", "echo half; sleep 900 & sleep 901", "--health-timeout", "150ms", *QUICK)
    health = box.wait(name, is_("unhealthy"))
    assert {(one["ExitCode"], one["Output"]) for one in health["Log"]} == {
        (-1, "Health check exceeded timeout (150ms): half\n")
    }
    until = time.monotonic() + LONG_S
    while True:  # between two probes there is nothing but the first process
        processes = box.daemon.docker("top", name, "-eo", "pid,args").stdout.splitlines()[1:]
        if [line.split(maxsplit=1)[1] for line in processes] == ["sleep 1000"]:
            break
        assert time.monotonic() < until, processes


def test_a_probe_that_can_not_be_run_and_one_that_prints_much_are_shown_as_in_docker(box, busybox_tar):
    change = 'HEALTHCHECK --interval=100ms CMD ["/no/such", "x"]'
    box.daemon.docker("import", "--change", change, "-", "unfit:latest", stdin=busybox_tar, text=False)
    unfit = box.run(image="unfit")
    much = box.run("--health-cmd", "head -c 9000 /dev/zero | tr '\\0' y; exit 5", *QUICK)
    first = box.wait(unfit, is_("unhealthy"))["Log"][0]
    assert first["ExitCode"] == -1
    assert re.match(r"OCI runtime exec failed: exec failed: .*/no/such.*no such file or directory", first["Output"])
    assert box.wait(much, is_("unhealthy"))["Log"][0]["Output"] == "y" * 4096 + "..."
    actions = box.events(unfit, "event=exec_create", "event=exec_start", "event=exec_die")
    assert set(actions) == {"exec_create: /no/such x", "exec_start: /no/such x"}


def test_failures_do_not_count_in_the_start_period_in_which_probes_come_more_often(box):
    name = box.run("--health-cmd", "exit 1", "--health-retries", "1", "--health-start-period", "1h",
                   "--health-start-interval", "50ms", *NO_SECOND)  # fmt: skip
    health = box.wait(name, lambda health: len(health["Log"]) >= 4)
    assert (health["Status"], health["FailingStreak"]) == ("starting", 0)
    assert re.fullmatch(r"Up .* \(health: starting\)", box.ps(name, "-f", "health=starting"))


def test_an_images_check_is_taken_field_by_field_and_can_be_switched_off(box, busybox_tar):
    change = 'HEALTHCHECK --interval=1h --retries=7 --start-period=1h CMD ["true"]'
    box.daemon.docker("import", "--change", change, "-", "checked:latest", stdin=busybox_tar, text=False)
    off = box.run("--no-healthcheck", image="checked")
    shown = box.inspect(off)
    assert "Health" not in shown["State"]
    assert shown["Config"]["Healthcheck"]["Test"] == ["NONE"]
    assert re.fullmatch(r"Up [^(]*", box.ps(off, "-f", "health=none"))
    own = box.run("--health-start-interval", "50ms", image="checked")
    assert box.inspect(own)["Config"]["Healthcheck"] == {
        "Test": ["CMD", "true"],
        "Interval": 3600 * 10**9,
        "StartPeriod": 3600 * 10**9,
        "StartInterval": 5 * 10**7,
        "Retries": 7,
    }
    box.wait(own, is_("healthy"))


def test_an_ended_container_is_unhealthy_and_a_new_start_begins_anew(box):
    name = box.run(
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "400ms",
        command=("sh", "-c", "touch /well; exec sleep 1000"),
    )
    box.wait(name, is_("healthy"))
    box.daemon.docker("kill", name)
    ended = box.health(name)
    assert ended["Status"] == "unhealthy"
    assert re.fullmatch(r"Exited \(137\) [^()]*", box.ps(name, "-f", "health=unhealthy"))
    assert box.health(name) == ended
    box.daemon.docker("start", name)
    assert box.health(name)["Log"][0]["Start"] in [probe["Start"] for probe in ended["Log"]]
    box.wait(name, is_("healthy"))


def test_probes_go_on_with_the_status_that_was_when_a_killed_daemon_comes_back(box):
    name = box.run("--health-cmd", "test -e /hang && sleep 90173; exit 0", "--health-timeout", "1h", *QUICK)
    ill = box.run("--health-cmd", "exit 1", *QUICK)
    box.wait(name, is_("healthy"))
    box.wait(ill, is_("unhealthy"))
    shown = box.inspect(name)
    hang = Path(f"/proc/{shown['State']['Pid']}/root/hang")
    hang.touch()
    until = time.monotonic() + LONG_S
    while b"sleep\x0090173\x00" not in command_lines():
        assert time.monotonic() < until
        time.sleep(0.01)
    box.daemon.kill()
    hang.unlink()
    (hanging,) = (box.daemon.exec_root / "containers" / shown["Id"] / "exec").iterdir()
    assert os.fsencode(hanging.name) in command_lines()
    box.daemon.start()
    assert (box.health(name)["Status"], box.health(ill)["Status"]) == ("healthy", "unhealthy")
    for one in (name, ill):
        last = box.health(one)["Log"][-1]["Start"]
        box.wait(one, lambda health, last=last: health["Log"][-1]["Start"] != last)
    while hanging.exists() or os.fsencode(hanging.name) in command_lines():
        assert time.monotonic() < until + LONG_S
        time.sleep(0.01)


def command_lines() -> bytes:
    """All processes' arguments."""
    found = b""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                found += (process / "cmdline").read_bytes() + b"\n"
    return found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--health-cmd", "x", "--health-interval", "1us"), "Interval in Healthcheck cannot be less than 1ms"),
        (
            ("--health-cmd", "x", "--health-start-interval", "1us"),
            "StartInterval in Healthcheck cannot be less than 1ms",
        ),
    ],
)
def test_a_check_that_can_not_be_is_refused(shared_busybox, options, words):
    refused = shared_busybox.docker("create", *options, "busybox", check=False)
    assert refused.returncode == 1
    assert words in refused.stderr
