"""The engine over real processes: run, stop, kill, remove, wait, attach."""

import asyncio
import hashlib
import os
import signal
import time

import pytest

from logd.errors import Conflict, InvalidParameter, LogdError, NotFound, NotModified
from logd.record import STDOUT
from logd.spec import ContainerSpec, HostConfig, LogConfig, Mount, PortBinding


async def next_output(attachment, wanted):
    """Read until `wanted` has been printed."""
    seen = b""
    while wanted not in seen:
        runs = await asyncio.wait_for(attachment.read(), 20)
        assert runs, f"the output ended with {seen!r}"
        seen += b"".join(run.data for run in runs)
    return seen


async def test_a_container_runs_and_all_it_printed_and_its_exit_code_arrive(home):
    async with home.engine() as driver:
        code, stdout, stderr, container = await driver.run("sh", "-c", "echo out; echo err >&2; exit 3", name="web")
        assert (code, stdout, stderr) == (3, b"out\n", b"err\n")
        shown = driver.engine.inspect(container)
        assert shown["State"]["Status"] == "exited"
        assert shown["State"]["ExitCode"] == 3
        assert shown["State"]["FinishedAt"] > shown["State"]["StartedAt"] > shown["Created"]
        assert driver.engine.summary(container)["Status"].startswith("Exited (3) ")
        actions = driver.actions(container)
        assert [action for action, _ in actions] == ["create", "attach", "start", "die"]
        assert actions[-1][1] == {"exitCode": "3", "execDuration": "0", "image": "busybox", "name": "web"}


async def test_a_container_can_be_started_again_and_keeps_its_own_layer_and_its_log(home):
    async with home.engine() as driver:
        _, first, _, container = await driver.run("sh", "-c", "cat /seen 2>/dev/null; echo again >> /seen; echo done")
        async with driver.engine.attach(container.id) as attachment:
            await driver.engine.start(container.id)
            second = b"".join([run.data for run in await drain(attachment)])
        assert (first, second) == (b"done\n", b"again\ndone\n")
        assert container.run == 2


async def drain(attachment):
    runs = []
    while some := await asyncio.wait_for(attachment.read(), 20):
        runs += some
    return runs


async def test_rm_removes_everything_at_the_exit(home):
    async with home.engine() as driver:
        code, stdout, _, container = await driver.run("echo", "bye", name="gone", host=HostConfig(auto_remove=True))
        assert (code, stdout) == (0, b"bye\n")
        with pytest.raises(NotFound, match=r"^No such container: gone$"):
            driver.engine.get("gone")
        await driver.create("true", name="gone")
        assert [action for action, _ in driver.actions(container)] == ["create", "attach", "start", "die", "destroy"]
    assert len(os.listdir(home.config.data_root / "containers")) == 1
    assert os.listdir(home.config.data_root / "trash") == []
    assert os.listdir(home.config.exec_root / "containers") == []


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [("/no/such/file", 127, "no such file or directory"), ("nonsense", 127, "executable file not found in $PATH")],
)
async def test_a_missing_command_fails_the_start_and_the_container_stays_created(home, command, code, words):
    async with home.engine() as driver:
        container = await driver.create(command)
        with pytest.raises(LogdError) as failure:
            await driver.engine.start(container.id)
        assert words in str(failure.value)
        assert failure.value.status == 400
        state = driver.engine.inspect(container)["State"]
        assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", code, str(failure.value))
        assert not os.path.ismount(container.rootfs)
        assert not container.exec_dir.exists()


async def test_a_file_that_is_no_program_is_126(home):
    async with home.engine() as driver:
        container = await driver.create("/etc/passwd")
        with pytest.raises(LogdError, match="permission denied"):
            await driver.engine.start(container.id)
        assert container.state.exit_code == 126


async def test_a_start_that_fails_ends_waiters_and_attachments_and_removes_an_auto_remove_container(home):
    async with home.engine() as driver:
        container = await driver.create("nonsense", host=HostConfig(auto_remove=True))
        async with driver.engine.attach(container.id) as attachment:
            waiter = driver.engine.waiter(container.id, "removed")
            with pytest.raises(LogdError):
                await driver.engine.start(container.id)
            assert await asyncio.wait_for(attachment.read(), 5) == []
            assert await asyncio.wait_for(waiter, 5) == 127
        assert driver.engine.containers() == []


