"""Shims and keeper as the daemon meets them: real processes, the real runtime, no engine."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from bundle import delete, make_launch
from killing import build_loggen, processes_named, run_under_fire

from logd.logstore.options import StoreOptions
from logd.logstore.reader import end_positions
from logd.logstore.segment import segment_numbers
from logd.logstore.totals import read_totals
from logd.record import STDERR, STDOUT
from logd.runtime.protocol import (
    STATE_FILE,
    ExitStatus,
    Launch,
    read_exit_status,
    start_ticks,
    write_exit_status,
    write_json,
)
from logd.runtime.shim_client import RuntimeFailure
from logd.runtime.supervisor import Supervisor


def output(launch: Launch, stream: str = "stdout") -> bytes:
    folder = Path(launch.container_dir) / "log"
    return b"".join(file.read_bytes() for file in sorted(folder.glob(f"*.{stream}")))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_both_streams_and_the_exit_code_are_kept(tmp_path: Path, exec_root: Path, supervisor: Supervisor) -> None:
    launch = make_launch(tmp_path, exec_root, "c1", ["/bin/sh", "-c", "printf 'a\\0b'; echo err >&2; exit 3"])
    shim = await supervisor.launch(launch)
    await shim.start()
    status = await shim.exited
    assert (status.code, status.signal, status.known) == (3, None, True)
    assert await shim.drained == (3, 4)
    assert (output(launch), output(launch, "stderr")) == (b"a\0b", b"err\n")
    await shim.gone.wait()
    recorded = read_exit_status(launch.container_dir)
    assert recorded is not None
    assert (recorded.code, recorded.run) == (3, 1)
    delete(launch)


async def test_a_missing_command_is_told_with_dockers_exit_code(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c2", ["/no/such/command"])
    with pytest.raises(RuntimeFailure, match="no such file or directory") as failed:
        await supervisor.launch(launch)
    assert failed.value.container_exit_code == 127


async def test_a_signal_is_told_as_such_and_positions_go_on_over_runs(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    for run, end in ((1, 4), (2, 8)):
        launch = make_launch(tmp_path, exec_root, "c3", ["/bin/sh", "-c", "echo one; exec sleep 100"], run=run)
        shim = await supervisor.launch(launch)
        await shim.start()
        while len(output(launch)) < end:
            await asyncio.sleep(0.01)
        shim.signal(signal.SIGKILL)
        status = await shim.exited
        assert (status.code, status.signal, status.run) == (137, 9, run)
        assert await shim.drained == (end, 0)
        await shim.gone.wait()
        delete(launch)


async def test_the_end_is_told_although_a_host_process_holds_stdout_open(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c4", ["/bin/sh", "-c", "echo x; sleep 0.5"])
    shim = await supervisor.launch(launch)
    with open(f"/proc/{shim.pid}/fd/1", "wb", buffering=0) as stdout:
        await shim.start()
        await shim.exited
        began = time.monotonic()
        assert await asyncio.wait_for(shim.drained, 5) == (2, 0)
        assert time.monotonic() - began < 4
        stdout.write(b"late\n")
        while output(launch) != b"x\nlate\n":
            await asyncio.sleep(0.01)
        await shim.quit()
    await shim.gone.wait()
    delete(launch)


async def test_stdin_stays_open_when_the_daemon_goes_and_ends_when_told(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c5", ["/bin/cat"], open_stdin=True)
    shim = await supervisor.launch(launch)
    await shim.start()
    descriptor = await shim.stdin()
    os.write(descriptor, b"first\n")
    os.close(descriptor)
    await supervisor.close()
    later = Supervisor(exec_root)
    await later.start()
    adopted = await later.adopt("c5", launch)
    assert adopted is not None
    descriptor = await adopted.stdin()
    os.write(descriptor, b"second\n")
    os.close(descriptor)
    assert not adopted.exited.done()
    await adopted.close_stdin()
    assert (await adopted.exited).code == 0
    await adopted.drained
    assert output(launch) == b"first\nsecond\n"
    await later.close()
    delete(launch)


async def test_an_exit_while_the_daemon_was_away_is_found_afterwards(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c6", ["/bin/sh", "-c", "sleep 0.3; exit 7"])
    shim = await supervisor.launch(launch)
    await shim.start()
    await supervisor.close()
    while read_exit_status(launch.container_dir) is None:
        await asyncio.sleep(0.02)
    later = Supervisor(exec_root)
    await later.start()
    while (adopted := await later.adopt("c6", launch)) is not None:
        await adopted.gone.wait()
    status = read_exit_status(launch.exec_dir, launch.container_dir)
    assert status is not None
    assert status.code == 7
    await later.close()
    delete(launch)


@pytest.mark.parametrize(("victim", "kills"), [("shim", 4), ("keeper", 8), ("daemon", 8)])
async def test_nothing_is_lost_or_doubled_when_a_process_is_killed_again_and_again(
    tmp_path: Path, exec_root: Path, victim: str, kills: int
) -> None:  # a shim that dies more often in a short time is replaced after a while only
    outcome = await run_under_fire(
        tmp_path, exec_root, "c7", [victim], kills=kills, lines=3_000_000, rate=0, options=["-b", "0"]
    )
    assert outcome["lines"] == outcome["generator_lines"] == 3_000_000
    assert [outcome[name] for name in ("missing", "doubled", "disorder", "bad", "code")] == [0] * 5
    assert outcome["generator_errno"] == 0


async def test_containers_are_started_though_every_zygote_is_killed(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    for name in ("z1", "z2", "z3"):
        launch = make_launch(tmp_path, exec_root, name, ["/bin/sh", "-c", f"echo {name}"])
        shim = await supervisor.launch(launch)
        await shim.start()
        await shim.drained
        assert output(launch) == f"{name}\n".encode()
        await shim.gone.wait()
        delete(launch)
        for pid in processes_named("logd-zygote", exec_root):
            with suppress(ProcessLookupError):  # of a zygote that still prepares itself, children come and go
                os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}").exists():  # one that is dying still takes requests
                await asyncio.sleep(0.01)


async def test_the_spare_of_a_zygote_that_was_killed_forks_the_next_shim(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    assert supervisor
    while (family := zygote_and_spare(exec_root)) is None:  # not prepared yet
        await asyncio.sleep(0.02)
    zygote, spare = family
    os.kill(zygote, signal.SIGKILL)
    while Path(f"/proc/{zygote}").exists():
        await asyncio.sleep(0.01)
    launch = make_launch(tmp_path, exec_root, "z4", ["/bin/sh", "-c", "echo spare"])
    shim = await supervisor.launch(launch)
    assert spare in map(parent_of, processes_named("logd-shim", exec_root))
    await shim.start()
    await shim.drained
    assert output(launch) == b"spare\n"
    await shim.gone.wait()
    delete(launch)


def zygote_and_spare(exec_root: Path) -> tuple[int, int] | None:
    """Return the pids of the one that serves and its spare, None while others are there."""
    found = processes_named("logd-zygote", exec_root)
    pairs = [(parent, child) for child in found if (parent := parent_of(child)) in found]
    return pairs[0] if len(found) == 2 and pairs else None


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


async def test_all_processes_killed_at_once_leave_the_container_alive_and_watched_again(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c8", ["/bin/sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.4; done"])
    shim = await supervisor.launch(launch)
    await shim.start()
    await asyncio.sleep(0.5)
    await supervisor.close()
    for comm in ("logd-keeper", "logd-shim"):
        for pid in processes_named(comm, exec_root):
            os.kill(pid, signal.SIGKILL)
    later = Supervisor(exec_root)
    await later.start()
    adopted = await later.adopt("c8", launch)
    assert adopted is not None
    status = await asyncio.wait_for(adopted.exited, 10)
    assert (status.code, status.known) == (0, True)
    await adopted.drained
    assert output(launch) == b"1\n2\n3\n4\n"
    await later.close()
    delete(launch)


async def test_a_container_that_ended_is_not_taken_for_one_that_all_left_although_nobody_reaped_it(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c12", ["/bin/true"])
    with subprocess.Popen(["/bin/true"]) as unreaped:
        os.waitid(os.P_PID, unreaped.pid, os.WEXITED | os.WNOWAIT)
        state = {"pid": unreaped.pid, "ticks": start_ticks(unreaped.pid), "inodes": {}, "launch": launch.to_json()}
        write_json(launch.exec_dir, STATE_FILE, state)
        write_exit_status(launch.container_dir, ExitStatus(0, None, oom_killed=False, finished_ns=1, run=1))
        assert await supervisor.adopt("c12", launch) is None
    assert not (Path(launch.container_dir) / "log").exists()


async def test_a_container_whose_shim_is_stopped_is_adopted_and_obeys_at_once(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c13", ["/bin/sh", "-c", "echo begun; sleep 600"])
    shim = await supervisor.launch(launch)
    await shim.start()
    while output(launch) != b"begun\n":
        await asyncio.sleep(0.02)
    while len(shims := processes_named("logd-shim", exec_root)) != 1:  # its errand may not have ended yet
        await asyncio.sleep(0.02)
    (stopped,) = shims
    os.kill(stopped, signal.SIGSTOP)
    await supervisor.close()
    for pid in processes_named("logd-keeper", exec_root):
        os.kill(pid, signal.SIGKILL)
    later = Supervisor(exec_root)
    await later.start()
    adopted = await later.adopt("c13", launch)
    assert adopted is not None
    adopted.signal(signal.SIGKILL)
    assert await adopted.process_ended(10)
    assert processes_named("logd-shim", exec_root) == [stopped], "there is a second writer"
    os.kill(stopped, signal.SIGCONT)
    assert (await asyncio.wait_for(adopted.exited, 10)).code == 137
    assert await adopted.drained == (6, 0)
    await later.close()
    delete(launch)


async def test_a_container_whose_shim_is_yet_to_be_replaced_is_adopted(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c14", ["/bin/sleep", "600"])
    shim = await supervisor.launch(launch)
    await shim.start()
    await supervisor.close()
    await kill_shims(exec_root, 4)  # the keeper waits longer before each replacement, at last for two seconds
    later = Supervisor(exec_root)
    await later.start()
    adopted = await later.adopt("c14", launch)
    assert adopted is not None
    adopted.signal(signal.SIGKILL)
    assert (await asyncio.wait_for(adopted.exited, 20)).code == 137
    await later.close()
    delete(launch)


async def test_a_shim_that_died_after_it_had_recorded_the_exit_is_waited_for(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "c15", ["/bin/sh", "-c", "echo begun; exec sleep 600"])
    shim = await supervisor.launch(launch)
    await shim.start()
    while output(launch) != b"begun\n":
        await asyncio.sleep(0.02)
    await kill_shims(exec_root, 4)  # the keeper waits two seconds by now
    status = ExitStatus(7, None, oom_killed=False, finished_ns=1, known=True, run=1)
    write_exit_status(launch.exec_dir, status)
    shim.signal(signal.SIGKILL)
    assert await asyncio.wait_for(shim.exited, 10) == status
    assert await asyncio.wait_for(shim.drained, 20) in {(6, 0), (0, 0)}, "(0, 0): the store tells"
    assert shim.saw_end
    assert await asyncio.to_thread(end_positions, f"{launch.container_dir}/log") == (6, 0)
    delete(launch)


async def kill_shims(exec_root: Path, times: int) -> None:
    """Kill a container's shim and those that replace it."""
    for _ in range(times):
        while not (found := processes_named("logd-shim", exec_root)):
            await asyncio.sleep(0.01)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while set(found) & set(processes_named("logd-shim", exec_root)):
            await asyncio.sleep(0.01)


