"""Restart policies on real containers: the wait, what ends it, and what a crash loop leaves behind."""

import asyncio
import contextlib
import json
import os
from pathlib import Path

import pytest
from engine_home import crash, is_alive

from logd.container import FILE_NAME
from logd.engine import restarts
from logd.errors import Conflict, InvalidParameter, LogdError, NotModified
from logd.spec import HostConfig, RestartPolicy
from logd.units import NS

ALWAYS = HostConfig(restart_policy=RestartPolicy(name="always"))
ONCE = ("sh", "-c", "[ -e /ran ] && exec sleep 600; touch /ran; exit 3")
"""Ends at its first run only."""


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def long_wait(monkeypatch):
    """Let who ended wait for an hour, so that a test has its time."""
    monkeypatch.setattr(restarts, "FIRST_WAIT_NS", 3600 * NS)
    monkeypatch.setattr(restarts, "LONGEST_WAIT_NS", 3600 * NS)


async def waiting(driver, *command, **asked):
    """Return a container that waits for its restart."""
    container = await driver.create(*(command or ("sh", "-c", "exit 3")), **{"host": ALWAYS, **asked})
    await driver.engine.start(container.id)
    await until(lambda: container.state.restarting and not container.settling)
    return container


def shown(driver, container):
    state = driver.engine.inspect(container)["State"]
    return state["Status"], state["Running"], state["Restarting"], state["Pid"], state["ExitCode"]


WAITS = ("restarting", True, True, 0, 3)
ENDED = ("exited", False, False, 0, 3)


def actions(driver, container):
    return [action for action, _ in driver.actions(container)]


async def test_who_ends_is_started_again_and_counted(home):
    async with home.engine() as driver:
        container = await driver.create(*ONCE, name="web", host=ALWAYS)
        await driver.engine.start("web")
        await until(lambda: container.run == 2 and container.state.has_process)
        assert driver.engine.inspect(container)["RestartCount"] == 1
        assert actions(driver, container) == ["create", "start", "die", "start"]
        assert container.state.started_ns - container.state.finished_ns >= restarts.FIRST_WAIT_NS
        await driver.engine.stop("web", timeout=0)
        assert (container.state.status, container.restart_count) == ("exited", 1)


async def test_on_failure_ends_after_its_number_of_restarts_and_at_once_without_a_failure(home):
    async with home.engine() as driver:
        twice = HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=2))
        failing = await driver.create("false", host=twice)
        fine = await driver.create("true", host=twice)
        await driver.engine.start(failing.id)
        await driver.engine.start(fine.id)
        await until(lambda: failing.run == 3 and failing.state.status == "exited")
        assert (failing.restart_count, fine.restart_count, fine.state.status) == (2, 0, "exited")


async def test_who_waits_is_running_and_restarting_without_a_process(home, long_wait):
    async with home.engine() as driver:
        container = await waiting(driver)
        assert shown(driver, container) == WAITS
        assert driver.engine.summary(container)["Status"].startswith("Restarting (3) ")
        waiter = driver.engine.waiter(container.id)
        assert not waiter.done(), "it counts as running"
        with pytest.raises(Conflict, match="is restarting, wait until the container is running"):
            await driver.engine.top(container.id)
        with pytest.raises(Conflict, match="container is restarting: stop the container before removing or force"):
            await driver.engine.remove(container.id)
        await driver.engine.stop(container.id)
        assert await asyncio.wait_for(waiter, 10) == 3


@pytest.mark.parametrize(("end", "last"), [("stop", ["stop"]), ("kill", [])])
async def test_a_stop_and_a_kill_end_the_wait(home, long_wait, end, last):
    async with home.engine() as driver:
        container = await waiting(driver)
        await getattr(driver.engine, end)(container.id)
        assert shown(driver, container) == ENDED
        assert actions(driver, container) == ["create", "start", "die", *last]
        with pytest.raises(NotModified):
            await driver.engine.stop(container.id)
    async with home.engine() as driver:
        await until(lambda: driver.engine.get(container.id).state.restarting)  # `always`: until the next daemon


