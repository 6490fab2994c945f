"""The account of a container's bytes: it adds up, and a term that is wrong shows."""

from pathlib import Path

import pytest

from logd.forward.account import account
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.progress import Progress, ProgressFile, read_progress
from logd.record import STDERR, STDOUT

OPTIONS = StoreOptions(max_size=4096, max_file=2, min_free=0)


def write(folder: Path, chunks: list[tuple[int, bytes]], options: StoreOptions = OPTIONS) -> None:
    import os

    writer = open_store(str(folder), options)
    for stream, data in chunks:
        reading, writing = os.pipe()
        os.write(writing, data)
        assert writer.take(stream, reading, len(data)) == 0
        os.close(reading)
        os.close(writing)
    writer.close()


def deliver(folder: Path, **values: object) -> None:
    file = ProgressFile(str(folder), "x", Progress(budget=1 << 20))
    for name, value in values.items():
        setattr(file.progress, name, value)
    file.save()
    file.close()


def test_what_was_captured_is_delivered_or_waits(tmp_path: Path) -> None:
    write(tmp_path, [(STDOUT, b"one\n"), (STDERR, b"oops\n"), (STDOUT, b"two\n")])
    deliver(tmp_path, positions=(4, 0), delivered=4)
    found = account(str(tmp_path))["x"]
    assert (found["captured"], found["delivered"], found["buffered"], found["difference"]) == (13, 4, 9, 0)


@pytest.mark.parametrize(
    "broken", [{"delivered": 3}, {"unconfirmed": 1}, {"dropped": {"rejected": 2}}, {"positions": (3, 0)}]
)
def test_a_broken_counter_makes_a_difference(tmp_path: Path, broken: dict[str, object]) -> None:
    write(tmp_path, [(STDOUT, b"one\ntwo\n")])
    deliver(tmp_path, **{"positions": (4, 0), "delivered": 4, **broken})
    assert account(str(tmp_path))["x"]["difference"] != 0


def test_what_retention_took_unread_is_told_apart_from_what_waits(tmp_path: Path) -> None:
    deliver(tmp_path, budget=0)
    write(tmp_path, [(STDOUT, b"x" * 2047 + b"\n") for _ in range(8)])
    found = account(str(tmp_path))["x"]
    assert found["difference"] == 0
    assert found["buffered"] + found["dropped"]["unread-gaps"] == found["captured"] == 8 * 2048
    assert found["dropped"]["unread-gaps"] > 0


def test_a_claim_keeps_segments_within_its_budget(tmp_path: Path) -> None:
    deliver(tmp_path)
    write(tmp_path, [(STDOUT, b"x" * 2047 + b"\n") for _ in range(40)])
    assert account(str(tmp_path))["x"]["buffered"] == 40 * 2048
    deliver(tmp_path, budget=20_000)
    write(tmp_path, [(STDOUT, b"x" * 2047 + b"\n") for _ in range(8)])
    assert account(str(tmp_path))["x"]["buffered"] <= 24_576


def test_a_torn_slot_leaves_the_other_and_a_second_holder_is_refused(tmp_path: Path) -> None:
    deliver(tmp_path, delivered=1)
    deliver(tmp_path, delivered=2)
    before = read_progress(str(tmp_path))["x"]
    path = tmp_path / "cursors" / "x"
    raw = bytearray(path.read_bytes())
    at = before.sequence % 2 * 2048
    raw[at + 100 : at + 110] = b"garbage..."
    path.write_bytes(raw)
    assert read_progress(str(tmp_path))["x"].sequence == before.sequence - 1
    first = ProgressFile(str(tmp_path), "x", Progress())
    with pytest.raises(BlockingIOError):
        ProgressFile(str(tmp_path), "x", Progress())
    first.close()
