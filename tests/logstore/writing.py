"""What tests of the writer share: a store to write into, a look at what is stored, a process that dies at a step."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.segment import (
    GAP_REASONS,
    Kind,
    data_name,
    index_name,
    segment_numbers,
    unpack_entry,
    unpack_header,
)
from logd.logstore.writer import StoreWriter
from logd.record import STDERR, STDOUT

BIG = StoreOptions(max_size=1 << 40, max_file=1000, min_free=0)


def put(writer: StoreWriter, stream: int, data: bytes) -> int:
    """Have the writer take `data` from a pipe, as a shim does; what it leaves is dropped. Return what it left."""
    reading, writing = os.pipe()
    os.write(writing, data)
    left = writer.take(stream, reading, len(data))
    if left:
        writer.drop(stream, reading, left)
    os.close(reading)
    os.close(writing)
    return left


def abandon(writer: StoreWriter) -> None:
    """Let the writer die: nothing is saved, the kernel closes its files."""
    writer.leave()
    os.close(writer.lock)


class Stored(NamedTuple):
    """What a store's files say."""

    runs: dict[int, list[tuple[int, bytes]]]
    """By stream: (position, bytes) of each batch."""
    gaps: list[tuple[int, int, int, str]]
    """(stream, position, length, reason)."""
    marks: list[tuple[int, int]]
    """(kind, run)."""
    times: list[list[int]]
    """Of the entries behind the header, by segment."""

    def text(self, stream: int) -> bytes:
        return b"".join(data for _, data in self.runs[stream])

    def end(self, stream: int) -> int:
        return max((at + len(data) for at, data in self.runs[stream]), default=0)


def stored(folder: Path) -> Stored:
    """Read a store by the letter of its format, and hold index and data to each other."""
    found = Stored({STDOUT: [], STDERR: []}, [], [], [])
    for number in segment_numbers(str(folder)):
        raw = (folder / index_name(number)).read_bytes()
        header = unpack_header(raw[:96])
        assert header is not None
        assert len(raw) % 32 == 0
        data = {stream: _content(folder / data_name(number, stream)) for stream in (STDOUT, STDERR)}
        times = []
        for at in range(96, len(raw), 32):
            entry = unpack_entry(raw[at : at + 32])
            assert entry is not None
            assert entry.sequence == at // 32
            times.append(entry.time_ns)
            if entry.kind in (Kind.DATA, Kind.ADOPTED):
                offset = entry.position - header.base(entry.stream)
                part = data[entry.stream][offset : offset + entry.length]
                assert len(part) == entry.length, "an entry without its data"
                found.runs[entry.stream].append((entry.position, part))
            elif entry.kind == Kind.GAP:
                found.gaps.append((entry.stream, entry.position, entry.length, GAP_REASONS[entry.reason]))
            else:
                found.marks.append((entry.kind, entry.length))
        found.times.append(times)
    return found


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def die_at(step: str, nth: int, folder: Path, options: StoreOptions, work: Callable[[StoreWriter], None]) -> None:
    """Write in a process that is killed before the `nth` call of os.<step> once the store is open."""
    pid = os.fork()
    if pid == 0:
        try:
            writer = open_store(str(folder), options)
            calls = 0
            real = getattr(os, step)

            def dying(*arguments: object, **more: object) -> object:
                nonlocal calls
                calls += 1
                if calls == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)

            setattr(os, step, dying)
            work(writer)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == signal.SIGKILL, f"os.{step} was not called {nth} times"