async def test_a_start_ends_the_wait_at_once_and_counts_anew(home, long_wait):
    async with home.engine() as driver:
        container = await waiting(driver, *ONCE)
        assert container.restart_count == 1
        await driver.engine.start(container.id)
        assert (container.state.status, container.restart_count) == ("running", 0)
        await driver.engine.kill(container.id)
        assert container.state.status == "exited"


async def test_a_restart_ends_the_wait(home, long_wait):
    async with home.engine() as driver:
        container = await waiting(driver, *ONCE)
        await driver.engine.restart(container.id)
        assert container.state.status == "running"
        assert actions(driver, container)[2:] == ["die", "stop", "start", "restart"]


async def test_a_removal_by_force_ends_the_wait_and_a_running_one_does_not_come_back(home, long_wait):
    async with home.engine() as driver:
        waits = await waiting(driver)
        runs = await driver.create("sleep", "600", host=ALWAYS)
        await driver.engine.start(runs.id)
        await driver.engine.remove(waits.id, force=True)
        await driver.engine.remove(runs.id, force=True)
        assert driver.engine.containers() == []
        assert not driver.engine._lifecycle.restarts._timers
        assert actions(driver, runs)[-3:] == ["kill", "die", "destroy"]


async def test_a_signal_that_is_no_stop_leaves_the_policy_in_force(home):
    async with home.engine() as driver:
        script = "trap 'exit 5' HUP; [ -e /ran ] && exec sleep 600; touch /ran; echo up; while :; do sleep 0.05; done"
        container = await driver.create("sh", "-c", script, host=ALWAYS, stop_signal="SIGTERM")
        async with driver.engine.attach(container.id) as attachment:
            await driver.engine.start(container.id)
            await asyncio.wait_for(attachment.read(), 20)
        await driver.engine.kill(container.id, "HUP")
        await until(lambda: container.run == 2 and container.state.has_process)


async def test_a_restart_that_fails_is_the_last_and_says_why(home, tmp_path):
    async with home.engine() as driver:
        command = tmp_path / "command"
        command.write_text("#!/bin/sh\nrm /w/command\nexit 3\n")
        command.chmod(0o755)
        host = HostConfig(restart_policy=RestartPolicy(name="always"), binds=[f"{tmp_path}:/w"])
        container = await driver.create("/w/command", host=host)
        await driver.engine.start(container.id)
        await until(lambda: container.state.error)
        assert "no such file" in container.state.error
        assert shown(driver, container) == ENDED
        assert container.restart_count == 1


async def test_a_first_start_that_fails_is_not_tried_again(home):
    async with home.engine() as driver:
        container = await driver.create("/nowhere", host=ALWAYS)
        with pytest.raises(LogdError):
            await driver.engine.start(container.id)
        assert (container.state.status, container.restart_count) == ("created", 0)
        assert not driver.engine._lifecycle.restarts._timers


async def test_the_policy_can_be_changed_and_holds_from_the_next_exit(home, long_wait):
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", "echo up; read line; exit 3", open_stdin=True)
        await driver.engine.start(container.id)
        await driver.engine.update(container.id, HostConfig(restart_policy=RestartPolicy(name="unless-stopped")))
        async with driver.engine.attach(container.id, stdin=True) as attachment:
            await attachment.write_stdin(b"\n")
            await until(lambda: container.state.restarting and not container.settling)
        assert actions(driver, container) == ["create", "start", "update", "attach", "die"]
        kept = json.loads((container.dir / FILE_NAME).read_bytes())
        assert kept["host_config"]["RestartPolicy"]["Name"] == "unless-stopped"
        with pytest.raises(InvalidParameter, match="unknown policy 'sometimes'"):
            await driver.engine.update(container.id, HostConfig(restart_policy=RestartPolicy(name="sometimes")))
        passing = await driver.create("true", host=HostConfig(auto_remove=True))
        with pytest.raises(Conflict, match="because AutoRemove is enabled for the container"):
            await driver.engine.update(passing.id, HostConfig(restart_policy=RestartPolicy(name="always")))


