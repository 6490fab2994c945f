"""The shims of execs as the daemon meets them: real processes in a real container, no engine."""

import asyncio
import contextlib
import json
import os
import resource
import secrets
import shutil
import signal
from pathlib import Path

import pytest
from bundle import delete, make_launch
from killing import kill_all, processes_named

from logd.runtime.exec_client import LOST_EXIT, ExecFailed, ExecSession, find_exec, launch_exec
from logd.runtime.exec_protocol import PROCESS_FILE, TTY, ExecExit, ExecLaunch, read_exit

# crun 1.8 refuses a unified tree with the hugetlb controller, so it gets a mount namespace without that tree.
WITHOUT_UNIFIED = 'umount /sys/fs/cgroup/unified; exec crun "$@"'
CRUN = (shutil.which("unshare") or "unshare", "-m", "/bin/sh", "-c", WITHOUT_UNIFIED, "sh")
on_each_runtime = pytest.mark.parametrize("box", ["runc", "crun"], indirect=True)
LONG_S = 30.0
OUTPUTS = ("stdout", "stderr")


class Box:
    """A container that sleeps, and execs in it."""

    def __init__(self, launch, shim, supervisor, exec_root):
        self.launch = launch
        self.shim = shim
        self.supervisor = supervisor
        self.exec_root = exec_root
        self.sessions = []

    def order(self, *argv, streams=OUTPUTS, size=(0, 0), rlimits=()):
        folder = Path(self.launch.exec_dir) / "execs" / secrets.token_hex(32)
        folder.mkdir(parents=True)
        process = json.loads((Path(self.launch.exec_dir) / "config.json").read_text())["process"]
        process |= {"args": list(argv), "terminal": streams == (TTY,)}
        process["rlimits"] = [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in rlimits]
        (folder / PROCESS_FILE).write_text(json.dumps(process))
        return ExecLaunch(str(folder), self.launch.container_id, self.launch.runtime, streams, size)

    async def begin(self, *argv, **more) -> tuple[ExecSession, dict[str, int], str]:
        order = self.order(*argv, **more)
        session = await launch_exec(self.supervisor, order)
        self.sessions.append(session)
        streams = await session.streams()
        if TTY in streams:
            os.set_blocking(streams[TTY], True)  # for the tests, which read it in threads
        return session, streams, order.folder

    def shims(self):
        return processes_named("logd-exec", self.exec_root)


@pytest.fixture(params=["runc"])
async def box(request, tmp_path, exec_root, supervisor):
    launch = make_launch(tmp_path, exec_root, "box", ["/bin/sleep", "1000"])
    if request.param == "crun":
        launch = launch._replace(runtime=(*CRUN, *launch.runtime[1:]))
    shim = await supervisor.launch(launch)
    await shim.start()
    made = Box(launch, shim, supervisor, exec_root)
    yield made
    for session in made.sessions:
        session.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(shim.pid, signal.SIGKILL)
    delete(launch)
    kill_all("logd-exec", exec_root)


async def until(condition):
    async with asyncio.timeout(LONG_S):
        while not condition():
            await asyncio.sleep(0.01)


def read_all(descriptor: int) -> bytes:
    """Read to the end, and close; blocks."""
    data = b""
    try:
        while piece := os.read(descriptor, 65536):
            data += piece
    except OSError:  # EIO, the end of a terminal
        pass
    os.close(descriptor)
    return data


@on_each_runtime
async def test_both_streams_and_the_exit_code_come_as_they_are_and_nothing_is_left(box):
    session, streams, folder = await box.begin("/bin/sh", "-c", "printf 'a\\0b'; echo err >&2; exit 7")
    assert set(streams) == set(OUTPUTS)
    assert await asyncio.to_thread(read_all, streams["stdout"]) == b"a\0b"
    assert await asyncio.to_thread(read_all, streams["stderr"]) == b"err\n"
    ended = await asyncio.wait_for(session.exited, LONG_S)
    assert (ended.code, ended.error) == (7, "")
    assert read_exit(folder) == ended
    session.leave()
    await until(lambda: not box.shims())


async def test_input_reaches_the_process_and_its_end_is_seen(box):
    session, streams, _ = await box.begin("/bin/cat", streams=("stdin", "stdout"))
    os.write(streams["stdin"], b"one\ntwo")
    os.close(streams["stdin"])
    assert await asyncio.to_thread(read_all, streams["stdout"]) == b"one\ntwo"
    assert (await asyncio.wait_for(session.exited, LONG_S)).code == 0


async def test_a_signal_is_told_as_a_shell_tells_it(box):
    session, _, _ = await box.begin("/bin/sh", "-c", "kill -9 $$", streams=())
    assert (await asyncio.wait_for(session.exited, LONG_S)).code == 137


async def test_a_process_has_its_streams_and_no_other_descriptor(box):
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        _, streams, _ = await box.begin("/bin/sh", "-c", "echo /proc/self/fd/*", streams=("stdin", "stdout"))
        shown = (await asyncio.to_thread(read_all, streams["stdout"])).split()
    finally:
        os.close(leaked)
        os.close(streams["stdin"])
    assert set(shown) <= {b"/proc/self/fd/%d" % number for number in range(4)}  # 3: the folder that is read


