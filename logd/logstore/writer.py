"""The one writer of a store: moves batches from a staging pipe into the segment's files and indexes them.

Order within a batch: data, then the index entry, so that whoever sees an entry finds its data. Standard library
only, and little of it: this runs in every shim.

The writer holds an exclusive lock on the store (`lock`) from before its first look until its end, so that there is
never a second one. It keeps no output in memory. When the disk is full it first frees closed segments of its own;
if there are none, what arrives is dropped, counted in `totals`, and noted as a gap at the begin of the next segment
(or, with mode=blocking, left in the staging pipe until there is room).
"""

import errno
import fcntl
import os
import time
from typing import Final

from logd.logstore.ballast import FULL, Ballast
from logd.logstore.inventory import Closed, bases, closed_segments, data_bytes
from logd.logstore.options import StoreOptions
from logd.logstore.recovery import MAX_LENGTH, Recovered, recover
from logd.logstore.retention import delete_segment, expired, host_excess, is_protected, missing_reserve
from logd.logstore.segment import (
    ENTRY_BYTES,
    HEADER_ENTRIES,
    REASON_CODES,
    Kind,
    data_name,
    index_name,
    pack_entry,
    pack_header,
)
from logd.logstore.totals import TotalsFile
from logd.record import STDERR, STDOUT

RESERVE_CHECK_BYTES: Final = 8 << 20
"""How much is written between two looks at the host's free space."""
RETRY_S: Final = 0.1
"""How often a full disk is tried again."""
FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750


