"""Closed segments get their seal in idle time, in a store of a real container."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from logd.engine import sealing
from logd.logstore.fsck import verify
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.record import STDOUT


class Registry:
    """Containers that are looked at for sealing; the real ones need an engine around them."""

    def __init__(self, folder: Path) -> None:
        hold = SimpleNamespace(path=str(folder), close=lambda: None)
        self.container = SimpleNamespace(id="c", removed=False, hold_log=lambda: hold)

    def all(self) -> list[Any]:
        return [self.container]


async def test_closed_segments_are_sealed_and_a_changed_byte_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "log"
    writer = open_store(str(folder), StoreOptions())
    reading, writing = os.pipe()
    os.write(writing, b"a line\n")
    assert writer.take(STDOUT, reading, 7) == 0
    writer.rotate()
    writer.close()
    monkeypatch.setattr(sealing, "ROUND_S", 0.01)
    monkeypatch.setattr(sealing, "is_busy", lambda: False)
    sealed = asyncio.create_task(sealing.seal_in_idle_time(Registry(folder)))  # type: ignore[arg-type]
    while not (folder / "0000000001.sealed").exists():
        await asyncio.sleep(0.01)
    sealed.cancel()
    assert not (folder / "0000000002.sealed").exists(), "the segment being written has no seal"
    assert list(verify(str(folder))) == []
    (folder / "0000000001.stdout").write_bytes(b"a lime\n")
    assert any("changed since it was sealed" in str(finding) for finding in verify(str(folder)))
    for end in (reading, writing):
        os.close(end)
