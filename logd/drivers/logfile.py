"""A log file that is appended to exactly once, and rotated as Docker rotates json-file's.

Files: `NAME` is written to; `NAME.1`, `NAME.2`, … are what it was before, the highest number the oldest; `NAME.1.gz`
where it was compressed. Source: moby daemon/logger/loggerutils/logfile.go, RFC 1952 (gzip).

Exactly once: whoever appends may be killed before it is noted how far it has come, and then appends the same again.
So each append returns a `Place`, to be kept, and the last one kept is given back at the next start. What lies beyond
it in the files is compared with what is appended: what is there already is left out, a torn record is completed.
Nothing is ever cut off, since a reader that goes by inode and offset would begin anew.

Positions: a *run* is a sequence of appends from one beginning, and a position counts its bytes over all files. Each
file keeps the position of its first byte in the extended attribute `user.logd.run`, as "RUN POSITION". That tells what
a file holds after any number of rotations, and how much was in files that rotation has removed since.
"""

import contextlib
import errno
import fcntl
import gzip
import logging
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

MODE: Final = 0o640
ATTRIBUTE: Final = "user.logd.run"
UNLIMITED: Final = -1
WARNING_PERIOD_S: Final = 60.0
CHUNK_BYTES: Final = 1 << 18

_GZIP_HEADER: Final = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
"""Deflate, with an extra field, no time, unknown system, as Go's compress/gzip writes it (RFC 1952 section 2.3)."""
_LAST_TIME: Final = re.compile(rb'"time":"([0-9TZ:.-]+)"\}\n\Z')
_LAST_TIME_BYTES: Final = 64
_PLACE: Final = struct.Struct("<8sqQqI")


class Limits(NamedTuple):
    """When to rotate, and how much to keep."""

    max_size: int = UNLIMITED
    """In bytes. Looked at before a record is written, so that a file may be longer by one record."""
    max_files: int = 1
    compress: bool = False


class Place(NamedTuple):
    """How far has been written."""

    run: bytes
    """Eight bytes that name the run."""
    position: int = 0
    inode: int = 0
    offset: int = 0
    """Of the position in the file with that inode: for file systems without extended attributes."""
    mark: int = 0
    """A checksum of what all records share; where that has changed, the same records look different."""

    def pack(self) -> bytes:
        """Return it as 36 bytes."""
        return _PLACE.pack(*self)

    @classmethod
    def unpack(cls, memo: bytes) -> "Place | None":
        """Return what was packed, None if it is something else."""
        return cls(*_PLACE.unpack(memo)) if len(memo) == _PLACE.size else None


class _Piece(NamedTuple):
    """A file of the run."""

    path: str
    base: int
    """The position of its first byte."""