def read_boot_id() -> bytes:
    """Return the 16 bytes of the kernel's boot id (proc(5), /proc/sys/kernel/random/boot_id)."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return bytes.fromhex(file.read().strip().replace(b"-", b"").decode())


class StoreWriter:
    """Opens (waiting for the lock), recovers and writes the store in `folder`. Raises OSError if that is impossible."""

    def __init__(self, folder: str, options: StoreOptions) -> None:
        self.folder = folder
        self.options = options
        self.protected: tuple[int, int] | None = None
        """Positions from which on a lossless reader still needs everything."""
        os.makedirs(folder, FOLDER_MODE, exist_ok=True)
        self._lock = os.open(os.path.join(folder, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._totals = TotalsFile(folder, FILE_MODE)
        self._boot_id = read_boot_id()
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        found = recover(folder, self._boot_id, time.time_ns(), self._totals.totals)
        self.ends = {STDOUT: found.ends[0], STDERR: found.ends[1]}
        """The positions after the last byte taken, kept or dropped, of each stream."""
        self.dropping = False
        """Whether the disk is full: what arrives now can't be taken."""
        self._gaps = list(found.gaps)
        self._data: dict[int, int] = {}
        self._index = -1
        self._unwritten = b""
        self._unsynced = False
        self._until_check = RESERVE_CHECK_BYTES
        self._retry_at = 0.0
        self._full_reason = "no-space"
        self.number = self._entries = self._index_end = self._last_ns = self.size = 0
        self._begins = found.ends
        self._closed = closed_segments(folder, found.number if found.reusable else None, found.ends)
        self._ballast = Ballast(folder, FILE_MODE)
        self._ballast.make()
        if found.reusable:
            self._reopen(found)
        else:
            self._begin_first(found)

    # -- taking batches ------------------------------------------------------------------------------------------

    def take(self, stream: int, staging: int, count: int) -> int:
        """Move `count` bytes from the staging pipe into the store. Return how many are left in the pipe (disk full).

        With mode=blocking those stay for a later `take`; else the caller calls `drop`.
        """
        if self.dropping and not self.resume():
            return count
        left = count - self._splice(stream, staging, count)
        while left:  # the disk is full: free an old segment of our own and go on
            if not self._closed or is_protected(self._closed[0], self.protected):
                self._stop_writing("no-space")
                return left
            self._expire(self._closed[0])
            left -= self._splice(stream, staging, left)
        return 0

    def _splice(self, stream: int, staging: int, count: int) -> int:
        """Move and index what the disk takes of `count` bytes; return how much it was."""
        moved = 0
        try:
            descriptor = self._data.get(stream) or self._open_data(stream)
            while moved < count:
                moved += os.splice(staging, descriptor, count - moved)
        except OSError as error:
            if error.errno not in FULL:
                raise
        self._note_batch(stream, moved)
        return moved

    def _stop_writing(self, reason: str) -> None:
        self.dropping = True
        self._full_reason = reason
        self._retry_at = time.monotonic() + RETRY_S

    def drop(self, stream: int, staging: int, count: int) -> None:
        """Throw `count` bytes of the staging pipe away and count them."""
        left = count
        while left:
            left -= os.splice(staging, self._null, left)
        code = REASON_CODES[self._full_reason]
        self._add_gap(stream, self.ends[stream], count, code)
        self.ends[stream] += count
        totals = self._totals.totals.streams[stream]
        totals.dropped[code] += count
        totals.end = self.ends[stream]
        self._totals.save()

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
            if not self._free_for_host(self._missing_reserve()):
                return False
            self.rotate()
            self._ballast.make()
        except OSError as error:
            if error.errno not in FULL:
                raise
            return False
        self.dropping = False
        return True

    def _note_batch(self, stream: int, length: int) -> None:
        if not length:
            return
        now = time.time_ns()
        if now < self._last_ns:  # the clock stepped back: this batch's data is here, so its time can't be
            now, stepped = self._last_ns, True
        else:
            self._last_ns, stepped = now, False
        self._append(now, self.ends[stream], length, stream)
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
        return max(1, self.options.max_size - self.size)

    # -- the index -----------------------------------------------------------------------------------------------

    def _append(
        self, now: int, position: int, length: int, stream: int, kind: int = Kind.DATA, reason: int = 0
    ) -> None:
        entry = pack_entry(self._entries, now, position, length, stream, kind, reason)
        self._entries += 1
        if not self._unwritten:
            try:
                if os.pwrite(self._index, entry, self._index_end) == ENTRY_BYTES:
                    self._index_end += ENTRY_BYTES
                    return
            except OSError as error:
                if error.errno not in FULL:
                    raise
        self._unwritten += entry
        self._ballast.drop()
        self._flush_index()
        if self._unwritten:
            self._stop_writing("no-space")

    def _flush_index(self) -> None:
        """Write entries that found no room. Those that still don't are adopted if this process dies first."""
        while self._unwritten:
            try:
                written = os.pwrite(self._index, self._unwritten, self._index_end)
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
        self._append(self._last_ns, 0, run, 0, kind)
        if kind is Kind.END:
            self._save_totals()

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
            self._stop_writing("no-space")

    def _begin_first(self, found: Recovered) -> None:
        """Begin a segment on opening; on a full disk go on with the old one, dropping, if there is any."""
        try:
            self._begin_segment(found.number + 1)
        except OSError as error:
            if error.errno not in FULL or not found.number:
                raise
            self._reopen(found)
            self._stop_writing("no-space")

    def _begin_segment(self, number: int) -> None:
        """Create segment `number`, its header and the entries of the gaps before it. ENOSPC leaves the old one open."""
        if self.dropping:
            self._ballast.drop()
        self._flush_index()
        if self._unwritten:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), index_name(self.number))
        now = time.time_ns()
        begin = self.ends[STDOUT], self.ends[STDERR]
        raw = pack_header(now, *begin, self._boot_id)
        entries = HEADER_ENTRIES
        for stream, position, length, code in self._gaps:
            for at in range(0, max(length, 1), MAX_LENGTH):
                part = min(length - at, MAX_LENGTH)
                raw += pack_entry(entries, now, position + at, part, stream, Kind.GAP, code)
                entries += 1
        path = os.path.join(self.folder, index_name(number))
        index = _create_whole(path, raw)
        self._close_segment()
        self.number, self._index, self._entries, self._index_end = number, index, entries, len(raw)
        self._gaps.clear()
        self.size, self._last_ns, self._begins = 0, now, begin
        self._save_totals()

    def _reopen(self, found: Recovered) -> None:
        self.number = found.number
        self._index = os.open(os.path.join(self.folder, index_name(found.number)), os.O_WRONLY | os.O_CLOEXEC)
        self._entries = found.entries
        self._index_end = found.entries * ENTRY_BYTES
        self._last_ns = found.last_ns
        self.size = data_bytes(self.folder, found.number)
        self._begins = bases(self.folder, found.number) or found.ends

    def _close_segment(self) -> None:
        if self._index < 0:
            return
        if self.options.sync:
            self.sync()
        for descriptor in (*self._data.values(), self._index):
            os.close(descriptor)
        self._data.clear()
        ends = self.ends[STDOUT], self.ends[STDERR]
        self._closed.append(Closed(self.number, self.size, self._last_ns, self._begins, ends))

    def _open_data(self, stream: int) -> int:
        path = os.path.join(self.folder, data_name(self.number, stream))
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)  # splice refuses O_APPEND
        os.lseek(descriptor, 0, os.SEEK_END)
        self._data[stream] = descriptor
        return descriptor

    # -- bounds --------------------------------------------------------------------------------------------------

    def enforce(self) -> None:
        """Remove closed segments that the store's and the host's bounds no longer allow."""
        for segment in list(expired(self._closed, self.options, time.time_ns(), self.protected)):
            self._expire(segment)
        self._free_for_host(host_excess(self.folder, self.options))

    def _look_at_host(self) -> None:
        if not self._free_for_host(self._missing_reserve()):
            self._stop_writing("min-free")

    def _missing_reserve(self) -> int:
        return missing_reserve(self.folder, self.options)

    def _free_for_host(self, excess: int) -> bool:
        """Remove own closed segments, oldest first, until that many bytes are free; true if there were enough."""
        while excess > 0 and self._closed and not is_protected(self._closed[0], self.protected):
            excess -= self._closed[0].size
            self._expire(self._closed[0])
        return excess <= 0

    def _expire(self, segment: Closed, *, cleared: bool = False) -> None:
        delete_segment(self.folder, segment.number)
        for at, stream in enumerate((STDOUT, STDERR)):
            totals = self._totals.totals.streams[stream]
            gone = segment.ends[at] - segment.begins[at]
            if cleared:
                totals.cleared += gone
            else:
                totals.expired += gone
        self._closed.remove(segment)
        self._save_totals()

    def clear(self) -> None:
        """Remove everything that was captured so far, at a person's wish."""
        self.rotate()
        for segment in list(self._closed):
            self._expire(segment, cleared=True)

    # -- durability ----------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Force what was written to the disk. A failure is never retried as if it had worked: it is noted as a gap."""
        if not self._unsynced:
            return
        self._unsynced = False
        try:
            for descriptor in self._data.values():
                os.fdatasync(descriptor)
            os.fdatasync(self._index)
        except OSError:
            for stream in self._data:
                self._add_gap(stream, self.ends[stream], 0, REASON_CODES["sync-failed"])
            self._rotate_if_room()

    def _save_totals(self) -> None:
        for stream, end in self.ends.items():
            self._totals.totals.streams[stream].end = end
        self._totals.save()

    def close(self) -> None:
        """Close the files and give up the lock."""
        self._flush_index()
        if self.options.sync:
            self.sync()
        self._save_totals()
        self._totals.close()
        for descriptor in (*self._data.values(), self._index, self._null, self._lock):
            os.close(descriptor)


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
