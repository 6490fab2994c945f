"""One store measured again and again through descriptors that stay open: its ends, its size, its counts, its cursors.

A measure of a store that has not changed opens nothing: the sizes of the index and of the folder tell, and what is
written in place (`totals`, `cursors/NAME`) is compared with what was read before. Of a store that has grown only what
is new is read; the folder is listed when its names have changed (rotation, retention, a seal).

The folder may be moved meanwhile, or deleted: then the last figures stay.
"""

import contextlib
import os
import time
from typing import Final, NamedTuple

from logd.logstore.claims import FOLDER, SLOT_BYTES, newest
from logd.logstore.opened import OPEN_FLAGS
from logd.logstore.progress import Progress, progress_of
from logd.logstore.segment import (
    ENTRY_BYTES,
    HEADER_ENTRIES,
    INDEX_NAME,
    Entry,
    Kind,
    data_name,
    index_name,
    segment_numbers,
    unpack_entry,
    unpack_header,
)
from logd.logstore.totals import NAME, Totals, unpack_totals
from logd.logstore.totals import SLOT_BYTES as TOTALS_SLOT_BYTES
from logd.record import STDERR, STDOUT, STREAM_NAMES

STREAMS: Final = (STDOUT, STDERR)
HEADER_BYTES: Final = HEADER_ENTRIES * ENTRY_BYTES
PIECE_BYTES: Final = 4096 * ENTRY_BYTES
"""Of an index, read at a time, from its end."""
SETTLED_NS: Final = 20_000_000
"""A folder whose names have changed less than so long ago may change again without another time of change: the kernel
notes times by its clock tick, 10 ms at most."""
_DATA_ENDINGS: Final = tuple(f".{name}" for name in STREAM_NAMES.values())
HELD: Final = (Kind.DATA, Kind.ADOPTED)
"""Entries that move a stream's end: a segment's base lies behind the gaps before it, later ones have no length."""


class Measure(NamedTuple):
    """A store at a moment. The cursors were read first, then the totals, then the ends: no cursor is beyond them."""

    ends: tuple[int, int]
    """The positions after the last byte of stdout and of stderr that the index names."""
    last_ns: int
    """When the last output came, Unix time; 0 if there was none, or its segment is gone."""
    segments: int
    stored_bytes: int
    """Of both streams, in the files."""
    disk_bytes: int
    """What the store's files take on the disk."""
    totals: Totals
    drivers: dict[str, Progress]
    """The cursors, by the driver's name."""

    @property
    def captured(self) -> tuple[int, int]:
        """The positions after the last byte of both streams that was taken from the container, kept or dropped."""
        stdout, stderr = (self.totals.streams[stream].end for stream in STREAMS)
        return max(self.ends[0], stdout), max(self.ends[1], stderr)