async def test_a_full_disk_costs_counted_bytes_and_never_the_container(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
    try:
        loggen = build_loggen(tmp_path)
        store = StoreOptions(max_size=1 << 30, max_file=5)
        argv = ["/w/loggen", "gen", "-n", "2000000", "-k", "/w/go"]
        launch = make_launch(disk, exec_root, "c9", argv, binds=(str(tmp_path),), store=store)
        assert loggen.exists()
        shim = await supervisor.launch(launch)
        await shim.start()
        folder = launch.container_dir + "/log"
        while read_totals(folder).streams[STDOUT].end < 200_000_000:
            await asyncio.sleep(0.05)
        os.truncate(Path(folder) / "0000000001.stdout", 0)  # a person makes room in the crudest way
        while len(segment_numbers(folder)) == 1:
            await asyncio.sleep(0.05)
        (tmp_path / "go").touch()
        assert (await shim.exited).code == 0
        ends = await shim.drained
        assert ends == (200_000_000, 0)
        totals = read_totals(folder).streams[STDOUT]
        assert sum(totals.dropped) >= 200_000_000 - (64 << 20)
        assert len(segment_numbers(folder)) == 2, "the gap is noted in a new segment"
        await shim.gone.wait()
        delete(launch)
    finally:
        for pid in processes_named("logd-shim", exec_root):
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["umount", "--lazy", disk], check=True)


