"""The observer's parts: lines that are cut anywhere, budgets, layers of which the container is no friend; its end."""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from full_disk import mounted

from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.writer import StoreWriter
from logd.metrics import layers, observer
from logd.metrics.layers import Layer
from logd.metrics.lines import LineCounter
from logd.metrics.observer import Line, Observer
from logd.record import STDERR, STDOUT

OPTIONS = StoreOptions(max_size=1 << 30, max_file=5, min_free=0)
PATIENCE_S = 60.0
LENGTH = struct.Struct("<I")


def put(writer: StoreWriter, stream: int, data: bytes) -> None:
    reading, writing = os.pipe()
    for at in range(0, len(data), 60_000):
        piece = data[at : at + 60_000]
        os.write(writing, piece)
        writer.take(stream, reading, len(piece))
    os.close(reading)
    os.close(writing)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[StoreWriter]:
    made = open_store(str(tmp_path / "log"), OPTIONS)
    yield made
    made.close()


def test_a_line_that_comes_in_pieces_counts_once_and_by_its_begin(tmp_path: Path, writer: StoreWriter) -> None:
    counter = LineCounter(str(tmp_path / "log"), (0, 0))
    text = b"ERROR " + b"x" * 5000 + b"\nINFO two\nthree"
    rng = random.Random(3)
    at = 0
    while at < len(text):
        size = rng.randrange(1, 900)
        put(writer, STDOUT, text[at : at + size])
        put(writer, STDERR, b"WARN\n")
        at += size
        while counter.read(examine=True):
            pass
        assert counter.resume[0] <= counter.position[0]
    counts, skipped = counter.take()
    assert (counts["error"], counts["info"], skipped) == (1, 1, 0)
    assert counts.keys() == {"error", "info", "warning"}
    assert counter.resume == (text.rfind(b"\n") + 1, counter.position[1])
    again = LineCounter(str(tmp_path / "log"), counter.resume)
    put(writer, STDOUT, b" goes on\n")
    for one in (counter, again):
        while one.read(examine=True):
            pass
        assert one.take() == ({"none": 1}, 0)
        one.close()


def test_beyond_the_budget_lines_are_counted_without_a_look_and_then_skipped(
    tmp_path: Path, writer: StoreWriter
) -> None:
    put(writer, STDOUT, b"ERROR one\nERROR two\nERR")
    counter = LineCounter(str(tmp_path / "log"), (0, 0))
    while counter.read(examine=False):
        pass
    assert counter.take() == ({"unexamined": 2}, 0)
    put(writer, STDOUT, b"OR three\nERROR four\n")
    counter.skip()
    assert counter.take() == ({}, 20)
    put(writer, STDOUT, b"ERROR five\n")
    while counter.read(examine=True):
        pass
    assert counter.take() == ({"error": 1}, 0)
    counter.close()