class LogFile:
    """The files of one log. Its methods block, and can be called from any thread.

    A lock on the folder keeps other processes, and a thread that was left behind on a slow disk, from writing too.
    """

    def __init__(self, path: str, limits: Limits, place: Place, compressor: Executor) -> None:
        self.path = path
        self.limits = limits
        self._place = place
        self._compressor = compressor
        self._compressing = False
        self._folder, self._name = os.path.split(path)
        self._rotated = re.compile(re.escape(self._name) + r"\.([1-9][0-9]{0,8})(\.gz)?")
        self._lock = threading.Lock()
        self._closing = False
        self._folder_fd = self._fd = -1
        self._identity = (0, 0)
        self._base = self._size = 0
        self._warned_s = -WARNING_PERIOD_S

    def append(self, records: bytes) -> Place:
        """Append whole records, but for what is there already. After an OSError some of them may be there."""
        with self._held():
            self._settle()
            self._write(records, *self._missing(records))
            position = self._place.position + len(records)
            self._place = self._place._replace(position=position, inode=self._identity[1], offset=position - self._base)
            return self._place

    def close(self) -> None:
        """Let go of the files, at once or as soon as the thread that is busy with them has ended. Never blocks."""
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                self._let_go()
                if self._folder_fd >= 0:
                    os.close(self._folder_fd)
                    self._folder_fd = -1
            finally:
                self._lock.release()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with self._lock:
                if self._closing:
                    raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN), self.path)
                yield
        finally:
            if self._closing:
                self.close()

    # -- which file, and how long it is ---------------------------------------------------------------------------

    def _settle(self) -> None:
        """Have the file open that has the name now, and know its length: others may move, remove or cut it."""
        if self._fd >= 0:
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                found = None
            if found is None or (found.st_dev, found.st_ino) != self._identity:
                self._warn("%s was moved or removed: beginning another", self.path)
                self._let_go()
            else:
                self._size = found.st_size
        if self._fd < 0:
            self._open()
        if self._base + self._size < self._place.position:
            self._warn("%s is shorter than it was: going on at its end", self.path)
            self._finish_line()
            self._set_base(self._place.position - self._size)

    def _open(self) -> None:
        if self._folder_fd < 0:
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(errno.EBUSY, "another log driver or process writes to this folder", self._folder) from error
        pieces = self._pieces()
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            end = self._end_of(pieces[-1]) if pieces else 0
            self._create(max(end, self._place.position))
            return
        self._take(fd, 0)
        known = pieces[-1].base if pieces and pieces[-1].path == self.path else self._place.position - self._size
        self._set_base(known)
        self._start_compressing()

    def _create(self, base: int) -> None:
        """Begin a file that takes the name at once, whole, together with its attribute."""
        new = self._hidden("new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        fd = os.open(new, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            os.fchmod(fd, MODE)
            self._mark(fd, base)
            if os.path.exists(self.path):
                self._shift()
            os.rename(new, self.path)
        except OSError:
            os.close(fd)
            raise
        self._let_go()
        self._take(fd, base)
        self._start_compressing()

    def _take(self, fd: int, base: int) -> None:
        found = os.fstat(fd)
        self._fd, self._identity = fd, (found.st_dev, found.st_ino)
        self._base, self._size = base, found.st_size

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set_base(self, base: int) -> None:
        self._mark(self._fd, base)
        self._base = base

    def _mark(self, fd: int, base: int) -> None:
        try:
            os.setxattr(fd, ATTRIBUTE, f"{self._place.run.hex()} {base}".encode())
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise

    def _hidden(self, suffix: str) -> str:
        """Return a name that no shipper's pattern finds, since it begins with a dot."""
        return os.path.join(self._folder, f".{self._name}.{suffix}")

    def _warn(self, text: str, *arguments: object) -> None:
        now_s = time.monotonic()
        if now_s - self._warned_s >= WARNING_PERIOD_S:
            self._warned_s = now_s
            log.warning(text, *arguments)

    # -- what is there already ------------------------------------------------------------------------------------

    def _missing(self, records: bytes) -> tuple[int, bool]:
        """Return where in `records` begins what is not in the files yet, and whether that completes a torn record."""
        position, end = self._place.position, self._base + self._size
        if position == end:
            return 0, False
        pieces = self._pieces()
        gone = min(max(pieces[0].base - position, 0), len(records))  # was in files that rotation has removed
        there = self._read(pieces, position + gone, len(records) - gone)
        same = _common_prefix(records, gone, there)
        if same == len(there) and position + gone + same in {position + len(records), end}:
            return gone + same, there[-1:] not in {b"", b"\n"}
        self._warn("%s holds what logd has not written: going on at its end", self.path)
        start = records.rfind(b"\n", 0, gone + same) + 1
        self._finish_line()
        self._set_base(position + start - self._size)
        return start, False

    def _pieces(self) -> list[_Piece]:
        """Return the files of this run, oldest first, as far as it is known what they hold."""
        numbered = sorted(self._slots().items(), reverse=True)
        paths = [f"{self.path}.{number}{suffixes[0]}" for number, suffixes in numbered]
        pieces = []
        end: int | None = None
        for path in (*paths, self.path):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue
            base = self._base_of(path, found.st_ino, end)
            if base is not None:
                pieces.append(_Piece(path, base))
            end = None if base is None or path.endswith(".gz") else base + found.st_size
        return pieces

    def _base_of(self, path: str, inode: int, end_before: int | None) -> int | None:
        """Return the position of a file's first byte, None if that can't be known."""
        if inode == self._identity[1] and self._fd >= 0:
            return self._base
        try:
            run, base = os.getxattr(path, ATTRIBUTE).split()
            return int(base) if run.decode() == self._place.run.hex() else None
        except (OSError, ValueError):
            return self._place.position - self._place.offset if inode == self._place.inode else end_before

    def _end_of(self, piece: _Piece) -> int:
        """Return the position after the last file's last byte."""
        if piece.path.endswith(".gz"):
            with gzip.open(piece.path) as file, contextlib.suppress(EOFError, zlib.error):
                return piece.base + file.seek(0, os.SEEK_END)
            return piece.base
        return piece.base + os.stat(piece.path).st_size

    def _read(self, pieces: list[_Piece], position: int, count: int) -> bytes:
        """Return at most `count` bytes of the run from `position` on, less if a file is not what it should be."""
        found = bytearray()
        ends = [*(piece.base for piece in pieces[1:]), self._base + self._size]
        for piece, end in zip(pieces, ends, strict=True):
            wanted = min(count - len(found), end - position)
            if wanted <= 0:
                continue
            if position < piece.base:
                break
            opener = gzip.open if piece.path.endswith(".gz") else open
            with opener(piece.path, "rb") as file, contextlib.suppress(gzip.BadGzipFile, EOFError, zlib.error):
                file.seek(position - piece.base)
                found += file.read(wanted)
            if position + wanted != end and len(found) < count:
                break
            position += wanted
        return bytes(found)

    # -- writing and rotating -------------------------------------------------------------------------------------

    def _write(self, records: bytes, at: int, torn: bool) -> None:
        """Write what follows `at`, rotating before each record that finds the file full."""
        view = memoryview(records)
        max_size = self.limits.max_size
        while at < len(records):
            if max_size > 0 and not torn and self._size >= max_size:
                self._create(self._base + self._size)
            until = len(records)
            if max_size > 0:
                room = max(max_size - self._size, 1)
                until = records.find(b"\n", at + room - 1) + 1 or until
            self._put(view[at:until])
            at, torn = until, False

    def _put(self, data: memoryview) -> None:
        while data:
            written = os.write(self._fd, data)
            self._size += written
            data = data[written:]

    def _finish_line(self) -> None:
        """Have what is written next begin on a line of its own."""
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._put(memoryview(b"\n"))

    def _slots(self) -> dict[int, list[str]]:
        """Return the numbers of the rotated files, each with its suffixes: none, `.gz`, or both after a crash."""
        slots: dict[int, list[str]] = {}
        for name in sorted(os.listdir(self._folder)):
            match = self._rotated.fullmatch(name)
            if match:
                slots.setdefault(int(match[1]), []).append(match[2] or "")
        return slots

    def _shift(self) -> None:
        """Move the file and its forerunners up by a number, up to the first that is free: the rest did move before."""
        last = self.limits.max_files - 1
        if not last:
            return  # the new file takes the place of the old one
        slots = self._slots()
        for number, suffixes in slots.items():
            if (
                len(suffixes) > 1
            ):  # killed before the plain one went: moved one by one they could be taken for two files
                os.unlink(f"{self.path}.{number}{suffixes.pop()}")
        free = 1
        while free in slots:
            free += 1
        if free > last:
            for number in [number for number in slots if number >= last]:
                for suffix in slots.pop(number):
                    os.unlink(f"{self.path}.{number}{suffix}")
            free = last
        for number in range(free - 1, 0, -1):
            for suffix in slots[number]:
                os.rename(f"{self.path}.{number}{suffix}", f"{self.path}.{number + 1}{suffix}")
        os.rename(self.path, f"{self.path}.1")

    # -- compressing ----------------------------------------------------------------------------------------------

    def _start_compressing(self) -> None:
        if self.limits.compress and not self._compressing:
            self._compressing = True
            self._compressor.submit(self._compress)

    def _compress(self) -> None:
        """Compress what was rotated, while others are being written to and rotated."""
        try:
            while self._compress_next():
                pass
        except Exception as error:  # it stays as it is, and is tried again after the next rotation
            self._compressing = False
            if not self._closing:
                self._warn("can't compress a rotated file of %s: %r", self.path, error)

    def _compress_next(self) -> bool:
        """Compress the oldest file that is not; false if there is none."""
        with self._held():
            plain = [number for number, suffixes in self._slots().items() if "" in suffixes]
            if not plain:
                self._compressing = False
                return False
            source = os.open(f"{self.path}.{max(plain)}", os.O_RDONLY | os.O_CLOEXEC)
        new = self._hidden("gz.new")
        try:
            self._compress_into(source, new)
            with self._held():
                self._replace(os.fstat(source).st_ino, new)
        finally:
            os.close(source)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
        return True

    def _compress_into(self, source: int, target: str) -> None:
        with open(target, "wb") as file:
            os.fchmod(file.fileno(), MODE)
            with contextlib.suppress(OSError):  # there may be none
                os.setxattr(file.fileno(), ATTRIBUTE, os.getxattr(source, ATTRIBUTE))
            size = os.fstat(source).st_size
            match = _LAST_TIME.search(os.pread(source, _LAST_TIME_BYTES, max(size - _LAST_TIME_BYTES, 0)))
            extra = b'{"lastTime":"%s"}' % match[1] if match else b""
            file.write(_GZIP_HEADER + struct.pack("<H", len(extra)) + extra)
            deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            checksum = 0
            while data := os.read(source, CHUNK_BYTES):
                if self._closing:
                    raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), target)
                checksum = zlib.crc32(data, checksum)
                file.write(deflate.compress(data))
            file.write(deflate.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))

    def _replace(self, inode: int, compressed: str) -> None:
        """Put the compressed file in the place of the plain one, wherever that has been moved to meanwhile."""
        for number, suffixes in self._slots().items():
            path = f"{self.path}.{number}"
            if "" in suffixes and os.stat(path).st_ino == inode:
                os.rename(compressed, f"{path}.gz")
                os.unlink(path)
                return


def _common_prefix(records: bytes, start: int, other: bytes) -> int:
    """Return how many bytes of `records` from `start` on are the same as those of `other`."""
    low, high = 0, min(len(records) - start, len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if records[start + low : start + middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
