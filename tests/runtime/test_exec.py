"""A process in a running container beside its first one, under runc and crun."""

import asyncio
import os
import secrets
import subprocess
from pathlib import Path

import pytest
from oci_container import RUNC

from logd.runtime import cgroup
from logd.runtime.exec import Capture, ExecFailure, ExecProcess, ExecRequest, end_stale
from logd.runtime.oci import cgroup_path, exec_process
from logd.spec import ContainerSpec, HostConfig, Ulimit

# crun 1.8 refuses a unified tree with the hugetlb controller, so it gets a mount namespace without that tree.
CRUN = ("unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified; exec crun "$@"', "sh")
RUNTIMES = {"runc": (RUNC,), "crun": CRUN}
LONG_S = 60.0


class Running:
    """A container whose first process sleeps."""

    def __init__(self, containers, runtime, **more):
        self.runtime = (*runtime, "--root", str(containers.folder / "runc"))
        containers.runtime = self.runtime
        self.bundle = containers.bundle("/bin/sleep", "1000", **more)
        self.cgroup_path = cgroup_path(self.bundle.id, self.bundle.cgroup_parent)
        null = subprocess.DEVNULL  # a pipe would stay open as long as the container runs
        command = [*self.runtime, "run", "--detach", "--bundle", str(self.bundle.exec_dir), self.bundle.id]
        subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)

    def request(self, *argv):
        return ExecRequest(
            exec_id=secrets.token_hex(32),
            container_id=self.bundle.id,
            exec_dir=self.bundle.exec_dir,
            cgroup_path=self.cgroup_path,
            runtime=self.runtime,
            process=exec_process(self.bundle.exec_dir, argv),
        )

    async def run(self, *argv, timeout_s=LONG_S, max_bytes=4096):
        capture = Capture(self.request(*argv), max_bytes)
        try:
            await capture.start()
            return await capture.finish(timeout_s)
        finally:
            await capture.close()

    async def sh(self, script, **more):
        return await self.run("/bin/sh", "-c", script, **more)

    def processes(self):
        folders = cgroup.container_folders(cgroup.detect(), self.cgroup_path).values()
        return sorted({pid for folder in folders for pid in cgroup.processes(folder)})

    def files(self):
        folder = self.bundle.exec_dir / "exec"
        return sorted(folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def running(containers):
    return Running(containers, RUNTIMES["runc"])


@pytest.fixture(params=list(RUNTIMES))
def on_each(containers, request):
    return Running(containers, RUNTIMES[request.param])


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_process_is_run_killed_or_refused_alike_by_runc_and_crun(on_each):
    before = on_each.processes()
    code, output, is_cut = await on_each.sh("echo out; echo err >&2; echo $HOME; exit 7")
    assert (code, sorted(output.split()), is_cut) == (7, [b"/root", b"err", b"out"], False)
    killed = await on_each.sh("echo begun; sleep 900 & sleep 901", timeout_s=0.2)
    assert killed == (None, b"begun\n", False)
    for missing in ("/no/such", "nosuch"):
        with pytest.raises(ExecFailure, match=rf"^OCI runtime exec failed: .*{missing}"):
            await on_each.run(missing)
    await until(lambda: on_each.processes() == before)
    assert on_each.files() == []


async def test_a_process_is_confined_and_surrounded_as_the_first_one_of_its_container(containers):
    host = HostConfig(
        cap_add=["NET_ADMIN"],
        cap_drop=["MKNOD"],
        security_opt=["no-new-privileges"],
        ulimits=[Ulimit(name="nofile", soft=200, hard=200)],  # Go's start in runc may raise a lower soft one
        oom_score_adj=77,
    )
    spec = ContainerSpec(user="alice", env=["A=b c"], working_dir="/data")
    running = Running(containers, RUNTIMES["runc"], spec=spec, host=host)
    names = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp"
    look = (
        f"for n in {names}; do grep ^$n: /proc/$p/status; done; cat /proc/$p/oom_score_adj; grep open /proc/$p/limits"
    )
    _, output, _ = await running.sh(f"for p in 1 $$; do {look}; done; echo $A $HOME $PWD")
    *lines, surroundings = output.decode().splitlines()
    of_the_first, own = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert len(own) == len(names.split()) + 2
    assert own == of_the_first
    assert {"NoNewPrivs:\t1", "Seccomp:\t2", "77"} <= set(own)
    assert surroundings == "b c /home/alice /data"


async def test_the_beginning_of_the_output_is_kept_and_the_rest_thrown_away(running):
    assert await running.sh("head -c 4096 /dev/zero | tr '\\0' x") == (0, b"x" * 4096, False)
    assert await running.sh("head -c 300000 /dev/zero | tr '\\0' x; exit 3") == (3, b"x" * 4096, True)
    assert await running.run("/bin/yes", timeout_s=0.3, max_bytes=6) == (None, b"y\ny\ny\n", True)


async def test_what_a_process_leaves_behind_with_its_output_open_is_ended_after_a_while(running):
    before = running.processes()
    assert await running.sh("sleep 901 >/dev/null 2>&1 & echo done") == (0, b"done\n", False)
    assert len(running.processes()) == len(before) + 1
    assert await running.sh("sleep 902 & echo done; exit 4") == (4, b"done\n", False)
    await until(lambda: len(running.processes()) == len(before) + 1)


async def test_a_cancelled_wait_ends_the_process(running):
    before = running.processes()
    task = asyncio.ensure_future(running.run("/bin/sleep", "900"))
    await until(lambda: len(running.processes()) > len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: running.processes() == before)
    assert running.files() == []


async def test_no_descriptor_of_the_daemon_reaches_the_process(running):
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        _, output, _ = await running.sh("exec ls -l /proc/self/fd")
    finally:
        os.close(leaked)
    numbers = [line.split()[-3] for line in output.decode().splitlines() if "->" in line]
    assert numbers in (["0", "1", "2"], ["0", "1", "2", "3"])  # 3 is the folder that ls reads


async def test_what_an_earlier_daemon_ran_is_ended_with_all_it_started(running):
    before = running.processes()
    request = running.request("/bin/sh", "-c", "sleep 900 & sleep 901")
    lost = ExecProcess(request)
    await lost.start(subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL)
    await end_stale(
        running.bundle.id, running.cgroup_path, running.bundle.exec_dir
    )  # even if the runtime is only just about to start it
    with pytest.raises(ExecFailure, match="ended with status"):  # 137, or what it found was gone already
        await lost.wait(LONG_S)
    await until(lambda: running.processes() == before)
    assert running.files() == []


async def test_a_pid_that_is_another_process_by_now_is_left_alone(running):
    before = running.processes()
    folder = running.bundle.exec_dir / "exec" / secrets.token_hex(32)
    folder.mkdir(parents=True)
    (folder / "pid").write_text(str(before[0]))
    await end_stale(running.bundle.id, running.cgroup_path, running.bundle.exec_dir)
    assert not folder.exists()
    assert Path(f"/proc/{before[0]}/exe").exists()
    assert running.processes() == before