async def test_an_unknown_image_is_refused_in_the_words_on_which_the_command_line_pulls(home):
    async with home.engine() as driver:
        with pytest.raises(NotFound) as refusal:
            await driver.engine.create(None, ContainerSpec(image="nope", cmd=["true"]), HostConfig(), {})
        assert str(refusal.value) == "No such image: nope:latest"


async def test_a_refused_creation_leaves_no_name_and_no_folder(home):
    async with home.engine() as driver:
        await driver.create("true", name="web")
        with pytest.raises(Conflict, match='The container name "/web" is already in use by container'):
            await driver.create("true", name="web")
        with pytest.raises(InvalidParameter, match='plugin "x" not found'):
            await driver.create("true", name="other", host=HostConfig(log_config=LogConfig(type="x")))
        ports = {"80/tcp": [PortBinding(host_port="x")]}
        with pytest.raises(InvalidParameter, match="invalid port 'x'"):
            await driver.create("true", name="other", host=HostConfig(port_bindings=ports))
        await driver.create("true", name="other")
        assert len(os.listdir(home.config.data_root / "containers")) == 2


async def test_verbs_in_the_wrong_state_answer_as_docker_does(home):
    async with home.engine() as driver:
        engine = driver.engine
        container = await driver.create("sleep", "60", name="web")
        with pytest.raises(NotModified):
            await engine.stop("web")
        with pytest.raises(Conflict) as refusal:
            await engine.kill("web")
        assert str(refusal.value) == f"cannot kill container: web: container {container.id} is not running"
        await engine.start("web")
        with pytest.raises(NotModified):
            await engine.start("web")
        with pytest.raises(Conflict) as refusal:
            await engine.remove("web")
        assert str(refusal.value) == (
            'cannot remove container "/web": container is running: stop the container before removing or force remove'
        )
        await engine.remove("web", force=True)
        assert engine.containers() == []


async def test_kill_sends_the_signal_and_the_exit_code_tells_it(home):
    async with home.engine() as driver:
        container = await driver.create("sleep", "60")
        await driver.engine.start(container.id)
        began = time.monotonic()
        await driver.engine.kill(container.id)
        assert time.monotonic() - began < 2
        assert (container.state.running, container.state.exit_code, container.state.signal) == (False, 137, 9)
        assert ("kill", "9") in [(action, values.get("signal")) for action, values in driver.actions(container)]


async def test_a_container_is_stopped_by_its_stop_signal_and_killed_only_if_it_does_not_listen(home):
    script = "trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    async with home.engine() as driver:
        polite = await driver.create("sh", "-c", script, stop_signal="SIGUSR1")
        async with driver.engine.attach(polite.id) as attachment:
            await driver.engine.start(polite.id)
            await next_output(attachment, b"ready")
            await driver.engine.stop(polite.id)
            assert polite.state.exit_code == 5
            await next_output(attachment, b"got it")
        deaf = await driver.create("sleep", "60", stop_signal="SIGURG")
        await driver.engine.start(deaf.id)
        await driver.engine.stop(deaf.id, timeout=0)
        assert deaf.state.exit_code == 137
        sent = [values["signal"] for action, values in driver.actions(deaf) if action == "kill"]
        assert sent == [str(int(signal.SIGURG)), "9"]
        assert driver.actions(deaf)[-1][0] == "stop"


async def test_restart_stops_and_starts_also_a_container_with_rm(home):
    async with home.engine() as driver:
        container = await driver.create("sleep", "60", host=HostConfig(auto_remove=True))
        await driver.engine.start(container.id)
        first = container.state.pid
        await driver.engine.restart(container.id, timeout=0)
        assert container.state.running
        assert container.state.pid != first
        await driver.engine.remove(container.id, force=True)


async def test_a_rename_frees_the_old_name_and_outlives_the_daemon(home):
    async with home.engine() as driver:
        container = await driver.create("true", name="old")
        await driver.create("true", name="taken")
        with pytest.raises(Conflict, match=r"^Error when allocating new name: Conflict. The container name"):
            await driver.engine.rename("old", "taken")
        with pytest.raises(InvalidParameter, match="same name as its current name"):
            await driver.engine.rename("old", "/old")
        await driver.engine.rename("old", "new")
        assert driver.engine.get("new") is container
        await driver.create("true", name="old")
        assert driver.actions(container)[-1][1]["oldName"] == "/old"
    async with home.engine() as driver:
        assert driver.engine.get("new").id == container.id


