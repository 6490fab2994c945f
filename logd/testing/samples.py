"""Lines that containers print in tests, plain and odd."""

from hashlib import shake_256
from typing import Final

from logd.record import STDERR, STDOUT

Line = tuple[int, bytes]
"""Stream, and the line without its newline."""

ODD: Final = {
    "empty": [b"", b"", b"between", b""],
    "blanks": [b" ", b"  leading", b"trailing  ", b"\ttab\t"],
    "NUL": [b"\0", b"a\0b", b"a\0"],
    "CR": [b"\r", b"progress 1%\rprogress 2%", b"dos\r"],
    "control": [b"\x1b[31mred\x1b[0m", b"\x07\x08\x0b\x0c\x7f"],
    "not-UTF-8": [b"\xff\xfe", b"\xc3", b"a\x80b", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"],
    "beyond-ASCII": ["é ü 日本語 🙂".encode(), "\u2028\u2029\u0085\ufeff".encode()],
    "quotes": [b'"', b'",', b'\\",', b"\\", b"'", b'{"log":"forged\\n"}', b"%s%n", b"${jndi:x}", b"<0>Jan  1 x: y"],
    "pretty-printed-JSON": [b"{", b'  "a": "b",', b'  "c": ["d",', b'    "e",', b'    "f"]', b"}"],
}
"""By the name of the oddity. None is longer than 100 bytes."""
JOINED: Final = [b"Traceback:", b'  File "x.py", line 1', b"", b"  error\x00", b"next"]
"""The first four are to become one record."""
MEBIBYTE: Final = 1 << 20


def numbered(first: int, count: int, width: int = 0) -> list[Line]:
    """Return lines, each other than all others, of both streams; each fifth is stderr's.

    Their text goes on for `width` bytes in which a compressor finds little.
    """
    return [
        (STDERR if at % 5 == 4 else STDOUT, b"line %06d %s" % (at, _noise(at, width)))
        for at in range(first, first + count)
    ]


def _noise(seed: int, width: int) -> bytes:
    return shake_256(b"%d" % seed).hexdigest((width + 1) // 2)[:width].encode()


def long_line(size: int = MEBIBYTE) -> bytes:
    """Return a line of that size in which every part is other than the others."""
    return b"".join(b"%08d" % at for at in range(0, size, 8))[:size]
