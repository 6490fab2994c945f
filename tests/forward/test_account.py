"""The account of a container's bytes: it adds up, and a term that is wrong shows."""

import os
import threading
from pathlib import Path

import pytest

from logd.forward.account import account, terms
from logd.logstore.backlog import Backlog
from logd.logstore.gauge import Gauge
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.progress import Progress, ProgressFile, read_progress
from logd.logstore.reader import RawReader
from logd.logstore.writer import StoreWriter
from logd.record import STDERR, STDOUT, Run

OPTIONS = StoreOptions(max_size=4096, max_file=2, min_free=0)


def write(folder: Path, chunks: list[tuple[int, bytes]], options: StoreOptions = OPTIONS) -> None:
    writer = open_store(str(folder), options)
    for stream, data in chunks:
        put(writer, stream, data)
    writer.close()


def put(writer: StoreWriter, stream: int, data: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, data)
    assert writer.take(stream, reading, len(data)) == 0
    os.close(reading)
    os.close(writing)


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


def test_it_adds_up_at_any_moment_while_bytes_flow_and_a_cursor_moves(tmp_path: Path) -> None:
    file = ProgressFile(str(tmp_path), "x", Progress())  # without a claim: retention takes what it has not had
    done = threading.Event()

    def flow() -> None:
        writer, reading = open_store(str(tmp_path), OPTIONS), RawReader(str(tmp_path), start=(0, 0))
        for number in range(3000):
            put(writer, STDOUT if number % 3 else STDERR, b"x" * (number % 97 + 1))
            if number % 5 == 0:
                for item in reading.read(1000):
                    if isinstance(item, Run):
                        file.progress.delivered += len(item.data)
                    else:
                        file.progress.dropped["gone"] = file.progress.dropped.get("gone", 0) + item.length
                file.progress.positions = reading.position
                file.save()
        writer.close()
        reading.close()
        done.set()

    flowing = threading.Thread(target=flow)
    flowing.start()
    gauge, backlog, looks = Gauge(str(tmp_path)), Backlog(str(tmp_path)), 0
    while not done.is_set() or not looks:
        assert account(str(tmp_path))["x"]["difference"] == 0
        measure = gauge.read()
        waiting = backlog.count(measure.drivers["x"].positions, measure.ends, float("inf"))
        assert waiting is not None
        found = terms(measure.drivers["x"], measure.ends, measure.captured, waiting.held, waiting.missing)
        assert found.difference == 0
        looks += 1
    flowing.join()
    gauge.close()
    file.close()
    assert account(str(tmp_path))["x"]["delivered"] > 0


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
