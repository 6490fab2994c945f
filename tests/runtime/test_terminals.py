"""Containers with a terminal as the daemon meets them: a real pty of the real runtime, no engine."""

import asyncio
import fcntl
import os
import signal
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle import delete, make_launch
from killing import kill_all, processes_named

from logd.errors import LogdError
from logd.logstore.summary import summary
from logd.runtime import terminal
from logd.runtime.protocol import Launch
from logd.runtime.shim_client import Shim
from logd.runtime.supervisor import Supervisor

WAIT_S = 60


async def until(condition: Callable[[], bool], pause_s: float = 0.01) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(pause_s)


def output(launch: Launch) -> bytes:
    folder = Path(launch.container_dir) / "log"
    return b"".join(file.read_bytes() for file in sorted(folder.glob("*.stdout")))


def numbers(last: int) -> bytes:
    return b"".join(b"%d\r\n" % number for number in range(1, last + 1))


async def type_into(shim: Shim, keys: bytes) -> None:
    master = await shim.stdin()
    assert os.write(master, keys) == len(keys)
    os.close(master)


async def end_of(shim: Shim) -> tuple[int, tuple[int, int]]:
    status = await asyncio.wait_for(shim.exited, WAIT_S)
    ends = await asyncio.wait_for(shim.drained, WAIT_S)
    await asyncio.wait_for(shim.gone.wait(), WAIT_S)
    return status.code, ends


async def test_all_that_was_printed_before_the_exit_is_kept_although_the_shim_was_late(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    script = "sleep 0.1; seq 1 2000; echo err >&2; until [ -e /w/go ]; do sleep 0.01; done; seq 1 500; exit 3"
    launch = make_launch(tmp_path, exec_root, "t1", ["/bin/sh", "-c", script], binds=(str(tmp_path),), terminal=True)
    shim = await supervisor.launch(launch)
    await shim.start()
    whole = numbers(2000) + b"err\r\n"
    await until(lambda: output(launch) == whole)
    (stopped,) = processes_named("logd-shim", exec_root)
    os.kill(stopped, signal.SIGSTOP)
    (tmp_path / "go").touch()
    assert await shim.process_ended(WAIT_S)
    os.kill(stopped, signal.SIGCONT)
    whole += numbers(500)
    assert await end_of(shim) == (3, (len(whole), 0))
    assert output(launch) == whole
    delete(launch)


async def test_shims_and_a_keeper_killed_while_a_terminal_is_printed_to_cost_no_byte_and_leave_no_gap(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    script = "seq 1 200000; until [ -e /w/go ]; do sleep 0.01; done; seq 1 200000"
    launch = make_launch(tmp_path, exec_root, "t2", ["/bin/sh", "-c", script], binds=(str(tmp_path),), terminal=True)
    shim = await supervisor.launch(launch)
    await shim.start()
    for least in (50_000, 300_000, 900_000):
        await until(lambda least=least: len(output(launch)) > least)  # type: ignore[misc]  # mypy knows no default
        kill_all("logd-shim", exec_root)
        await shim.lease(None)  # answered by the shim that came in its place
    kill_all("logd-keeper", exec_root)
    await until(lambda: not shim.held, pause_s=0)  # that may last for a millisecond
    await until(lambda: shim.held, pause_s=0)  # what it holds is with the next keeper, or on its way
    kill_all("logd-shim", exec_root)
    (tmp_path / "go").touch()
    whole = numbers(200_000) * 2
    assert await end_of(shim) == (0, (len(whole), 0))
    assert output(launch) == whole
    assert summary(launch.container_dir + "/log").gaps == ()
    delete(launch)


async def test_what_is_typed_reaches_the_container_and_its_size_too_after_shim_and_daemon_were_replaced(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(tmp_path, exec_root, "t3", ["/bin/sh", "-i"], open_stdin=True, terminal=True)
    (Path(launch.container_dir) / "rootfs" / "bin" / "stty").hardlink_to(tmp_path / "busybox")
    shim = await supervisor.launch(launch)
    await shim.start()
    await type_into(shim, b"echo a$((1 + 1))\n")
    await until(lambda: b"a2\r\n" in output(launch))
    kill_all("logd-shim", exec_root)
    await supervisor.close()
    later = Supervisor(exec_root)
    await later.start()
    adopted = await later.adopt("t3", launch)
    assert adopted is not None
    await adopted.resize(33, 101)
    await type_into(adopted, b"stty size\n")
    await until(lambda: b"\r\n33 101\r\n" in output(launch))
    await type_into(adopted, b"exit 4\n")
    assert (await end_of(adopted))[0] == 4
    await later.close()
    delete(launch)


async def test_a_container_may_close_its_terminal_and_open_it_again(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    script = (
        "echo 1; exec </dev/null >/dev/null 2>&1; until [ -e /w/go ]; do sleep 0.01; done; exec >/dev/console; echo 2"
    )
    launch = make_launch(tmp_path, exec_root, "t4", ["/bin/sh", "-c", script], binds=(str(tmp_path),), terminal=True)
    shim = await supervisor.launch(launch)
    await shim.start()
    await until(lambda: output(launch) == b"1\r\n")
    kill_all("logd-shim", exec_root)
    await shim.lease(None)
    (tmp_path / "go").touch()
    assert await end_of(shim) == (0, (6, 0))
    assert output(launch) == b"1\r\n2\r\n"
    delete(launch)


async def test_with_all_processes_killed_at_once_the_terminal_is_gone_and_the_log_says_so(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    script = "trap '' HUP; echo begun; until [ -e /w/go ]; do sleep 0.01; done; echo unheard; exit 9"
    launch = make_launch(tmp_path, exec_root, "t5", ["/bin/sh", "-c", script], binds=(str(tmp_path),), terminal=True)
    shim = await supervisor.launch(launch)
    await shim.start()
    await until(lambda: output(launch) == b"begun\r\n")
    await supervisor.close()
    kill_all("logd-keeper", exec_root)
    kill_all("logd-shim", exec_root)
    later = Supervisor(exec_root)
    await later.start()
    adopted = await later.adopt("t5", launch)
    assert adopted is not None
    with pytest.raises(LogdError):
        await adopted.resize(1, 1)
    (tmp_path / "go").touch()
    assert await end_of(adopted) == (9, (7, 0))
    assert output(launch) == b"begun\r\n"
    assert [(gap.stream, gap.reason) for gap in summary(launch.container_dir + "/log").gaps] == [(1, "crash")]
    await later.close()
    delete(launch)


def test_a_console_socket_gives_the_one_terminal_that_is_sent(tmp_path: Path) -> None:
    import socket

    console = terminal.ConsoleSocket(str(tmp_path))
    with socket.socket(socket.AF_UNIX) as runtime, open(os.devnull, "rb") as null:
        runtime.connect(console.path)
        socket.send_fds(runtime, [b"/dev/pts/0"], [null.fileno(), null.fileno()])
        with pytest.raises(OSError, match="sent 2 descriptors"):
            console.receive(WAIT_S)
    with pytest.raises(TimeoutError):
        console.receive(0.01)
    ours, slave = os.openpty()
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(console.path)
        socket.send_fds(runtime, [b"/dev/pts/0"], [ours])
        master = console.receive(WAIT_S)
    terminal.set_size(master, 11, 22)
    assert termios.tcgetwinsize(slave) == (11, 22)
    peer = terminal.open_slave(master)
    assert os.ttyname(peer) == os.ttyname(slave)
    assert fcntl.fcntl(master, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    console.close()
    assert list(tmp_path.iterdir()) == []
    for descriptor in (ours, slave, master, peer):
        os.close(descriptor)
