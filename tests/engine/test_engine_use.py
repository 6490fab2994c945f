"""What containers use is counted once for each run, whoever is killed when, and is seen for a time after a removal."""

import asyncio
import os
import subprocess
from dataclasses import replace

import pytest
from engine_home import crash, is_alive, wait_for

from logd.container import read_record
from logd.engine import use
from logd.errors import LogdError
from logd.sampling.registry import Samples
from logd.spec import HostConfig

BURN = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"
UNTIL_SAVED = """
container = await driver.create("sh", "-c", {command!r}, name="web")
await driver.engine.start("web")
world, lifecycle = driver.engine._world, driver.engine._lifecycle

async def last_step(*_, **__):
    print(container.usage.cpu_ns, container.usage_run, flush=True)
    crash()

{target} = last_step
await asyncio.wait_for(driver.engine.waiter("web", "next-exit"), 20)
await asyncio.sleep(20)
"""


LINK = "ip link add name probe0 type veth peer name probe1"
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


async def finished(container):
    """Return when the last run is counted and the runtime has deleted what it kept of it."""
    async with asyncio.timeout(30):
        while container.usage_run < container.run:
            await asyncio.sleep(0.01)
        if container.cleanup is not None:
            await asyncio.shield(container.cleanup)


async def test_each_run_is_added_once_from_a_last_look(home):
    async with home.engine() as driver:
        _, _, _, container = await driver.run("sh", "-c", BURN)
        await finished(container)
        first = container.usage
        assert 0 < first.cpu_ns == container.last_sample.counters.cpu_ns
        assert container.id not in driver.engine.samples
        assert driver.engine.use(container) == (container.last_sample, first)
        waiter = driver.engine.waiter(container.id, "next-exit")
        await driver.engine.start(container.id)
        assert driver.engine.use(container)[1].cpu_ns > first.cpu_ns
        await waiter
        await finished(container)
        assert container.usage.cpu_ns == first.cpu_ns + container.last_sample.counters.cpu_ns
        record = read_record(container.dir)
        assert (record.usage.cpu_ns, record.usage_run) == (container.usage.cpu_ns, 2)


@pytest.mark.parametrize("target", ["world.writer.saved", "lifecycle._runtime_delete"])
async def test_a_daemon_that_is_killed_after_the_last_look_counts_a_run_once(home, target):
    counted, run = map(int, crash(home, UNTIL_SAVED.format(command=BURN, target=target)))
    assert counted > 0
    async with home.engine() as driver:
        container = driver.engine.get("web")
        await finished(container)
        assert (container.usage.cpu_ns, container.usage_run) == (counted, run)
        assert container.id not in driver.engine.samples


async def test_a_run_that_ends_without_a_daemon_is_counted_by_the_next(home):
    body = f"""
container = await driver.create("sh", "-c", {BURN!r}, name="web")
await driver.engine.start("web")
print(container.state.pid, flush=True)
"""
    (pid,) = crash(home, body)
    wait_for(lambda: not is_alive(int(pid)))
    async with home.engine() as driver:
        container = driver.engine.get("web")
        await finished(container)
        assert (container.usage.cpu_ns > 0, container.usage_run) == (True, 1)


async def test_a_run_that_is_adopted_is_counted_whole(home):
    body = """
container = await driver.create("sh", "-c", "while :; do :; done", name="web")
await driver.engine.start("web")
while driver.engine.use(container)[1].cpu_ns < 50_000_000:
    await asyncio.sleep(0.01)
print(driver.engine.use(container)[1].cpu_ns, flush=True)
"""
    before = int(crash(home, body)[0])
    home.config = replace(home.config, cgroup_parent="/elsewhere")  # for containers that start from now on
    async with home.engine() as driver:
        container = driver.engine.get("web")
        assert driver.engine.samples.read(container.id).counters.cpu_ns >= before
        assert driver.engine.cgroup_path(container) == f"/logd/{container.id}"
        await driver.engine.kill("web")
        await finished(container)
        assert container.usage.cpu_ns >= before
        assert container.usage.cpu_ns == container.last_sample.counters.cpu_ns