async def test_stdin_reaches_the_container_to_its_end(home):
    data = os.urandom(3 << 20)
    async with home.engine() as driver:
        async with asyncio.timeout(60):
            container = await driver.create("cat", open_stdin=True, stdin_once=True)
            received = hashlib.sha256()
            async with driver.engine.attach(container.id, stdin=True) as attachment:
                await driver.engine.start(container.id)

                async def feed():
                    await attachment.write_stdin(data)
                    await attachment.close_stdin()

                feeding = asyncio.create_task(feed())
                while runs := await attachment.read():
                    for run in runs:
                        received.update(run.data)
                await feeding
        assert received.digest() == hashlib.sha256(data).digest()
        assert container.state.exit_code == 0


async def test_a_slow_reader_from_the_start_loses_nothing_though_the_log_keeps_little(home):
    count = 400_000
    options = LogConfig(type="local", config={"max-size": "1m", "max-file": "2"})
    async with home.engine() as driver:
        container = await driver.create("seq", str(count), host=HostConfig(log_config=options))
        received = bytearray()
        async with driver.engine.attach(container.id) as attachment:
            await driver.engine.start(container.id)
            while runs := await asyncio.wait_for(attachment.read(), 20):
                for run in runs:
                    assert run.stream == STDOUT
                    received += run.data
                await asyncio.sleep(0.005)
        assert bytes(received) == b"".join(b"%d\n" % number for number in range(1, count + 1))


async def test_who_attaches_later_sees_what_comes_from_then_on(home):
    script = "echo early; read line; echo late $line"
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", script, open_stdin=True)
        async with driver.engine.attach(container.id) as first:
            await driver.engine.start(container.id)
            await next_output(first, b"early\n")
            async with driver.engine.attach(container.id, stdin=True) as second:
                await second.write_stdin(b"words\n")
                assert await next_output(second, b"\n") == b"late words\n"
                assert await asyncio.wait_for(second.read(), 20) == []
            assert await next_output(first, b"\n") == b"late words\n"


async def test_a_container_without_a_log_can_be_attached_to(home):
    async with home.engine() as driver:
        code, stdout, _, _ = await driver.run("echo", "x", host=HostConfig(log_config=LogConfig(type="none")))
        assert (code, stdout) == (0, b"x\n")


async def test_an_attachment_that_waits_ends_when_the_container_is_removed(home):
    async with home.engine() as driver:
        container = await driver.create("true")
        async with driver.engine.attach(container.id) as attachment:
            reading = asyncio.create_task(attachment.read())
            await driver.engine.remove(container.id)
            assert await asyncio.wait_for(reading, 5) == []


async def test_top_shows_the_containers_processes_only(home):
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", "sleep 61 & echo ready; wait")
        async with driver.engine.attach(container.id) as attachment:
            await driver.engine.start(container.id)
            await next_output(attachment, b"ready")
        titles, rows = await driver.engine.top(container.id, "-eo pid,args")
        assert titles == ["PID", "COMMAND"]
        assert sorted(row[1] for row in rows) == ["sh -c sleep 61 & echo ready; wait", "sleep 61"]
        await driver.engine.remove(container.id, force=True)
        idle = await driver.create("true")
        with pytest.raises(Conflict, match="is not running"):
            await driver.engine.top(idle.id)


async def test_a_volume_of_the_image_starts_with_the_images_content_and_goes_with_its_container(home):
    async with home.engine() as driver:
        code, stdout, _, container = await driver.run(
            "sh", "-c", "cat /data/seed; echo mine > /data/own", volumes={"/data": {}}
        )
        assert (code, stdout) == (0, b"seed\n")
        (mount,) = driver.engine.inspect(container)["Mounts"]
        assert (mount["Type"], mount["Destination"], mount["RW"]) == ("volume", "/data", True)
        with open(os.path.join(mount["Source"], "own"), "rb") as file:
            assert file.read() == b"mine\n"
        await driver.engine.remove(container.id, volumes=True)
    assert os.listdir(home.config.data_root / "volumes") == []


