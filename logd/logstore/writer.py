"""The one writer of a store: moves batches from a staging pipe into the segment's files and indexes them.

Order within a batch: data, then the index entry, so that whoever sees an entry finds its data. Standard library
only, and little of it: this runs in every shim, and what it does not touch costs a shim nothing. `open_store` (in
opening.py) makes a writer.

The writer holds an exclusive lock on the store (`lock`) from before its first look until its end, so that there is
never a second one. It keeps no output in memory. When the disk is full it first frees closed segments of its own;
if there are none, what arrives is dropped, counted in `totals`, and noted as a gap at the begin of the next segment
(or, with mode=blocking, left in the staging pipe until there is room).
"""

import errno
import os
import time
from typing import Final, NamedTuple

from logd.logstore import ballast
from logd.logstore.ballast import FULL
from logd.logstore.inventory import Closed
from logd.logstore.options import StoreOptions
from logd.logstore.recovery import MAX_LENGTH
from logd.logstore.retention import Retention, missing_reserve
from logd.logstore.segment import (
    ENTRY_BYTES,
    HEADER_ENTRIES,
    REASON_CODES,
    Kind,
    data_name,
    index_name,
    pack_entry,
    pack_header,
    split_exec_id,
)
from logd.record import STDERR, STDOUT

RESERVE_CHECK_BYTES: Final = 8 << 20
"""How much is written between two looks at the host's free space."""
RETRY_S: Final = 0.1
"""How often a full disk is tried again."""
FILE_MODE: Final = 0o640
DATA: Final = int(Kind.DATA)


class Place(NamedTuple):
    """Where a writer stands: plain numbers, so that one process can open a store and another go on writing it."""

    number: int
    """The segment being written."""
    entries: int
    """How many entries its index has."""
    last_ns: int
    """The time of the last one."""
    size: int
    """Bytes of data in it, both streams."""
    begins: tuple[int, int]
    """The positions of stdout and stderr at which it begins."""
    ends: tuple[int, int]
    """The positions after the last byte taken, kept or dropped."""
    gaps: list[tuple[int, int, int, int]]
    """(stream, position, length, reason code), to be noted at the begin of the next segment."""
    unwritten: bytes
    """Entries that found no room yet."""
    full_reason: str
    """Why nothing can be taken at the moment; empty while all is well."""