async def test_the_interfaces_of_a_process_that_took_over_a_number_are_not_a_containers(home):
    async with home.engine() as driver:
        container = await driver.create("sleep", "1000", host=HostConfig(network_mode="none"))
        await driver.engine.start(container.id)
        other = subprocess.Popen(["unshare", "--net", "sh", "-c", f"{LINK} && echo ready && exec cat"], **PIPES)
        assert other.stdout.readline() == b"ready\n"
        driver.engine.samples.finish(container.id)
        driver.engine._world.use.begin(container, other.pid)
        assert driver.engine.samples.read(container.id).counters.interfaces == {}
        driver.engine.samples.finish(container.id)
        driver.engine._world.use.begin(container, container.state.pid)
        assert b"lo:" in driver.engine.samples.raw(container.id, "net/dev")
        other.communicate()
        await driver.engine.kill(container.id)


async def test_waiters_do_not_wait_for_the_last_look(home, monkeypatch):
    answered = []
    async with home.engine() as driver:
        container = await driver.create("true")
        waiter = driver.engine.waiter(container.id, "next-exit")
        end = driver.engine._world.use.end

        def observed(one):
            answered.append(waiter.done())
            end(one)

        monkeypatch.setattr(driver.engine._world.use, "end", observed)
        await driver.engine.start(container.id)
        await asyncio.wait_for(waiter, 20)
        await finished(container)
        assert answered == [True]


async def test_a_removed_container_is_seen_for_a_time_under_its_last_name(home, monkeypatch):
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", BURN, host=HostConfig(auto_remove=True), name="short")
        waiter = driver.engine.waiter(container.id, "removed")
        await driver.engine.start(container.id)
        await driver.engine.rename("short", "brief")
        await asyncio.wait_for(waiter, 20)
        assert [one.name for one in driver.engine.departed()] == ["brief"]
        at_removal = driver.engine.use(container)[1].cpu_ns
        assert at_removal > 0
        async with asyncio.timeout(20):
            while container.id in driver.engine.samples:
                await asyncio.sleep(0.01)
        assert container.last_sample is not None
        assert driver.engine.use(container)[1].cpu_ns >= at_removal
        monkeypatch.setattr(use, "KEEP_S", 0.0)
        assert driver.engine.departed() == []


def test_of_very_many_removed_containers_the_oldest_is_dropped(home):
    keeping = use.Use(home.config, Samples())
    names = [f"container {number}" for number in range(use.MAX_DEPARTED + 1)]
    for name in names:
        keeping.depart(name)
    assert keeping.departed() == names[1:]


async def test_a_start_that_fails_is_counted_too_and_leaves_no_descriptor(home):
    async with home.engine() as driver:
        container = await driver.create("/no/such/command")
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(LogdError):
            await driver.engine.start(container.id)
        assert container.id not in driver.engine.samples
        assert container.usage_run == 1
        assert len(os.listdir("/proc/self/fd")) <= before + 3


async def test_a_container_counts_while_it_runs_and_is_gone_from_the_samples_after(home):
    async with home.engine() as driver:
        container = await driver.create(
            "sh", "-c", "while :; do :; done", host=HostConfig(memory=64 << 20, network_mode="none")
        )
        await driver.engine.start(container.id)
        async with asyncio.timeout(20):
            while driver.engine.use(container)[1].cpu_ns < 100_000_000:
                await asyncio.sleep(0.01)
        sample = driver.engine.samples.read(container.id)
        assert (sample.memory_limit, sample.pids) == (64 << 20, 1)
        assert sample.counters.interfaces == {}
        await driver.engine.kill(container.id)
        await finished(container)
        assert driver.engine.samples.read(container.id) is None