async def test_an_attachment_ends_with_its_run_and_the_log_holds_all_runs(home):
    async with home.engine() as driver:
        script = "echo run; [ -e /ran ] && exec sleep 600; touch /ran; exit 3"
        container = await driver.create("sh", "-c", script, host=ALWAYS)
        output = b""
        async with driver.engine.attach(container.id) as attachment:
            await driver.engine.start(container.id)
            while runs := await asyncio.wait_for(attachment.read(), 20):
                output += b"".join(run.data for run in runs)
        assert output == b"run\n"
        log = container.log_dir / "0000000001.stdout"
        await until(lambda: log.read_bytes() == b"run\nrun\n")


WAIT = """
from logd.engine import restarts
from logd.spec import RestartPolicy
restarts.FIRST_WAIT_NS = {wait_ns}
host = HostConfig(restart_policy=RestartPolicy(name="{policy}"))
container = await driver.create("sh", "-c", {script!r}, name="web", host=host)
await driver.engine.start("web")
while not (container.state.restarting and not container.settling):
    await asyncio.sleep(0.01)
await driver.engine._world.writer.saved(container)
"""


async def test_a_wait_outlives_the_daemon(home):
    crash(home, WAIT.format(wait_ns=3600 * NS, policy="unless-stopped", script=ONCE[2]))
    async with home.engine() as driver:
        container = driver.engine.get("web")
        assert shown(driver, container) == WAITS
        assert (container.restart_count, container.state.restart_wait_ns) == (1, 3600 * NS)
        await driver.engine.start("web")
        assert container.state.status == "running"


async def test_a_wait_that_is_over_when_the_next_daemon_comes_ends_then(home):
    crash(home, WAIT.format(wait_ns=NS, policy="on-failure", script=ONCE[2]))
    async with home.engine() as driver:
        container = driver.engine.get("web")
        await until(lambda: container.state.has_process)
        assert container.restart_count == 1


@pytest.mark.parametrize(
    "death",
    ["from logd.runtime.shim_client import Shim; Shim.start = crash", "driver.engine._lifecycle.took_off = crash"],
)
async def test_a_restart_that_the_end_of_the_daemon_interrupts_takes_place_all_the_same(home, death):
    crash(
        home,
        f"""
from logd.spec import RestartPolicy
host = HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=1))
container = await driver.create("sh", "-c", {ONCE[2]!r}, name="web", host=host)
await driver.engine.start("web")
{death}
await asyncio.sleep(60)
""",
    )
    async with home.engine() as driver:
        container = driver.engine.get("web")
        await until(lambda: container.state.has_process)
        assert (container.restart_count, container.state.error) == (1, "")
        assert is_alive(container.state.pid)


def shims(home):
    """Return the pids of the shims that have not gone."""
    found = []
    for pid in filter(home._is_ours, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):  # it goes just now
            if Path(f"/proc/{pid}/comm").read_text() == "logd-shim\n" and is_alive(pid):
                found.append(pid)
    return found


async def test_a_loop_of_crashes_leaves_nothing_behind(home, monkeypatch):
    monkeypatch.setattr(restarts, "FIRST_WAIT_NS", NS // 1000)
    monkeypatch.setattr(restarts, "LONGEST_WAIT_NS", NS // 1000)
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", "echo run; exit 3", host=ALWAYS)
        await driver.engine.start(container.id)

        async def settled(count):
            await until(lambda: container.restart_count >= count)
            await driver.engine.stop(container.id, timeout=0)
            await asyncio.shield(container.cleanup)
            await until(lambda: not shims(home))
            mounts = Path("/proc/self/mountinfo").read_text().count(str(home.config.data_root))
            exec_dirs = os.listdir(home.config.exec_root / "containers")
            return mounts, exec_dirs, len(os.listdir("/proc/self/fd"))

        early = await settled(2)
        await driver.engine.start(container.id)
        assert await settled(12) == early
        assert early[:2] == (0, [])
        assert not list(Path("/sys/fs/cgroup").glob(f"**/{container.id}"))
