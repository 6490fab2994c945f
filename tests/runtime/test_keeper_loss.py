"""The keeper dies, and a shim before there is another keeper: what the shim held must outlive both."""

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle import delete, make_launch
from killing import build_loggen, kill_all, processes_named, report, stored

from logd.logstore.options import StoreOptions
from logd.logstore.summary import summary
from logd.runtime import supervisor as supervisor_module
from logd.runtime.protocol import Launch
from logd.runtime.shim_client import Shim
from logd.runtime.supervisor import Supervisor

WAIT_S = 60


async def until(condition: Callable[[], bool], pause_s: float = 0.002) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(pause_s)


async def lose_keeper(exec_root: Path, shim: Shim) -> None:
    """Kill the keeper; return as soon as the shim has handed over what the next one will need."""
    kill_all("logd-keeper", exec_root)
    await until(lambda: not shim.held, pause_s=0)  # that may last for a millisecond
    await until(lambda: shim.held)


class HeldBackKeeper:
    """Keepers are started for real, but not before `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self._spawn = supervisor_module._spawn_keeper
        monkeypatch.setattr(supervisor_module, "_spawn_keeper", self.spawn)

    def spawn(self, exec_root: Path, connection: int) -> int:
        assert self.go.wait(WAIT_S)
        return self._spawn(exec_root, connection)


async def test_a_shim_killed_before_there_is_another_keeper_is_replaced_on_the_same_pipes(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo 1; until [ -e /w/go ]; do sleep 0.05; done; echo 2; exit 7"
    launch = make_launch(tmp_path, exec_root, "k1", ["/bin/sh", "-c", script], binds=(str(tmp_path),))
    shim = await supervisor.launch(launch)
    await shim.start()
    await until(lambda: output(launch) == b"1\n")
    keeper = HeldBackKeeper(monkeypatch)
    await lose_keeper(exec_root, shim)
    assert not keeper.go.is_set()
    kill_all("logd-shim", exec_root)
    await until(lambda: not processes_named("logd-shim", exec_root))
    keeper.go.set()
    await shim.lease(None)
    (tmp_path / "go").touch()
    status = await asyncio.wait_for(shim.exited, WAIT_S)
    assert (status.code, status.known) == (7, True)
    assert await asyncio.wait_for(shim.drained, WAIT_S) == (4, 0)
    assert output(launch) == b"1\n2\n"
    assert summary(launch.container_dir + "/log").gaps == ()
    delete(launch)


async def test_under_load_keepers_and_shims_killed_in_turn_cost_no_line_and_leave_no_gap(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor
) -> None:
    lines = 6_000_000
    build_loggen(tmp_path)
    command = ["/w/loggen", "gen", "-n", str(lines), "-b", "0", "-o", "/w/k2.report", "-k", "/w/end"]
    store = StoreOptions(max_size=1 << 40)
    launch = make_launch(tmp_path, exec_root, "k2", command, binds=(str(tmp_path),), store=store)
    shim = await supervisor.launch(launch)
    await shim.start()
    for _ in range(6):
        await lose_keeper(exec_root, shim)
        kill_all("logd-shim", exec_root)
        await shim.lease(None)  # answered by the shim that came in its place
    (tmp_path / "end").touch()
    assert (await asyncio.wait_for(shim.exited, WAIT_S)).code == 0
    await asyncio.wait_for(shim.drained, WAIT_S)
    assert summary(launch.container_dir + "/log").gaps == ()
    outcome = {**stored(launch, lines), **report(tmp_path, "k2")}
    assert [outcome[name] for name in ("lines", "missing", "doubled", "disorder", "bad")] == [lines, 0, 0, 0, 0]
    assert outcome["generator_errno"] == 0
    delete(launch)


async def test_a_keeper_that_cannot_be_started_is_tried_again_and_then_holds_the_shims(
    tmp_path: Path, exec_root: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = make_launch(tmp_path, exec_root, "k3", ["/bin/sh", "-c", "echo 1; exec sleep 600"])
    shim = await supervisor.launch(launch)
    await shim.start()
    spawn, refused = supervisor_module._spawn_keeper, []

    def refuse_once(root: Path, connection: int) -> int:
        if not refused:
            refused.append(root)
            raise BlockingIOError("Resource temporarily unavailable")
        return spawn(root, connection)

    monkeypatch.setattr(supervisor_module, "_spawn_keeper", refuse_once)
    monkeypatch.setattr(supervisor_module, "KEEPER_RETRY_S", 0.1)
    kill_all("logd-keeper", exec_root)
    await until(lambda: bool(refused) and bool(processes_named("logd-keeper", exec_root)))
    kill_all("logd-shim", exec_root)
    await shim.lease(None)
    shim.signal(signal.SIGKILL)
    assert (await asyncio.wait_for(shim.exited, WAIT_S)).code == 137
    assert summary(launch.container_dir + "/log").gaps == ()
    delete(launch)


def output(launch: Launch) -> bytes:
    folder = Path(launch.container_dir) / "log"
    return b"".join(file.read_bytes() for file in sorted(folder.glob("*.stdout")))