class Gauge:
    """One store in `folder`. Call `close`. Raises FileNotFoundError where there is no such folder."""

    def __init__(self, folder: str) -> None:
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._folder}"
        self._changed_ns = 0
        """When names in the folder had last changed, as of the last list of it; 0: list it again."""
        self._number = 0
        self._index = -1
        self._next_name = index_name(1)
        self._data_names = ("", "")
        self._measured = 0
        """How many bytes of the index have been looked at."""
        self._bases = [0, 0]
        self._ends = [0, 0]
        self._last_ns = 0
        self._segments = self._closed_disk = self._closed_stored = self._open_disk = 0
        self._open_sizes = [0, 0]
        self._totals = _Slots(NAME, 2 * TOTALS_SLOT_BYTES)
        self._counts = Totals()
        self._cursors = _Cursors()

    def keep_cursors(self) -> None:
        """Go on to read cursors after they were deleted: the container is removed, and its drivers with it."""
        self._cursors.keep = True

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (self._folder, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._index = -1
        self._totals.close()
        self._cursors.close()

    def read(self) -> Measure:
        """Return what the store is like now (reads what is in memory as a rule)."""
        if self._is_changed():
            self._totals.open(self._folder)
            self._cursors.open(self._folder)
        drivers = self._cursors.read()
        if (raw := self._totals.read()) is not None:
            self._counts = unpack_totals(raw) or self._counts
        changed_ns = self._is_changed()
        if changed_ns:
            self._find_newest()
        self._look_at_index()
        if changed_ns:
            self._measure_folder(changed_ns)
        return Measure(
            (self._ends[0], self._ends[1]),
            self._last_ns,
            self._segments,
            self._closed_stored + sum(self._open_sizes),
            self._closed_disk + self._open_disk,
            self._counts,
            drivers,
        )

    def _is_changed(self) -> int:
        """Return when names in the folder have changed since they were last listed, 0 if they have not."""
        info = os.fstat(self._folder)
        return info.st_mtime_ns if info.st_mtime_ns != self._changed_ns and info.st_nlink else 0

    # -- the newest index --------------------------------------------------------------------------------------------

    def _find_newest(self) -> None:
        """Go on to the newest segment, having read the ones before it to their ends."""
        while self._index >= 0 and os.access(self._next_name, os.F_OK, dir_fd=self._folder):
            self._look_at_index()
            if not self._open(self._number + 1):
                break
        if self._index >= 0 and os.fstat(self._index).st_nlink:
            return
        numbers = _numbers(self._path)  # at first, or when retention was quicker than we are
        if any(number > self._number and self._open(number) for number in reversed(numbers)):
            self._find_last_output(numbers)

    def _open(self, number: int) -> bool:
        """Make a segment the one that is measured; false if it can't be read."""
        try:
            index = os.open(index_name(number), OPEN_FLAGS, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        header = unpack_header(os.pread(index, HEADER_BYTES, 0))
        if header is None:
            os.close(index)
            return False
        if self._index >= 0:
            os.close(self._index)
        self._index, self._number, self._next_name = index, number, index_name(number + 1)
        self._data_names = data_name(number, STDOUT), data_name(number, STDERR)
        self._bases = [header.stdout_base, header.stderr_base]
        self._ends = [max(pair) for pair in zip(self._ends, self._bases, strict=True)]
        self._measured = HEADER_BYTES
        return True

    def _look_at_index(self) -> None:
        """Take in what was added to the index since the last look."""
        if self._index < 0:
            return
        size = os.lseek(self._index, 0, os.SEEK_END)
        size -= size % ENTRY_BYTES
        if size == self._measured:
            return
        if size < self._measured:  # recovery has cut it
            self._measured, self._ends = HEADER_BYTES, [*self._bases]
        self._measure_open()
        for at, stream in enumerate(STREAMS):
            if self._bases[at] + self._open_sizes[at] > self._ends[at]:  # else nothing of this stream has come
                self._take(at, _last_of(self._index, stream, self._measured, size))
        self._measured = size
        if not os.fstat(self._index).st_nlink:  # retention was so quick that the sizes may have been of nothing
            self._find_newest()
            self._look_at_index()

    def _take(self, at: int, entry: Entry | None) -> None:
        if entry is not None:
            self._ends[at] = max(self._ends[at], entry.position + entry.length)
            self._last_ns = max(self._last_ns, entry.time_ns)

    def _find_last_output(self, numbers: list[int]) -> None:
        """Look, of segments that were not read to their ends, for the time of the last output."""
        before = self._last_ns
        self._look_at_index()
        if self._last_ns == before:
            older = (self._last_output(number) for number in reversed(numbers) if number < self._number)
            self._last_ns = max(before, next((found for found in older if found), 0))

    def _last_output(self, number: int) -> int:
        try:
            index = os.open(index_name(number), OPEN_FLAGS, dir_fd=self._folder)
        except FileNotFoundError:
            return 0
        try:
            size = os.lseek(index, 0, os.SEEK_END)
            found = (_last_of(index, stream, HEADER_BYTES, size - size % ENTRY_BYTES) for stream in STREAMS)
            return max((one.time_ns for one in found if one is not None), default=0)
        finally:
            os.close(index)

    # -- the files' sizes --------------------------------------------------------------------------------------------

    def _measure_open(self) -> None:
        """Measure the files of the segment that is being written."""
        found = [self._stat(name) for name in (*self._data_names, index_name(self._number))]
        self._open_disk = sum(one.st_blocks * 512 for one in found if one is not None)
        self._open_sizes = [0 if one is None else one.st_size for one in found[:2]]

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._folder)
        except FileNotFoundError:
            return None

    def _measure_folder(self, changed_ns: int) -> None:
        """Measure all files; `changed_ns`: when names in the folder had last changed, before that."""
        if self._number:
            self._measure_open()
        ours = {*self._data_names, index_name(self._number)}
        self._segments = self._closed_disk = self._closed_stored = 0
        with os.scandir(self._path) as entries:
            for entry in entries:
                self._segments += INDEX_NAME.fullmatch(entry.name) is not None
                if entry.name in ours or (found := self._stat(entry.name)) is None:
                    continue
                self._closed_disk += found.st_blocks * 512
                if entry.name.endswith(_DATA_ENDINGS):
                    self._closed_stored += found.st_size
        self._changed_ns = changed_ns if time.time_ns() - changed_ns > SETTLED_NS else 0


class _Slots:
    """A file that is written in place, kept open; `name` is relative to the store's folder."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._descriptor = -1
        self._raw = b""

    @property
    def is_deleted(self) -> bool:
        """Whether the file is gone from its folder."""
        return self._descriptor >= 0 and not os.fstat(self._descriptor).st_nlink

    def open(self, folder: int) -> None:
        """Open the file in the folder if that has not been done, and if there is one."""
        if self._descriptor < 0:
            with contextlib.suppress(FileNotFoundError):
                self._descriptor = os.open(self._name, OPEN_FLAGS, dir_fd=folder)

    def read(self) -> bytes | None:
        """Return the content if it differs from the last one; None if not, or if there is no file."""
        if self._descriptor < 0:
            return None
        raw = os.pread(self._descriptor, self._size, 0)
        if raw == self._raw:
            return None
        self._raw = raw
        return raw

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _Cursors:
    """The files `cursors/NAME`; the folder is listed when its names have changed."""

    def __init__(self) -> None:
        self.keep = False
        """Whether files that are deleted still count."""
        self._folder = -1
        self._changed_ns = 0
        self._files: dict[str, _Slots] = {}
        self._drivers: dict[str, Progress] = {}

    def open(self, store: int) -> None:
        """Open the folder, which is in `store`, if that has not been done, and if there is one."""
        if self._folder < 0:
            with contextlib.suppress(FileNotFoundError):
                self._folder = os.open(FOLDER, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=store)

    def read(self) -> dict[str, Progress]:
        """Return how far each driver has come. A file that can't be read at the moment counts as it was."""
        if self._folder >= 0:
            self._look_at_folder()
        for name, file in self._files.items():
            raw = file.read()
            if raw is not None and (slot := newest(raw)) is not None:
                self._drivers[name] = progress_of(slot)
        return dict(self._drivers)

    def _look_at_folder(self) -> None:
        info = os.fstat(self._folder)
        if info.st_mtime_ns == self._changed_ns or not info.st_nlink:
            return
        try:
            names = set(os.listdir(f"/proc/self/fd/{self._folder}"))
        except FileNotFoundError:
            return
        deleted = [name for name, file in self._files.items() if name not in names or file.is_deleted]
        for name in () if self.keep else deleted:
            self._files.pop(name).close()  # one that was removed may have come again under the same name
            self._drivers.pop(name, None)
        for name in names - self._files.keys():
            self._files[name] = _Slots(name, 2 * SLOT_BYTES)
            self._files[name].open(self._folder)
        is_settled = time.time_ns() - info.st_mtime_ns > SETTLED_NS
        self._changed_ns = info.st_mtime_ns if is_settled else 0

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def _numbers(path: str) -> list[int]:
    try:
        return segment_numbers(path)
    except FileNotFoundError:
        return []


def _last_of(index: int, stream: int, low: int, high: int) -> Entry | None:
    """Return a stream's last sound entry that names bytes, of those between two offsets of an index."""
    wanted = bytes((stream,))
    while high > low:
        start = max(low, high - PIECE_BYTES)
        block = os.pread(index, high - start, start)
        streams = block[20::ENTRY_BYTES]
        at = len(streams)
        while (at := streams.rfind(wanted, 0, at)) >= 0:
            entry = unpack_entry(block[at * ENTRY_BYTES : (at + 1) * ENTRY_BYTES])
            if entry is not None and entry.sequence == start // ENTRY_BYTES + at and entry.kind in HELD:
                return entry
        high = start
    return None
