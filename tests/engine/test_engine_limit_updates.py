"""`update`: the cgroup, container.json and the figures change together; what can't be is refused in dockerd's words."""

import json

import pytest
from engine_home import crash

from logd.container import FILE_NAME
from logd.engine.limit_updates import merge
from logd.errors import Conflict, InvalidParameter, LogdError, NotFound, Unsupported
from logd.runtime import cgroup
from logd.runtime.limits import host_support
from logd.runtime.oci import cgroup_path
from logd.spec import DeviceMapping, HostConfig, RestartPolicy, Ulimit

MB = 1 << 20


def memory_limit(container):
    """What the kernel holds the container to, in bytes."""
    folder = cgroup.container_folders(cgroup.detect(), cgroup_path(container.id))["memory"]
    names = ("memory.max", "memory.limit_in_bytes")
    return next(int((folder / name).read_text()) for name in names if (folder / name).exists())


def pids_limit(container):
    folder = cgroup.container_folders(cgroup.detect(), cgroup_path(container.id))["pids"]
    return (folder / "pids.max").read_text().strip()


def kept(container):
    return json.loads((container.dir / FILE_NAME).read_bytes())["host_config"]


async def test_the_limits_of_a_running_container_change_in_the_cgroup_on_disk_and_in_the_figures(home):
    async with home.engine() as driver:
        container = await driver.create("sleep", "600", host=HostConfig(memory=64 * MB))
        await driver.engine.start(container.id)
        assert driver.engine.use(container)[0].memory_limit == 64 * MB
        asked = HostConfig(memory=96 * MB, memory_swap=192 * MB, pids_limit=50, nano_cpus=500_000_000)
        assert await driver.engine.update(container.id, asked) == []
        assert (memory_limit(container), pids_limit(container)) == (96 * MB, "50")
        sample = driver.engine.use(container)[0]
        assert (sample.memory_limit, sample.pids_limit, sample.cpu_quota_us) == (96 * MB, 50, 50_000)
        assert driver.engine.samples.raw(container.id, "pids.max").strip() == b"50"
        shown = kept(container)
        assert (shown["Memory"], shown["MemorySwap"], shown["PidsLimit"]) == (96 * MB, 192 * MB, 50)
        await driver.engine.update(container.id, HostConfig(pids_limit=-1))
        assert (pids_limit(container), kept(container)["PidsLimit"]) == ("max", None)
        assert [action for action, _ in driver.actions(container)].count("update") == 2


async def test_the_limits_of_a_stopped_container_hold_from_its_next_start(home):
    async with home.engine() as driver:
        container = await driver.create("sleep", "600")
        await driver.engine.update(container.id, HostConfig(memory=32 * MB, memory_swap=32 * MB, cpu_shares=1))
        assert kept(container)["CpuShares"] == 2
        await driver.engine.start(container.id)
        assert memory_limit(container) == 32 * MB
        assert driver.engine.use(container)[0].memory_limit == 32 * MB


async def test_what_the_runtime_refuses_changes_nothing(home):
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", "head -c 30000000 /dev/zero >/dev/shm/x; echo full; sleep 600")
        async with driver.engine.attach(container.id) as attachment:
            await driver.engine.start(container.id)
            while b"full" not in b"".join(run.data for run in await attachment.read()):
                pass
        if host_support().v2:
            pytest.skip("v2 takes a limit below what is used, and kills")
        with pytest.raises(LogdError, match=f"Cannot update container {container.id}: ") as failure:
            await driver.engine.update(container.id, HostConfig(memory=8 * MB, memory_swap=8 * MB))
        assert failure.value.status == 500
        assert kept(container)["Memory"] == 0
        assert driver.engine.use(container)[0].memory_limit == 0


async def test_a_paused_container_stays_paused_and_a_daemon_that_is_killed_leaves_the_new_limits(home):
    body = """
container = await driver.create("sleep", "600")
await driver.engine.start(container.id)
await driver.engine.pause(container.id)
await driver.engine.update(container.id, HostConfig(memory=48 << 20, memory_swap=-1))
"""
    crash(home, body)
    async with home.engine() as driver:
        (container,) = driver.engine.containers()
        assert (container.state.paused, container.host.memory, memory_limit(container)) == (True, 48 * MB, 48 * MB)
        assert driver.engine.use(container)[0].memory_limit == 48 * MB


@pytest.mark.parametrize(
    ("now", "asked", "words"),
    [
        (HostConfig(), HostConfig(memory=64 * MB), "update the memoryswap at the same time"),
        (HostConfig(memory=64 * MB, memory_swap=-1), HostConfig(memory=32 * MB), "update the memoryswap"),
        (HostConfig(nano_cpus=1), HostConfig(cpu_quota=2000), "CPU Quota cannot be updated as NanoCPUs has already"),
        (HostConfig(nano_cpus=1), HostConfig(cpu_period=2000), "CPU Period cannot be updated as NanoCPUs has already"),
        (HostConfig(cpu_quota=1), HostConfig(nano_cpus=1), "Nano CPUs cannot be updated as CPU Quota has already"),
        (HostConfig(cpu_period=1), HostConfig(nano_cpus=1), "Nano CPUs cannot be updated as CPU Period has already"),
        (
            HostConfig(auto_remove=True),
            HostConfig(restart_policy=RestartPolicy(name="always")),
            "AutoRemove is enabled",
        ),
    ],
)
def test_what_does_not_go_with_what_is_set_is_a_conflict(now, asked, words):
    with pytest.raises(Conflict, match=words):
        merge(now, asked)


@pytest.mark.parametrize("swap", [MB, 31 * MB])
def test_swap_below_the_memory_that_is_set_already_is_refused(swap):
    with pytest.raises(InvalidParameter, match="Minimum memoryswap limit should be larger than memory limit"):
        merge(HostConfig(memory=32 * MB, memory_swap=64 * MB), HostConfig(memory_swap=swap))


def test_what_is_not_asked_for_stays():
    now = HostConfig(memory=32 * MB, memory_swap=64 * MB, pids_limit=9, restart_policy=RestartPolicy(name="always"))
    assert merge(now, HostConfig()) == now
    assert merge(now, HostConfig(pids_limit=0)).pids_limit is None


async def test_what_is_wrong_or_fixed_is_refused_before_anything_changes(home):
    async with home.engine() as driver:
        container = await driver.create("true")
        for asked, error, words in (
            (HostConfig(memory=1000), InvalidParameter, "Minimum memory limit allowed is 6MB"),
            (HostConfig(cpuset_cpus="900"), InvalidParameter, "Requested CPUs are not available"),
            (HostConfig(devices=[DeviceMapping()]), Unsupported, "Devices of a container can't be changed"),
            (HostConfig(ulimits=[Ulimit()]), Unsupported, "Ulimits of a container can't be changed"),
            (HostConfig(oom_kill_disable=True), Unsupported, "OomKillDisable of a container can't be changed"),
        ):
            with pytest.raises(error, match=words):
                await driver.engine.update(container.id, asked)
        with pytest.raises(NotFound):
            await driver.engine.update("nosuch", HostConfig())
        assert "update" not in [action for action, _ in driver.actions(container)]