def read_boot_id() -> bytes:
    """Return the 16 bytes of the kernel's boot id (proc(5), /proc/sys/kernel/random/boot_id)."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return bytes.fromhex(file.read().strip().replace(b"-", b"").decode())


class StoreWriter:
    """Writes on in the store in `folder`, whose lock is held on the descriptor `lock`, from `place` on.

    `index` is the descriptor of that segment's index if it is open already. The place's fields are not read by name,
    since that costs every shim memory.
    """

    def __init__(self, folder: str, options: StoreOptions, lock: int, place: Place, index: int = -1) -> None:
        self.folder = folder
        self.options = options
        self.protected: tuple[int, int] | None = None
        """Positions from which on a lossless reader still needs everything."""
        self.lock = lock
        self.number, self._entries, self._last_ns, self.size, self._begins, ends, gaps, unwritten, reason = place
        self.ends = {STDOUT: ends[0], STDERR: ends[1]}
        """The positions after the last byte taken, kept or dropped, of each stream."""
        self._gaps = [*gaps]
        self._unwritten = unwritten
        self._full_reason = reason
        self.dropping = reason != ""
        """Whether the disk is full: what arrives now can't be taken."""
        self.claimed = self.blocked = False
        """Whether more is kept than the bounds say, for a driver; whether the container has to wait for it."""
        self._retry_at = 0.0
        self._exec_id = ""
        """Whose bytes are being taken: an exec's, or, while it is empty, the container's own."""
        self._unsynced = False
        self._until_check = RESERVE_CHECK_BYTES
        self._data = {STDOUT: -1, STDERR: -1}
        self._null = -1
        self.index = index
        """The descriptor of the current segment's index."""
        self._index_end = self._entries * ENTRY_BYTES - len(unwritten)
        self._retention: Retention | None = None
        if self.number and index < 0:
            self.index = os.open(f"{folder}/{index_name(self.number)}", os.O_WRONLY | os.O_CLOEXEC)

    @property
    def place(self) -> Place:
        """Where this writer stands now."""
        ends = self.ends[STDOUT], self.ends[STDERR]
        reason = self._full_reason if self.dropping else ""
        stand = self.number, self._entries, self._last_ns, self.size, self._begins
        return Place(*stand, ends, self._gaps, self._unwritten, reason)

    @property
    def retention(self) -> Retention:
        """The closed segments and the counts. Most containers never need them, so they are looked up when one does."""
        if self._retention is None:
            self._retention = Retention(self.folder, self.options, self.number)
        return self._retention

    # -- taking batches ------------------------------------------------------------------------------------------

    def take(self, stream: int, staging: int, count: int) -> int:
        """Move `count` bytes from the staging pipe into the store. Return how many are left in the pipe (disk full).

        With mode=blocking those stay for a later `take`; else the caller calls `drop`.
        """
        if self.dropping and not self.resume():
            return count
        while True:
            moved = 0
            try:
                descriptor = self._data[stream]
                if descriptor < 0:
                    descriptor = self._open_data(stream)
                while moved < count:
                    moved += os.splice(staging, descriptor, count - moved)
            except OSError as error:
                if error.errno not in FULL:
                    raise
            if moved:
                self._note_batch(stream, moved)
                count -= moved
            if not count:
                return 0
            if not self.retention.free_oldest(self.protected):  # the disk is full, and nothing of our own can go
                self.stop_writing("no-space")
                return count

    def take_of_exec(self, exec_id: str, stream: int, pipe: int, count: int, *, on_new_line: bool) -> int:
        """As `take`, of whole lines that an exec has printed; `on_new_line`: first end the line that is unfinished."""
        if self.dropping and not self.resume():
            return count
        self._exec_id = exec_id
        try:
            if on_new_line:
                self._end_line(stream)
            return self.take(stream, pipe, count)
        finally:
            self._exec_id = ""

    def _end_line(self, stream: int) -> None:
        """Write a newline; on a full disk what follows goes without."""
        try:
            descriptor = self._data[stream] if self._data[stream] >= 0 else self._open_data(stream)
            os.write(descriptor, b"\n")
        except OSError as error:
            if error.errno not in FULL:
                raise
        else:
            self._note_batch(stream, 1)

    def is_at_line_begin(self, stream: int) -> bool:
        """Tell whether what was taken of a stream last ended with a newline, as far as it is still there."""
        for number in (self.number, self.number - 1):
            try:
                descriptor = os.open(f"{self.folder}/{data_name(number, stream)}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                size = os.fstat(descriptor).st_size
                if size:
                    return os.pread(descriptor, 1, size - 1) == b"\n"
            finally:
                os.close(descriptor)
        return True

    def _note_batch(self, stream: int, length: int) -> None:
        now = time.time_ns()
        stepped = now < self._last_ns
        if stepped:  # the clock went back: this batch's data is here, so its time can't be
            now = self._last_ns
        else:
            self._last_ns = now
        if self._exec_id:
            first, last = split_exec_id(self._exec_id)
            self._append(now, 0, first, 0, Kind.EXEC, last)
        self._append(now, self.ends[stream], length, stream, DATA, 0)
        self.ends[stream] += length
        self.size += length
        self._unsynced = True
        if self.options.sync == "always":
            self.sync()
        if self.size >= self.options.max_size or stepped:
            self._rotate_if_room()
        self._until_check -= length
        if self._until_check <= 0:
            self._until_check = RESERVE_CHECK_BYTES
            self._look_at_host()

    def room(self) -> int:
        """Return how many bytes still fit into the segment."""
        room = self.options.max_size - self.size
        return room if room > 0 else 1

    # -- a full disk ---------------------------------------------------------------------------------------------

    def stop_writing(self, reason: str) -> None:
        """Take nothing until `resume` finds that it is possible again."""
        self.dropping = True
        self._full_reason = reason
        self._retry_at = time.monotonic() + RETRY_S

    def drop(self, stream: int, staging: int, count: int) -> None:
        """Throw `count` bytes of the staging pipe away and count them."""
        if self._null < 0:
            self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        left = count
        while left:
            left -= os.splice(staging, self._null, left)
        code = REASON_CODES[self._full_reason]
        self._add_gap(stream, self.ends[stream], count, code)
        self.ends[stream] += count
        self.retention.count_dropped(stream, count, code, self.ends)

    def _add_gap(self, stream: int, position: int, length: int, code: int) -> None:
        """Note a gap for the next segment; one that continues the stream's last gap lengthens it."""
        for at, (gap_stream, start, have, gap_code) in enumerate(self._gaps):
            if gap_stream == stream and gap_code == code and start + have == position:
                self._gaps[at] = (stream, start, have + length, code)
                return
        self._gaps.append((stream, position, length, code))

    def resume(self) -> bool:
        """Try, not too often, to go on after a full disk; true when writing is possible again."""
        now = time.monotonic()
        if now < self._retry_at:
            return False
        self._retry_at = now + RETRY_S
        try:
            if not self.retention.free(missing_reserve(self.folder, self.options), self.protected):
                return False
            self.rotate()
            ballast.make(self.folder, FILE_MODE)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return False
        self.dropping = False
        return True

    # -- the index -----------------------------------------------------------------------------------------------

    def _append(self, now: int, position: int, length: int, stream: int, kind: int, reason: int) -> None:
        entry = pack_entry(self._entries, now, position, length, stream, kind, reason)
        self._entries += 1
        if not self._unwritten:
            try:
                if os.pwrite(self.index, entry, self._index_end) == ENTRY_BYTES:
                    self._index_end += ENTRY_BYTES
                    return
            except OSError as error:
                if error.errno not in FULL:
                    raise
        self._unwritten += entry
        ballast.drop(self.folder)
        self._flush_index()
        if self._unwritten:
            self.stop_writing("no-space")

    def _flush_index(self) -> None:
        """Write entries that found no room. Those that still don't are adopted if this process dies first."""
        while self._unwritten:
            try:
                written = os.pwrite(self.index, self._unwritten, self._index_end)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                return
            written -= written % ENTRY_BYTES
            if not written:
                return
            self._index_end += written
            self._unwritten = self._unwritten[written:]

    def mark(self, kind: Kind, run: int) -> None:
        """Note that run number `run` of the container began or that its output ended."""
        self._last_ns = max(self._last_ns, time.time_ns())
        self._append(self._last_ns, 0, run, 0, kind, 0)
        if kind is Kind.END:
            self.retention.save(self.ends)

    def note_gap(self, stream: int, length: int, reason: str) -> None:
        """Note a gap of unknown length (0) where the stream stands now."""
        self._last_ns = max(self._last_ns, time.time_ns())
        self._append(self._last_ns, self.ends[stream], length, stream, Kind.GAP, REASON_CODES[reason])

    # -- segments ------------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Close the segment and begin the next; then let go what the bounds no longer allow."""
        self._begin_segment(self.number + 1)
        self.enforce()

    def _rotate_if_room(self) -> None:
        try:
            self.rotate()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.stop_writing("no-space")

    def _begin_segment(self, number: int) -> None:
        """Create segment `number`, its header and the entries of the gaps before it. ENOSPC leaves the old one open."""
        if self.dropping:
            ballast.drop(self.folder)
        self._flush_index()
        if self._unwritten:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), index_name(self.number))
        now = time.time_ns()
        begins = self.ends[STDOUT], self.ends[STDERR]
        raw = pack_header(now, *begins, read_boot_id())
        entries = HEADER_ENTRIES
        for stream, position, length, code in self._gaps:
            for at in range(0, max(length, 1), MAX_LENGTH):
                part = min(length - at, MAX_LENGTH)
                raw += pack_entry(entries, now, position + at, part, stream, Kind.GAP, code)
                entries += 1
        retention = self.retention
        index = _create_whole(f"{self.folder}/{index_name(number)}", raw)
        if self.index >= 0:
            self._close_segment()
        self.number, self.index, self._entries, self._index_end = number, index, entries, len(raw)
        self._gaps.clear()
        self.size, self._last_ns, self._begins = 0, now, begins
        retention.save(self.ends)

    def _close_segment(self) -> None:
        if self.options.sync:
            self.sync()
        for stream, descriptor in self._data.items():
            if descriptor >= 0:
                os.close(descriptor)
                self._data[stream] = -1
        os.close(self.index)
        ends = self._data_end(STDOUT), self._data_end(STDERR)
        self.retention.closed.append(Closed(self.number, self.size, self._last_ns, self._begins, ends))

    def _data_end(self, stream: int) -> int:
        """Return the position after the last byte kept: what was dropped since belongs to no segment."""
        return min((gap[1] for gap in self._gaps if gap[0] == stream), default=self.ends[stream])

    def _open_data(self, stream: int) -> int:
        path = f"{self.folder}/{data_name(self.number, stream)}"
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)  # splice refuses O_APPEND
        os.lseek(descriptor, 0, os.SEEK_END)
        self._data[stream] = descriptor
        return descriptor

    # -- bounds and durability -----------------------------------------------------------------------------------

    def enforce(self) -> None:
        """Remove closed segments that the store's and the host's bounds no longer allow."""
        retention = self.retention
        retention.enforce(time.time_ns(), self.protected, (self.ends[STDOUT], self.ends[STDERR]))
        self.claimed, self.blocked = retention.is_claimed, retention.is_blocked

    def change_options(self, options: StoreOptions) -> None:
        """Go by these from now on; what they no longer allow is let go at once."""
        if options == self.options:
            return
        if self.options.sync:
            self.sync()
        self.options = options
        if self._retention is not None:
            self._retention.options = options
        if self.dropping:
            return  # `resume` goes by them
        if self.size >= options.max_size:
            self._rotate_if_room()
        else:
            self.enforce()

    def _look_at_host(self) -> None:
        missing = missing_reserve(self.folder, self.options)
        if missing and not self.retention.free(missing, self.protected):
            self.stop_writing("min-free")

    def clear(self) -> None:
        """Remove everything that was captured so far, at a person's wish. Raises OSError if that finds no room."""
        self.retention.clear()  # on a full disk this makes room for the next segment
        self._begin_segment(self.number + 1)
        self.retention.clear()

    def sync(self) -> None:
        """Force what was written to the disk. A failure is never retried as if it had worked: it is noted as a gap."""
        if not self._unsynced:
            return
        self._unsynced = False
        opened = {stream: descriptor for stream, descriptor in self._data.items() if descriptor >= 0}
        try:
            for descriptor in opened.values():
                os.fdatasync(descriptor)
            os.fdatasync(self.index)
        except OSError:
            for stream in opened:
                self._add_gap(stream, self.ends[stream], 0, REASON_CODES["sync-failed"])
            self._rotate_if_room()

    def leave(self) -> None:
        """Close the files but not the lock: another process that shares it goes on from `place`."""
        for descriptor in (*self._data.values(), self.index, self._null):
            if descriptor >= 0:
                os.close(descriptor)

    def close(self) -> None:
        """Close the files and give up the lock."""
        self._flush_index()
        if self.options.sync:
            self.sync()
        self.retention.save(self.ends)
        self.retention.close()
        self.leave()
        os.close(self.lock)


def _create_whole(path: str, raw: bytes) -> int:
    """Create a file with this content and return a descriptor to it; on a full disk nothing of it is left."""
    partial = path + ".new"
    descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
    try:
        if os.write(descriptor, raw) != len(raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), partial)
        os.rename(partial, path)
    except OSError:
        os.close(descriptor)
        os.unlink(partial)
        raise
    return descriptor