async def test_old_segments_make_room_before_anything_is_dropped(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
    try:
        build_loggen(tmp_path)
        store = StoreOptions(max_size=10_000_000, max_file=1000)
        argv = ["/w/loggen", "gen", "-n", "2000000"]
        launch = make_launch(disk, exec_root, "c10", argv, binds=(str(tmp_path),), store=store)
        shim = await supervisor.launch(launch)
        await shim.start()
        assert (await shim.exited).code == 0
        assert await shim.drained == (200_000_000, 0)
        totals = read_totals(launch.container_dir + "/log").streams[STDOUT]
        assert sum(totals.dropped) == 0
        assert len(output(launch)) + totals.expired == 200_000_000
        await shim.gone.wait()
        delete(launch)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


async def test_limits_of_the_store_are_changed_while_the_container_runs(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    """At once, and anew for the shim that replaces one; what is beyond them goes, and is counted."""
    script = "seq 100000; read go; seq 100000; read go; seq 100000"
    launch = make_launch(tmp_path, exec_root, "c18", ["sh", "-c", script], open_stdin=True)
    log = launch.container_dir + "/log"
    shim = await supervisor.launch(launch)
    stdin = await shim.stdin()
    await shim.start()
    printed = 588_895  # by one seq
    await until(lambda: len(output(launch)) == printed)
    assert len(segment_numbers(log)) == 1
    shim.change_store(StoreOptions(max_size=100_000, max_file=3))
    await until(lambda: len(segment_numbers(log)) == 2)  # what there is is too much for one
    os.write(stdin, b"go\n")
    await until(lambda: end_positions(log)[0] == 2 * printed)
    await until(lambda: len(segment_numbers(log)) == 3 and len(output(launch)) <= 300_000)
    await until(lambda: len(processes_named("logd-shim", exec_root)) == 1)  # its errand has ended
    os.kill(processes_named("logd-shim", exec_root)[0], signal.SIGKILL)
    for _ in range(2):  # questions are answered in order: the next shim knows the limits by the second answer
        await shim.lease(None)
    os.write(stdin, b"go\n")
    assert (await shim.drained)[0] == 3 * printed
    assert len(output(launch)) <= 300_000
    totals = read_totals(log).streams
    assert len(output(launch)) + totals[STDOUT].expired == 3 * printed
    os.close(stdin)
    delete(launch)


async def test_a_lossless_reader_holds_the_container_back_and_keeps_every_segment(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    build_loggen(tmp_path)
    store = StoreOptions(max_size=1_000_000, max_file=2)
    argv = ["/w/loggen", "gen", "-n", "400000"]
    launch = make_launch(tmp_path, exec_root, "c11", argv, binds=(str(tmp_path),), store=store)
    shim = await supervisor.launch(launch)
    await shim.lease((0, 0))
    await shim.start()
    await asyncio.sleep(0.5)
    assert not shim.exited.done()
    held = len(output(launch))
    assert 8 << 20 <= held <= 10 << 20
    await shim.lease(None)
    assert (await shim.exited).code == 0
    assert await shim.drained == (40_000_000, 0)
    totals = read_totals(launch.container_dir + "/log").streams
    assert len(output(launch)) + totals[STDOUT].expired == 40_000_000
    assert totals[STDERR].end == 0
    await shim.gone.wait()
    delete(launch)
