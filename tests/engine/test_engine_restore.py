"""A daemon that comes back finds everything, however it and the containers ended."""

import asyncio
import json
import os
import shutil
import subprocess
import time

import pytest
from engine_home import Home, crash, is_alive, wait_for

from logd.container import FILE_NAME
from logd.errors import LogdError, NotFound

START = """
container = await driver.create({command}, name="web")
await driver.engine.start("web")
print(container.state.pid, container.state.started_ns, flush=True)
await asyncio.sleep({pause})
"""


def start(*command, pause=0.0):
    return START.format(command=", ".join(map(repr, command)), pause=pause)


async def test_a_container_that_runs_is_adopted_and_obeys(home):
    pid, started_ns = map(int, crash(home, start("sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done")))
    async with home.engine() as driver:
        container = driver.engine.get("web")
        assert (container.state.running, container.state.pid) == (True, pid)
        waiter = driver.engine.waiter("web", "next-exit")
        await driver.engine.kill("web", "TERM")
        assert await asyncio.wait_for(waiter, 10) == 4
        assert container.state.finished_ns > container.state.started_ns
        assert abs(container.state.started_ns - started_ns) < 5_000_000_000


async def test_an_exit_while_there_was_no_daemon_is_recorded_with_its_code_and_its_time(home):
    crash(home, start("sh", "-c", "sleep 0.3; exit 17"))
    await asyncio.sleep(1)
    back_ns = time.time_ns()
    async with home.engine() as driver:
        container = driver.engine.get("web")
        state = driver.engine.inspect(container)["State"]
        assert (state["Status"], state["ExitCode"], state["Error"]) == ("exited", 17, "")
        assert container.state.started_ns < container.state.finished_ns < back_ns - 400_000_000
        assert [action for action, _ in driver.actions(container)] == ["die"]
        await driver.engine.start("web")
        assert await asyncio.wait_for(driver.engine.waiter("web"), 10) == 17


async def test_output_of_an_adopted_container_reaches_who_attaches(home):
    crash(home, start("sh", "-c", "while :; do echo tick; sleep 0.05; done"))
    async with home.engine() as driver:
        async with driver.engine.attach("web") as attachment:
            runs = await asyncio.wait_for(attachment.read(), 10)
            assert runs[0].data.startswith(b"tick\n")
        await driver.engine.remove("web", force=True)


async def test_after_a_reboot_what_ran_has_ended_with_an_unknown_exit(home):
    (pid, _) = crash(home, start("sleep", "600"))
    home.end_processes()
    wait_for(lambda: not is_alive(pid))
    shutil.rmtree(home.config.exec_root)
    home.config.exec_root.mkdir()
    async with home.engine() as driver:
        state = driver.engine.inspect(driver.engine.get("web"))["State"]
        assert (state["Status"], state["ExitCode"], state["Running"]) == ("exited", 255, False)
        assert "unknown" in state["Error"]
        assert state["FinishedAt"] > state["StartedAt"]
        await driver.engine.start("web")
        await driver.engine.remove("web", force=True)


async def test_a_pid_that_belongs_to_another_process_now_is_left_alone(home):
    crash(home, start("sleep", "600"))
    home.end_processes()
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        record = next((home.config.data_root / "containers").glob(f"*/{FILE_NAME}"))
        content = json.loads(record.read_text())
        content["state"]["pid"] = stranger.pid
        record.write_text(json.dumps(content))
        for state_file in (home.config.exec_root / "containers").glob("*/shim.json"):
            state = json.loads(state_file.read_text())
            state["pid"] = stranger.pid
            state_file.write_text(json.dumps(state))
        async with home.engine() as driver:
            assert driver.engine.get("web").state.exit_code == 255
            await driver.engine.remove("web", force=True)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_rm_holds_when_the_exit_came_while_there_was_no_daemon(home):
    crash(
        home,
        """
container = await driver.create("sleep", "0.2", name="web", host=HostConfig(auto_remove=True))
await driver.engine.start("web")
""",
    )
    await asyncio.sleep(0.6)
    async with home.engine() as driver:
        for _ in range(100):
            if not driver.engine.containers():
                break
            await asyncio.sleep(0.05)
        with pytest.raises(NotFound):
            driver.engine.get("web")
    assert os.listdir(home.config.data_root / "containers") == []


async def test_a_start_that_was_interrupted_before_the_command_ran_is_undone(home):
    crash(
        home,
        """
from logd.runtime.shim_client import Shim
Shim.start = crash
container = await driver.create("sh", "-c", "echo ran > /ran; sleep 600", name="web")
await driver.engine.start("web")
""",
    )
    async with home.engine() as driver:
        container = driver.engine.get("web")
        assert container.state.status == "created"
        assert "interrupted" in container.state.error
        assert not (container.upper / "ran").exists()
        await driver.engine.start("web")
        assert container.state.running
        await driver.engine.remove("web", force=True)


