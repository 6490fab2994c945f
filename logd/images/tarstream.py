"""An archive from a descriptor: decompressed, hashed, bounded, and its tar headers one after the other.

Runs in the unpacking process only. The standard library's tarfile parses headers and nothing else: it is no
boundary against hostile names. Memory is bounded whatever the input: one input chunk, what it decompresses to, and
one header.

Source: POSIX.1-2017 pax, section "pax Interchange Format"; RFC 1952 (gzip), RFC 8878 (zstd), the xz file format.
"""

import bz2
import hashlib
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final, Protocol, cast

import zstandard

try:
    from isal import isal_zlib as inflate  # ISA-L's takes less than half of the time
except ImportError:  # there is none for this processor
    import zlib as inflate  # type: ignore[no-redef]

from logd.images.limits import Limits
from logd.images.plainheaders import read_plain
from logd.images.readahead import ReadAhead

CHUNK: Final = 256 << 10
"""Bytes asked of the descriptor, and given out by a decompressor, at a time."""
ZSTD_CHUNK: Final = 4 << 10
"""Bytes given to zstd at a time: it has no bound on what comes out, and 4 bytes may become 128 KiB."""
GZIP_FLAGS: Final = 3
"""Where they are in a member's header."""
GZIP_RESERVED: Final = 0xE0
ZSTD_WINDOW: Final = 128 << 20
LZMA_MEMORY: Final = 256 << 20

DAMAGED: Final[tuple[type[Exception], ...]] = (
    *(cast("type[Exception]", inflate.error), lzma.LZMAError),
    *(zstandard.ZstdError, OSError, ValueError),
)
"""What decoders raise."""

MAGICS: Final = {
    "gzip": (b"\x1f\x8b\x08",),
    "zstd": (b"\x28\xb5\x2f\xfd", *(bytes((low,)) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
    "xz": (b"\xfd7zXZ\x00",),
    "bzip2": (b"BZh",),
}
LONGEST_MAGIC: Final = 6
"""Bytes."""

PAX_NUMBERS: Final = re.compile(
    rb"(?:size=\d{1,19}|[ug]id=-?\d{1,19}|[mac]time=-?\d{1,19}(?:\.\d*)?|(?!(?:size|[ug]id|[mac]time)=)[^=]+=.*)",
    re.DOTALL,
)
"""A record whose value is a number, if its keyword wants one; tarfile reads others as 0."""


class ArchiveRefused(Exception):
    """The archive is damaged, hostile or beyond a limit; the message says what is wrong with which entry."""


class EmptyArchive(ArchiveRefused):
    """There is not one byte."""


class _Decoder(Protocol):
    """One compressed member: fed until it has ended; `rest` is then what follows it, before that None."""

    @property
    def rest(self) -> bytes | None: ...

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _Gzip:
    """One gzip member; the decoder verifies its checksum and length."""

    def __init__(self) -> None:
        self._decoder = inflate.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._start = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if len(self._start) <= GZIP_FLAGS:
            self._start += data[: GZIP_FLAGS + 1]
            if self._start[GZIP_FLAGS:] and self._start[GZIP_FLAGS] & GZIP_RESERVED:
                raise ValueError("unknown header flags set")  # zlib refuses them, ISA-L does not
        while data and not self._decoder.eof:
            yield self._decoder.decompress(data, CHUNK)
            data = self._decoder.unconsumed_tail

    @property
    def rest(self) -> bytes | None:
        return self._decoder.unused_data if self._decoder.eof else None


class _Bounded:
    """One stream of lzma or bz2, whose decoders keep input back by themselves."""

    def __init__(self, decoder: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._decoder = decoder

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._decoder.decompress(data, CHUNK)
        while not self._decoder.eof and not self._decoder.needs_input:
            yield self._decoder.decompress(b"", CHUNK)

    @property
    def rest(self) -> bytes | None:
        return self._decoder.unused_data if self._decoder.eof else None


class _Zstd:
    """One zstd frame, or a skippable one."""

    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self._unfed = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), ZSTD_CHUNK):
            if self._decoder.eof:
                self._unfed = data[at:]
                return
            yield self._decoder.decompress(data[at : at + ZSTD_CHUNK])

    @property
    def rest(self) -> bytes | None:
        return self._decoder.unused_data + self._unfed if self._decoder.eof else None


def compression_of(start: bytes) -> str:
    """Return how a stream that begins like this (6 bytes suffice) is compressed: a key of DECODERS, or ""."""
    return next((name for name, magics in MAGICS.items() if start.startswith(magics)), "")


def _xz() -> _Decoder:
    return _Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY))


