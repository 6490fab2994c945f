"""Sharing another container's processes and IPC: what is seen, who has to run, what is left afterwards."""

import asyncio
import os

import pytest

from logd.errors import InvalidParameter, LogdError
from logd.spec import HostConfig, RestartPolicy


def namespace(container, kind):
    return os.readlink(f"/proc/{container.state.pid}/ns/{kind}")


def mounts_of(home):
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [line for line in file if str(home.config.exec_root) in line]


async def started(driver, *cmd, name=None, **host):
    container = await driver.create(*cmd, name=name, host=HostConfig(**host))
    await driver.engine.start(container.id)
    return container


async def remove_all(home, driver):
    for container in driver.engine.containers():
        await driver.engine.remove(container.id, force=True)
    async with asyncio.timeout(20):
        while mounts_of(home):
            await asyncio.sleep(0.02)


async def test_processes_and_ipc_of_another_container_are_shared_and_nothing_is_left(home):
    async with home.engine() as driver:
        donor = await started(driver, "sleep", "600", name="donor", ipc_mode="shareable", shm_size=1 << 20)
        joins = HostConfig(pid_mode="container:donor", ipc_mode="container:donor")
        joined = await driver.create("sh", "-c", "echo from joined >/dev/shm/note; sleep 600", host=joins)
        assert (joined.host.pid_mode, joined.host.ipc_mode) == (f"container:{donor.id}",) * 2
        await driver.engine.start(joined.id)
        assert [namespace(joined, kind) == namespace(donor, kind) for kind in ("pid", "ipc", "mnt", "uts")] == [
            True,
            True,
            False,
            False,
        ]
        third = HostConfig(ipc_mode=f"container:{joined.name}", pid_mode=f"container:{donor.id[:12]}")
        code, out, _, _ = await driver.run("sh", "-c", "cat /dev/shm/note; cat /proc/1/cmdline; ls /proc", host=third)
        assert code == 0
        assert out.startswith(b"from joined\nsleep\x00600")
        assert os.statvfs(f"/proc/{joined.state.pid}/root/dev/shm").f_blocks * 4096 == 1 << 20
        await driver.engine.stop(donor.id, timeout=0)
        assert await joined.wait("not-running") == 137
        with pytest.raises(LogdError, match=f"container {donor.id} is not running"):
            await driver.engine.start(joined.id)
        await driver.engine.start(donor.id)
        await driver.engine.start(joined.id)
        await remove_all(home, driver)


async def test_what_can_not_be_joined_is_refused_in_dockerds_words(home):
    async with home.engine() as driver:
        idle = await driver.create("true", name="idle")
        private = await started(driver, "sleep", "600", name="private")
        for host, words in (
            (HostConfig(pid_mode="container:idle"), f"container {idle.id} is not running"),
            (
                HostConfig(ipc_mode="container:idle"),
                f"can't join IPC of container {idle.id}: container {idle.id} is not",
            ),
            (HostConfig(ipc_mode="container:private"), f"can't join IPC of container {private.id}: non-shareable IPC"),
        ):
            container = await driver.create("true", host=host)
            with pytest.raises(LogdError, match=words):
                await driver.engine.start(container.id)
        for host in (HostConfig(pid_mode="container:nosuch"), HostConfig(ipc_mode="container:nosuch")):
            with pytest.raises(InvalidParameter, match="No such container: nosuch"):
                await driver.create("true", host=host)
        for host in (HostConfig(pid_mode="container:"), HostConfig(ipc_mode="sometimes")):
            with pytest.raises(LogdError, match=r"is not supported \(supported: .*container:NAME\)"):
                await driver.create("true", host=host)


async def test_after_a_boot_who_joins_starts_after_the_one_that_it_joins(home):
    always = {"restart_policy": RestartPolicy(name="always")}
    async with home.engine() as driver:
        donor = await started(driver, "sleep", "600", name="donor", ipc_mode="shareable", **always)
        joins = {"pid_mode": f"container:{donor.id}", "ipc_mode": f"container:{donor.id}"}
        joined = await started(driver, "sleep", "600", name="joined", **joins, **always)
    home.end_processes()
    async with home.engine() as driver:
        donor, joined = (driver.engine.get(name) for name in ("donor", "joined"))
        async with asyncio.timeout(30):
            while not (donor.state.has_process and joined.state.has_process):
                await asyncio.sleep(0.02)
        assert namespace(joined, "pid") == namespace(donor, "pid")
        await remove_all(home, driver)