class Daemon:
    """The other side of an observer that runs in a thread."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(PATIENCE_S)
        self.observer = Observer(Line(theirs), 10)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._theirs = theirs
        self._seq = 0

    def _run(self) -> None:
        try:
            self.observer.run()
        except observer.Gone:
            return

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Return what is said until the round is over."""
        self._seq += 1
        empty: dict[str, Any] = {key: [] for key in ("watch", "forget", "grown", "waiting", "layers")}
        raw = json.dumps({"op": "round", "seq": self._seq, "number": self._seq, **empty, **request}).encode()
        self._ours.sendall(LENGTH.pack(len(raw)) + raw)
        said = []
        while not said or said[-1].get("re") != self._seq:
            said.append(self.hear())
        return said[:-1]

    def hear(self) -> dict[str, Any]:
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return json.loads(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        raw = b""
        while len(raw) < size:
            raw += self._ours.recv(size - len(raw))
        return raw

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self._ours.close()
        self.join()
        self._theirs.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


def test_more_than_the_budget_is_counted_for_all_in_turn(
    tmp_path: Path, writer: StoreWriter, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "LEAST_S", 0.0)
    monkeypatch.setattr(observer, "MOST_S", 0.001)
    block = b"2023-01-02 03:04:05,678 - my.logger - INFO - message\n" * 20_000
    for _ in range(200):
        put(writer, STDOUT, block[:60_000])
    put(writer, STDOUT, b"\n")
    quiet = open_store(str(tmp_path / "quiet"), OPTIONS)
    put(quiet, STDOUT, b"ERROR one\n")
    quiet.close()
    watch = [["loud", str(tmp_path / "log"), 0, 0], ["quiet", str(tmp_path / "quiet"), 0, 0]]
    found: dict[str, dict[str, int]] = {"loud": {}, "quiet": {}}
    skipped = 0
    for message in daemon.ask(watch=watch, grown=["loud", "quiet"]):
        for key, _, _, stdout_read, _, counts, skip in message["found"]:
            skipped += skip
            found[key].update({level: found[key].get(level, 0) + count for level, count in counts.items()})
            assert key == "quiet" or stdout_read <= 12_000_001
    assert sum(found["quiet"].values()) == 1
    assert found["loud"].keys() >= {"info"}
    assert skipped > 0


def test_deleted_segments_are_let_go_within_a_moment(tmp_path: Path, daemon: Daemon) -> None:
    folder = tmp_path / "log"
    small = open_store(str(folder), StoreOptions(max_size=4096, max_file=2, min_free=0))
    put(small, STDOUT, b"x" * 99 + b"\n")
    daemon.ask(watch=[["a", str(folder), 0, 0]], grown=["a"])
    assert held(folder)
    for _ in range(300):
        put(small, STDOUT, b"x" * 99 + b"\n")
    (message,) = [daemon.hear()]  # unasked
    (found,) = message["found"]
    counts, skipped = found[5:]
    assert sum(counts.values()) * 100 + skipped == 30_000
    deadline = time.monotonic() + PATIENCE_S
    while held(folder):
        assert time.monotonic() < deadline
    small.close()


def held(folder: Path) -> list[str]:
    """Return the data files of a store that are open in this process for reading."""
    links = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            path, flags = os.readlink(one), Path(f"/proc/self/fdinfo/{one.name}").read_text()
        except OSError:
            continue
        if path.startswith(f"{folder}/") and ".std" in path and int(flags.split("flags:")[1].split()[0], 8) & 3 == 0:
            links.append(path)
    return links


def test_it_ends_when_nobody_asks_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "IDLE_S", 0.05)
    daemon = Daemon()
    daemon.join()
    daemon.close()


def test_it_ends_with_the_daemon() -> None:
    code = (
        "import subprocess, sys, socket, os, time\n"
        "ours, theirs = socket.socketpair()\n"
        "argv = [sys.executable, '-m', 'logd.metrics.observer', str(theirs.fileno()), str(os.getpid())]\n"
        "child = subprocess.Popen(argv, pass_fds=[theirs.fileno()])\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline


# -- layers ----------------------------------------------------------------------------------------------------------


def walked(layer: Layer) -> int:
    """Walk to the end; return in how many steps."""
    steps = 1
    while not layer.step(time.monotonic()):
        steps += 1
    return steps


def test_a_layer_is_its_regular_files_hard_links_once_without_symlinks_and_mounts(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "a" / "b").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x" * 77_777)
    (upper / "one").write_bytes(b"x" * 100)
    (upper / "a" / "b" / "two").write_bytes(b"x" * 20)
    os.link(upper / "one", upper / "a" / "again")
    (upper / "link").symlink_to(outside)
    (upper / "file-link").symlink_to(outside / "secret")
    os.mkfifo(upper / "fifo")
    with mounted(upper / "mount", "1m") as disk:
        (disk / "elsewhere").write_bytes(b"x" * 5000)
        layer = Layer(str(upper))
        walked(layer)
    assert layer.bytes == 120
    gone = Layer(str(tmp_path / "nothing"))
    walked(gone)
    assert gone.bytes == 0


def test_a_walk_of_many_files_can_be_interrupted_and_comes_again_later_the_dearer_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        (tmp_path / f"{number}").write_bytes(b"xx")
    layer = Layer(str(tmp_path))
    assert walked(layer) > 500 // layers.STEP_ENTRIES
    assert layer.bytes == 1000
    assert layer.due_s - time.monotonic() <= layers.PAUSE_S + 1
    monkeypatch.setattr(layers, "SHARE", 1e-9)
    walked(layer)
    assert layer.due_s - time.monotonic() > layers.LONGEST_PAUSE_S - 60
    layer.is_live = False
    walked(layer)
    assert layer.due_s == float("inf")


def test_a_tree_that_is_deep_costs_no_more_descriptors_than_there_may_be(tmp_path: Path) -> None:
    deepest = tmp_path
    for _ in range(layers.MAX_DEPTH + 20):
        deepest /= "d"
        deepest.mkdir()
        (deepest / "file").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    layer = Layer(str(tmp_path))
    while not layer.step(time.monotonic()):
        assert len(os.listdir("/proc/self/fd")) <= before + 2 * layers.MAX_DEPTH + 2
    assert layer.bytes == layers.MAX_DEPTH - 1
    assert len(os.listdir("/proc/self/fd")) == before
