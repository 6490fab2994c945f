"""A page put together of pieces, parts of families, which are kept while their lines are the same.

Of the series of a fleet most do not change between two scrapes: limits, states, what an idle container has used. Their
text need not be joined, nor compressed, again: a piece is compressed by itself and ends at a byte's end, so that pieces
one after the other are one stream.
Source: RFC 1951 (deflate), RFC 1952 (gzip).
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

from logd.metrics.exposition import EOF, Format, render
from logd.metrics.families import Family

LEVEL: Final = 1
"""Level 9 takes three times as long for a page that is a tenth smaller."""
_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""Deflate, no time, the fastest level, any system."""
_LAST_BLOCK: Final = b"\x03\x00"

_Key = tuple[Family, int]
"""A family, and which of its parts."""


class _Piece:
    """Lines, and what was made of them; `packed` is made when it is first asked for."""

    def __init__(self, lines: Sequence[str], text: bytes) -> None:
        self.lines = lines
        self.text = text
        self.packed = b""


class Pages:
    """The pages in one format. For one thread."""

    def __init__(self, style: Format) -> None:
        self._style = style
        self._end = EOF.encode() if style == "openmetrics" else b""
        self._kept: dict[_Key, _Piece] = {}

    def page(self, begin: bytes, series: Iterable[tuple[Family, Sequence[Sequence[str]]]], *, gzip: bool) -> bytes:
        """Return a whole page, compressed or not: `begin` (the families that come first), then these, by parts."""
        pieces = [self._piece((family, place), part) for family, parts in series for place, part in enumerate(parts)]
        self._kept = dict(pieces)
        texts = [begin, *(piece.text for _, piece in pieces), self._end]
        if not gzip:
            return b"".join(texts)
        packed = [_deflated(begin), *(_packed(piece) for _, piece in pieces), _deflated(self._end), _LAST_BLOCK]
        return b"".join((_HEAD, *packed, _tail(texts)))

    def _piece(self, key: _Key, lines: Sequence[str]) -> tuple[_Key, _Piece]:
        """Return a part of a family; the first one begins with the family's head."""
        kept = self._kept.get(key)
        if kept is None or kept.lines != lines:  # lines that are the same are mostly the same objects
            family, place = key
            text = "".join(lines) if place else render([(family, lines)], self._style)
            kept = _Piece(lines, text.encode())
        return key, kept


def _packed(piece: _Piece) -> bytes:
    piece.packed = piece.packed or _deflated(piece.text)
    return piece.packed


def _deflated(text: bytes) -> bytes:
    """Return blocks of deflate that refer to nothing before them and of which none is the last."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)


def _tail(texts: Iterable[bytes]) -> bytes:
    """Return gzip's: checksum and length of it all."""
    checksum = length = 0
    for text in texts:
        checksum = zlib.crc32(text, checksum)
        length += len(text)
    return struct.pack("<II", checksum, length & 0xFFFFFFFF)