def _bzip2() -> _Decoder:
    return _Bounded(bz2.BZ2Decompressor())


DECODERS: Final[dict[str, Callable[[], _Decoder]]] = {"gzip": _Gzip, "zstd": _Zstd, "xz": _xz, "bzip2": _bzip2}


class Source:
    """The archive's bytes, decompressed: sequential reads, with the digest of all that was given out.

    It is the file object of a TarFile, which only ever seeks forward in it. `copy` is given all that comes out; with
    `input_digest` what goes in is digested too. `fills`: the last block may be a part of one, as Docker's client sends.
    `ahead`: a thread does all that, ahead of who reads.
    """

    def __init__(
        self,
        fd: int,
        limits: Limits,
        *,
        digest: bool = True,
        input_digest: bool = False,
        copy: Callable[[bytes], object] | None = None,
        fills: bool = False,
        ahead: bool = False,
    ) -> None:
        self._fd = fd
        self._limits = limits
        self._hash = hashlib.sha256() if digest else None
        self._input_hash = hashlib.sha256() if input_digest else None
        self._copy = copy
        self._fills = fills
        self._buffer = memoryview(b"")
        self.bytes_in = 0
        self.bytes_out = 0
        self.header_bytes = 0
        """Bytes of headers since it was last set to 0."""
        self._position = 0
        self._chunks = iter(ReadAhead(self._decompressed())) if ahead else self._decompressed()  # last: it begins

    def tell(self) -> int:
        """Return the position in the decompressed stream."""
        return self._position

    def seek(self, position: int, _whence: int = 0) -> int:
        """Move forward."""
        if position < self._position:
            raise ArchiveRefused("a header points backwards in the archive")
        self.skip(position - self._position)
        return self._position

    def read(self, size: int) -> bytes:
        """Return `size` bytes of headers, fewer at the end of the archive."""
        if not 0 <= size <= self._limits.max_header:
            raise ArchiveRefused(f"a header of {size} bytes is longer than {self._limits.max_header}")
        self.header_bytes += size
        if self.header_bytes > self._limits.max_headers:
            raise ArchiveRefused(f"the headers of one entry are longer than {self._limits.max_headers} bytes")
        if len(self._buffer) >= size:
            return bytes(self._take(size))
        parts = []
        while size and (part := self._take(size)):
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def buffered(self) -> memoryview:
        """Return what comes next as far as it is in memory; b"" at the end only."""
        if not self._buffer:
            self._buffer = memoryview(next(self._chunks, b""))
        return self._buffer

    def peek(self, size: int) -> bytes:
        """Return what `read` will."""
        data = self.read(size)
        self.header_bytes -= size
        self._position -= len(data)
        self._buffer = memoryview(data + bytes(self._buffer))
        return data

    def take(self, size: int) -> memoryview:
        """Return at least one byte of content and at most `size`. The end of the archive is an error."""
        part = self._take(size)
        if not part:
            raise ArchiveRefused("the archive ends in the middle of an entry")
        return part

    def skip(self, size: int) -> None:
        """Read over `size` bytes, or up to the end."""
        while size and (part := self._take(size)):
            size -= len(part)

    def finish(self) -> str:
        """Read to the end and return the digest of the whole decompressed stream."""
        while self._take(1 << 62):
            pass
        assert self._hash is not None
        return f"sha256:{self._hash.hexdigest()}"

    def input_digest(self) -> str:
        """Return the digest of what was read from the descriptor."""
        assert self._input_hash is not None
        return f"sha256:{self._input_hash.hexdigest()}"

    def close(self) -> None:
        """Do nothing: the descriptor is the caller's."""

    def _take(self, size: int) -> memoryview:
        buffer = self.buffered()
        part, self._buffer = buffer[:size], buffer[size:]
        self._position += len(part)
        return part

    def _raw(self) -> bytes:
        data = os.read(self._fd, CHUNK)
        self.bytes_in += len(data)
        if self._input_hash is not None:
            self._input_hash.update(data)
        return data

    def _decompressed(self) -> Iterator[bytes]:
        start = b""
        while len(start) < LONGEST_MAGIC and (data := self._raw()):
            start += data
        if not start:
            raise EmptyArchive("the archive is empty")
        compression = compression_of(start)
        pieces = self._decoded(start, DECODERS[compression]) if compression else self._plain(start)
        for piece in pieces:
            if not piece:
                continue
            self.bytes_out += len(piece)
            self._check_limits()
            if self._hash is not None:
                self._hash.update(piece)
            if self._copy is not None:
                self._copy(piece)
            yield piece
        if self._fills and self.bytes_out % tarfile.BLOCKSIZE:
            yield bytes(-self.bytes_out % tarfile.BLOCKSIZE)

    def _plain(self, start: bytes) -> Iterator[bytes]:
        data = start
        while data:
            yield data
            data = self._raw()

    def _decoded(self, start: bytes, make: Callable[[], _Decoder]) -> Iterator[bytes]:
        """Decode one member after the other; anything else behind a member is an error."""
        data = start
        try:
            while data:
                decoder = make()
                while (rest := decoder.rest) is None:
                    if not data:
                        raise ArchiveRefused("the compressed data ends too early")
                    yield from decoder.feed(data)
                    data = b"" if decoder.rest is not None else self._raw()
                data = rest or self._raw()
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ArchiveRefused(f"the compressed data is damaged: {error}") from error

    def _check_limits(self) -> None:
        limits = self._limits
        if self.bytes_out > limits.max_bytes:
            raise ArchiveRefused(f"the archive is larger than {limits.max_bytes} bytes when decompressed")
        if self.bytes_out > limits.ratio_from and self.bytes_out > self.bytes_in * limits.max_ratio:
            raise ArchiveRefused(f"the archive expands to more than {limits.max_ratio} times its size")


