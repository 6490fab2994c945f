"""Shims on a disk without a free block, a real one: containers go on, losses are counted, the rest comes later."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundle import delete, make_launch
from full_disk import fill, mounted
from killing import kill_all

from logd.logstore.fsck import verify
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.segment import ENTRY_BYTES, HEADER_ENTRIES, Kind, segment_numbers
from logd.logstore.totals import read_totals
from logd.record import STDERR, STDOUT
from logd.runtime.protocol import Launch, read_exit_status
from logd.runtime.shim_client import Shim
from logd.runtime.supervisor import Supervisor

WAIT_S = 60
STORE = StoreOptions(max_size=1 << 30, min_free=0)
PAGE_ENTRIES = 4096 // ENTRY_BYTES
NOT_INDEXED = b"not indexed\n"
TALKATIVE = ["/bin/sh", "-c", "until [ -e /w/end ]; do echo line; sleep 0.01; done; exit 3"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "16m") as disk:
        yield disk


def prepare_store(launch: Launch) -> None:
    """Leave a store whose next entry needs a new block, with bytes that wait for theirs, and without a ballast."""
    folder = Path(launch.container_dir) / "log"
    writer = open_store(str(folder), STORE)
    for _ in range(PAGE_ENTRIES - HEADER_ENTRIES):
        writer.mark(Kind.BEGIN, 1)
    with (folder / "0000000001.stdout").open("wb") as file:
        file.write(NOT_INDEXED)
    writer.close()
    (folder / "ballast").unlink()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def dropped(launch: Launch) -> int:
    return sum(read_totals(launch.container_dir + "/log").streams[STDOUT].dropped)


async def loses_more(launch: Launch) -> None:
    """Return when bytes were counted as lost since the call: a shim is at work, and the container writes."""
    before = dropped(launch)
    await until(lambda: dropped(launch) > before)


async def start_on_full_disk(supervisor: Supervisor, launch: Launch, disk: Path) -> tuple[Shim, Path]:
    prepare_store(launch)
    filler = fill(disk)
    shim = await supervisor.launch(launch)
    await shim.start()
    await loses_more(launch)
    return shim, filler


async def test_shims_are_replaced_and_the_container_adopted_and_all_is_whole_once_there_is_room(
    tmp_path: Path, exec_root: Path, disk: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(disk, exec_root, "d1", TALKATIVE, binds=(str(tmp_path),), store=STORE)
    folder = launch.container_dir + "/log"
    _, filler = await start_on_full_disk(supervisor, launch, disk)
    for _ in range(3):
        kill_all("logd-shim", exec_root)
        await loses_more(launch)
    await supervisor.close()
    later = Supervisor(exec_root)
    await later.start()
    shim = await later.adopt("d1", launch)
    assert shim is not None
    await loses_more(launch)
    assert not shim.exited.done()
    filler.unlink()
    await until(lambda: len(segment_numbers(folder)) > 1)
    stored = Path(folder) / f"{segment_numbers(folder)[-1]:010}.stdout"
    await until(lambda: stored.exists() and stored.stat().st_size > 0)
    (tmp_path / "end").touch()
    assert (await asyncio.wait_for(shim.exited, WAIT_S)).code == 3
    end, _ = await asyncio.wait_for(shim.drained, WAIT_S)
    output = b"".join(file.read_bytes() for file in sorted(Path(folder).glob("*.stdout")))
    assert output.startswith(NOT_INDEXED)
    assert end == len(output) + dropped(launch)
    assert verify(folder) == []
    assert read_totals(folder).streams[STDERR].end == 0
    await later.close()
    delete(launch)


async def test_a_container_that_ends_on_the_full_disk_is_let_go_with_its_exit(
    tmp_path: Path, exec_root: Path, disk: Path, supervisor: Supervisor
) -> None:
    launch = make_launch(disk, exec_root, "d2", TALKATIVE, binds=(str(tmp_path),), store=STORE)
    shim, filler = await start_on_full_disk(supervisor, launch, disk)
    (tmp_path / "end").touch()
    assert (await asyncio.wait_for(shim.exited, WAIT_S)).code == 3
    await asyncio.wait_for(shim.drained, WAIT_S)
    await asyncio.wait_for(shim.gone.wait(), WAIT_S)
    assert shim.saw_end
    status = read_exit_status(launch.exec_dir, launch.container_dir)
    assert status is not None
    assert (status.code, status.run) == (3, 1)
    assert b"Traceback" not in (exec_root / "keeper.log").read_bytes()
    filler.unlink()
    folder = launch.container_dir + "/log"
    open_store(folder, STORE).close()
    assert verify(folder) == []
    delete(launch)