async def test_a_folder_of_the_host_is_shown_and_never_removed(home, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "kept").write_text("kept")
    mount = Mount(type="bind", source=str(tmp_path / "host"), target="/host", read_only=True)
    async with home.engine() as driver:
        code, stdout, _, container = await driver.run("cat", "/host/kept", host=HostConfig(mounts=[mount]))
        assert (code, stdout) == (0, b"kept")
        assert driver.engine.inspect(container)["Mounts"][0]["RW"] is False
        await driver.engine.remove(container.id, volumes=True)
    assert (tmp_path / "host" / "kept").exists()


async def test_prune_removes_what_does_not_run_as_filtered(home):
    async with home.engine() as driver:
        running = await driver.create("sleep", "60", labels={"keep": "no"})
        await driver.engine.start(running.id)
        kept = await driver.create("true", labels={"keep": "yes"})
        await driver.run("sh", "-c", "echo 1234567 > /f")
        removed, freed = await driver.engine.prune({"label!": ["keep=yes"]})
        assert len(removed) == 1
        assert freed == 8
        assert {one.id for one in driver.engine.containers()} == {running.id, kept.id}
        with pytest.raises(InvalidParameter, match="invalid filter 'name'"):
            await driver.engine.prune({"name": ["x"]})
        await driver.engine.remove(running.id, force=True)


async def test_sizes_are_those_of_the_containers_own_layer_and_of_its_image(home):
    async with home.engine() as driver:
        _, _, _, container = await driver.run("sh", "-c", "printf 12345 > /f")
        shown = driver.engine.inspect(container, size=True)
        image = driver.images.resolve("busybox")
        assert (shown["SizeRw"], shown["SizeRootFs"]) == (5, 5 + image.size)
        assert "SizeRw" not in driver.engine.inspect(container)


async def test_while_a_removal_is_under_way_another_is_refused_and_the_container_cannot_start(home):
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", "trap '' TERM; sleep 60")
        await driver.engine.start(container.id)
        removing = asyncio.create_task(driver.engine.remove(container.id, force=True))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="already in progress"):
            await driver.engine.remove(container.id, force=True)
        await removing
        assert driver.engine.containers() == []


async def test_a_host_process_that_holds_the_output_does_not_hold_up_the_exit_or_the_next_start(home):
    async with home.engine() as driver:
        container = await driver.create("sh", "-c", "echo ready; read line; echo $line", open_stdin=True)
        async with driver.engine.attach(container.id, stdin=True) as attachment:
            await driver.engine.start(container.id)
            await next_output(attachment, b"ready")
            held = os.open(f"/proc/{container.state.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
            try:
                await attachment.write_stdin(b"end\n")
                waiter = driver.engine.waiter(container.id)
                assert await asyncio.wait_for(waiter, 10) == 0
                assert await next_output(attachment, b"end\n") == b"end\n"
                assert await asyncio.wait_for(attachment.read(), 5) == []
                os.write(held, b"after the end\n")
                await asyncio.wait_for(driver.engine.start(container.id), 20)
                assert container.state.running
            finally:
                os.close(held)
        await driver.engine.remove(container.id, force=True)


async def test_a_container_that_needed_too_much_memory_says_so(home):
    limited = HostConfig(memory=32 << 20, memory_swap=32 << 20)
    async with home.engine() as driver:
        code, _, _, container = await driver.run(
            "dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1", host=limited
        )
        assert (code, container.state.oom_killed) == (137, True)
        assert driver.engine.inspect(container)["State"]["OOMKilled"] is True
        assert [action for action, _ in driver.actions(container)][-2:] == ["oom", "die"]


async def test_the_list_shows_an_images_id_once_its_name_means_another(home):
    async with home.engine() as driver:
        container = await driver.create("true")
        assert driver.engine.summary(container)["Image"] == "busybox"
        driver.images.tag("busybox", "other", "latest")
        driver.images.remove("busybox", force=True, prune=False, in_use=driver.engine.image_users)
        assert driver.engine.summary(container)["Image"] == container.image_id
        assert driver.engine.inspect(container)["Config"]["Image"] == "busybox"