class _Member(tarfile.TarInfo):
    """A header that is either whole or an error: tarfile alone takes a damaged one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Member":
        try:
            member = super().fromtarfile(tarfile_)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]  # not in the stubs
            raise
        except tarfile.HeaderError as error:
            raise ArchiveRefused(f"invalid tar header: {error}") from error
        if member.size < 0:
            raise ArchiveRefused(f"entry {member.name!r} has a negative size")
        return member

    def _proc_pax(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        source = cast("Source", tarfile_.fileobj)
        check_pax(source.peek(self.size))
        member: tarfile.TarInfo = super()._proc_pax(tarfile_)  # type: ignore[misc]  # not in the stubs
        return member


def check_pax(records: bytes) -> None:
    """Raise ArchiveRefused unless all of it is records: tarfile passes over the rest from the first that is none."""
    at = 0
    while at < len(records):
        digits = records[at : at + 10].partition(b" ")[0]
        end = at + int(digits) if digits.isdigit() else 0
        record = records[at + len(digits) + 1 : end - 1]
        if not at < end <= len(records) or records[end - 1 : end] != b"\n" or not PAX_NUMBERS.fullmatch(record):
            raise ArchiveRefused(f"invalid tar header: {records[at : at + 80]!r} is no PAX record")
        at = end


def _next(archive: tarfile.TarFile, source: Source) -> tarfile.TarInfo | None:
    """Read the next header, by tarfile if it is not plain."""
    first = archive.firstmember is not None  # type: ignore[attr-defined]  # which its constructor has read
    if not first and not archive.pax_headers and archive.offset >= source.tell():
        source.skip(archive.offset - source.tell())
        found = read_plain(source.buffered(), archive.offset, _Member) if archive.offset == source.tell() else None
        if found is not None:
            member, length, archive.offset = found
            source.skip(length)
            return member
    member_or_end = archive.next()
    archive.members = []  # type: ignore[attr-defined]  # it would keep every header it has seen
    return member_or_end


def members(source: Source, limits: Limits) -> Iterator[tarfile.TarInfo]:
    """Yield the headers; the consumer reads an entry's content from `source` before it asks for the next.

    Names are text with surrogate escapes for bytes that are not UTF-8. Raises ArchiveRefused.
    """
    count = 0
    try:
        archive = tarfile.TarFile(
            fileobj=cast("IO[bytes]", source), tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
        )
        while (member := _next(archive, source)) is not None:
            source.header_bytes = 0
            count += 1
            if count > limits.max_entries:
                raise ArchiveRefused(f"the archive has more than {limits.max_entries} entries")
            yield member
        if any(source.read(tarfile.BLOCKSIZE)):
            raise ArchiveRefused("invalid tar header: there is more behind a block of zeros, which ends an archive")
    except tarfile.TarError as error:
        raise ArchiveRefused(f"invalid tar header: {error}") from error
    except (ValueError, OverflowError, RecursionError, IndexError) as error:
        raise ArchiveRefused(f"invalid tar header: {type(error).__name__}: {error}") from error