async def test_a_start_that_was_interrupted_after_the_command_ran_counts(home):
    crash(
        home,
        """
from logd.engine.lifecycle import Lifecycle
Lifecycle.took_off = crash
container = await driver.create("sleep", "600", name="web")
await driver.engine.start("web")
""",
    )
    async with home.engine() as driver:
        container = driver.engine.get("web")
        assert container.state.running
        assert container.state.started_ns
        await driver.engine.remove("web", force=True)


async def test_what_is_left_of_an_interrupted_creation_or_removal_is_cleared_away(home):
    async with home.engine() as driver:
        kept = await driver.create("true", name="kept")
    containers, trash = home.config.data_root / "containers", home.config.data_root / "trash"
    (containers / ("d" * 64) / "upper").mkdir(parents=True)
    (trash / ("e" * 64) / "upper").mkdir(parents=True)
    async with home.engine() as driver:
        assert [one.id for one in driver.engine.containers()] == [kept.id]
    assert os.listdir(containers) == [kept.id]
    assert os.listdir(trash) == []


async def test_a_removal_that_was_interrupted_before_it_took_place_can_be_asked_for_again(home):
    async with home.engine() as driver:
        container = await driver.create("true", name="web")
        container.state.removing = True
        await driver.engine._world.writer.saved(container)
    async with home.engine() as driver:
        assert driver.engine.get("web").state.status == "created"
        await driver.engine.remove("web")
        assert driver.engine.containers() == []


async def test_a_container_that_cannot_be_read_is_left_out_and_left_alone(home, caplog):
    async with home.engine() as driver:
        newer = await driver.create("true", name="newer")
        await driver.create("true", name="kept")
    record = newer.dir / FILE_NAME
    record.write_bytes(record.read_bytes().replace(b'"version": 2', b'"version": 7'))
    async with home.engine() as driver:
        assert [one.name for one in driver.engine.containers()] == ["kept"]
        assert "version 7, written by a newer logd" in caplog.text
    assert record.exists()


async def test_a_disk_that_refuses_is_an_error_of_the_creation_and_leaves_nothing(home, monkeypatch):
    async with home.engine() as driver:

        def refuse(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("logd.engine.saving.write_record", refuse)
        with pytest.raises(LogdError, match="No space left on device"):
            await driver.create("true", name="web")
        monkeypatch.undo()
        assert os.listdir(home.config.data_root / "containers") == []
        await driver.create("true", name="web")


async def test_a_state_that_could_not_be_written_is_written_later(home, monkeypatch):
    async with home.engine() as driver:
        container = await driver.create("true", name="web")
        monkeypatch.setattr("logd.engine.saving.RETRY_FIRST_S", 0.05)
        from logd.engine import saving

        real, failures = saving.write_record, iter([OSError(5, "I/O error")])

        def fail_once(folder, data):
            for failure in failures:
                raise failure
            real(folder, data)

        monkeypatch.setattr("logd.engine.saving.write_record", fail_once)
        container.name = "other"
        driver.engine._world.writer.save(container)
        async with asyncio.timeout(10):
            while json.loads((container.dir / FILE_NAME).read_bytes())["name"] != "other":
                await asyncio.sleep(0.02)


async def test_on_a_frozen_disk_kill_returns_and_the_exit_is_kept_for_later(tmp_path, frozen_home):
    home, freeze, thaw = frozen_home
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", "while :; do echo x; done", name="web")
        await driver.engine.start("web")
        pid = container.state.pid
        await asyncio.sleep(0.3)
        freeze()
        try:
            began = time.monotonic()
            await asyncio.wait_for(driver.engine.kill("web"), 10)
            assert time.monotonic() - began < 4
            assert not is_alive(pid)
            assert driver.engine.summary(container)["Id"] == container.id
        finally:
            thaw()
        assert await asyncio.wait_for(driver.engine.waiter("web"), 20) == 137
        await driver.engine.remove("web")


@pytest.fixture
def frozen_home(tmp_path):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    place = tmp_path / "mnt"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    home = Home(place / "data")
    frozen = []

    def freeze():
        subprocess.run(["fsfreeze", "--freeze", place], check=True)
        frozen.append(True)

    def thaw():
        if frozen:
            subprocess.run(["fsfreeze", "--unfreeze", place], check=True)
            frozen.clear()

    yield home, freeze, thaw
    thaw()
    home.close()
    subprocess.run(["umount", place], check=True)