@on_each_runtime
async def test_a_terminal_has_its_size_and_what_is_typed_arrives(box):
    script = "read line; echo got $line; stty size; read line; stty size"
    session, streams, _ = await box.begin("/bin/busybox", "sh", "-c", script, streams=(TTY,), size=(33, 77))
    os.write(streams[TTY], b"words\n")
    printed = b""
    while not printed.endswith(b"got words\r\n33 77\r\n"):
        printed += await asyncio.to_thread(os.read, streams[TTY], 4096)
    await session.resize(20, 50)
    os.write(streams[TTY], b"\n")
    assert await asyncio.to_thread(read_all, streams[TTY]) == b"\r\n20 50\r\n"
    assert (await asyncio.wait_for(session.exited, LONG_S)).code == 0


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [(("/no/such",), 127, "no such file"), (("nosuch",), 127, "not found"), (("/proc",), 126, "permission denied")],
)
async def test_a_command_that_cannot_run_has_dockers_exit_code(box, argv, code, words):
    with pytest.raises(ExecFailed, match=f"^OCI runtime exec failed: .*{words}") as failed:
        await box.begin(*argv)
    assert (failed.value.exec_exit_code, failed.value.status) == (code, 400)
    await until(lambda: not box.shims())


async def test_the_soft_limit_of_open_files_stays_what_it_was(box):
    for _ in range(8):  # with runc 1.1.5 alone one in twelve had the hard one
        session, streams, _ = await box.begin("/bin/sleep", "1000", rlimits=[("RLIMIT_NOFILE", 1024, 4096)])
        assert resource.prlimit(session.pid, resource.RLIMIT_NOFILE) == (1024, 4096)
        for descriptor in streams.values():
            os.close(descriptor)


@pytest.mark.parametrize("streams", [OUTPUTS, (TTY,)])
async def test_a_process_whose_daemon_goes_neither_waits_nor_dies_and_its_exit_is_found(box, streams):
    script = "while [ ! -e /tmp/go ]; do echo waiting; done; head -c 300000 /dev/zero; exit 7"
    session, mine, folder = await box.begin("/bin/sh", "-c", script, streams=streams)
    session.close()
    for descriptor in mine.values():
        os.close(descriptor)
    found = await find_exec(folder)
    assert isinstance(found, ExecSession)
    box.sessions.append(found)
    (Path(box.launch.container_dir) / "rootfs/tmp/go").touch()
    assert (await asyncio.wait_for(found.exited, LONG_S)).code == 7
    assert found.pid
    await until(lambda: not box.shims())
    later = await find_exec(folder)
    assert isinstance(later, ExecExit)
    assert later.code == 7


async def test_a_process_that_prints_waits_for_who_reads_and_goes_on_when_its_output_is_left(box):
    session, streams, _ = await box.begin("/bin/sh", "-c", "head -c 300000 /dev/zero; exit 3", streams=("stdout",))
    assert len(os.read(streams["stdout"], 1000)) == 1000
    os.close(streams["stdout"])
    with pytest.raises(TimeoutError):  # the pipe is full
        await asyncio.wait_for(asyncio.shield(session.exited), 0.3)
    session.leave()
    assert (await asyncio.wait_for(session.exited, LONG_S)).code == 3


async def test_what_an_exec_leaves_behind_goes_on_printing_to_nobody(box):
    script = "{ while [ ! -e /tmp/go ]; do echo more || exit; done; touch /tmp/was-here; } & exit 0"
    session, streams, _ = await box.begin("/bin/busybox", "sh", "-c", script, streams=("stdout",))
    await asyncio.wait_for(session.exited, LONG_S)
    os.close(streams["stdout"])
    session.leave()
    root = Path(box.launch.container_dir) / "rootfs"
    (root / "tmp/go").touch()
    await until((root / "tmp/was-here").exists)
    await until(lambda: not box.shims())


async def test_the_end_of_the_container_is_the_end_of_its_execs(box):
    session, streams, _ = await box.begin("/bin/sleep", "1000")
    os.kill(box.shim.pid, signal.SIGKILL)
    assert (await asyncio.wait_for(session.exited, LONG_S)).code == 137
    for descriptor in streams.values():
        os.close(descriptor)


async def test_a_shim_that_was_killed_is_told_as_an_unknown_end(box):
    session, streams, folder = await box.begin("/bin/sleep", "1000")
    for pid in box.shims():
        os.kill(pid, signal.SIGKILL)
    assert (await asyncio.wait_for(session.exited, LONG_S)).code == LOST_EXIT
    assert await find_exec(folder) is None
    for descriptor in streams.values():
        os.close(descriptor)


async def test_execs_go_on_when_keeper_and_daemon_are_gone(box, exec_root):
    session, streams, folder = await box.begin("/bin/sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.01; done; exit 9")
    await box.supervisor.close()
    session.close()
    for descriptor in streams.values():
        os.close(descriptor)
    kill_all("logd-keeper", exec_root)
    (Path(box.launch.container_dir) / "rootfs/tmp/go").touch()
    await until(lambda: read_exit(folder))
    assert read_exit(folder).code == 9
    await until(lambda: not box.shims())


async def test_a_hundred_execs_leave_no_process_and_no_descriptor(box):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        for session, streams, _ in await asyncio.gather(*(box.begin("/bin/true") for _ in range(10))):
            for descriptor in streams.values():
                os.close(descriptor)
            assert (await asyncio.wait_for(session.exited, LONG_S)).code == 0
            session.leave()
            session.close()
    await until(lambda: not box.shims())
    assert len(os.listdir("/proc/self/fd")) == before
