"""Syslog messages: header, framing, and what of a line has to be escaped or cut. No I/O.

Sources: RFC 3164 section 4.1, RFC 5424 section 6, RFC 6587 section 3.4 (framing on a stream), RFC 5425 section 4.3, and
the shapes that Docker's driver gives them (moby daemon/logger/syslog/syslog.go and the formatters of srslog).
"""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from logd.batch import Group
from logd.record import STDERR
from logd.units import NS

_LOWER = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
FACILITIES: Final = {
    **{name: code for code, name in enumerate(_LOWER)},
    **{f"local{number}": 16 + number for number in range(8)},
}
"""By Docker's names: RFC 5424 table 1."""
SEVERITY_STDERR: Final = 3
SEVERITY_STDOUT: Final = 6
FORMATS: Final = ("", "rfc3164", "rfc5424", "rfc5424micro")
TAG_CHARS: Final = 255
"""RFC 5424 allows 48 in APP-NAME and 32 in MSGID; Docker sends any tag whole, and receivers take it."""
SMALLEST_MESSAGE: Final = 1024
"""Room for the longest header (627 bytes: the tag twice, a host name of 64) and for some of the line."""
LINES_AT_A_TIME: Final = 2048
CHUNK_BYTES: Final = 1 << 18
"""A header is often longer than the line: these bound what is encoded at a time."""
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NEWLINE: Final = b"\n"
NUL: Final = b"\0"


class Framing(Enum):
    """How a receiver tells one message of a stream from the next."""

    NEWLINE = "newline"
    """A newline ends it (RFC 6587 section 3.4.2). Docker's; its datagrams end with one too."""
    COUNTED = "octet-counting"
    """Its length stands before it (RFC 6587 section 3.4.1)."""
    COUNTED_NEWLINE = "octet-counting, newline"
    """The same, with a newline at its end that is counted: Docker's for RFC 5424 over TLS."""


@dataclass(frozen=True)
class Formatter:
    """Turns lines into messages."""

    format: str
    """One of FORMATS."""
    framing: Framing
    facility: int
    hostname: bytes
    pid: int
    max_bytes: int
    """Of a message with its newline, without its length; at least SMALLEST_MESSAGE."""

    def chunks(self, groups: Iterable[Group], tag: bytes) -> Iterator[bytes]:
        """Give the framed messages of all lines, many at a time."""
        blocks: list[bytes] = []
        size = 0
        for group in groups:
            header = self.header(group.time_ns, group.stream, tag)
            for at in range(0, len(group.lines), LINES_AT_A_TIME):
                blocks.append(self._block(header, group.lines[at : at + LINES_AT_A_TIME]))
                size += len(blocks[-1])
                if size > CHUNK_BYTES:
                    yield b"".join(blocks)
                    blocks, size = [], 0
        if blocks:
            yield b"".join(blocks)

    def messages(self, group: Group, tag: bytes) -> Iterator[list[bytes]]:
        """Give for each line its framed messages: one, more of an over-long line."""
        header = self.header(group.time_ns, group.stream, tag)
        for line in group.lines:
            yield self._messages(header, line)

    def header(self, time_ns: int, stream: int, tag: bytes) -> bytes:
        """Return what stands before the line."""
        priority = self.facility * 8 + (SEVERITY_STDERR if stream == STDERR else SEVERITY_STDOUT)
        seconds, fraction = divmod(time_ns, NS)
        if self.format.startswith("rfc5424"):
            stamp = rfc3339(seconds, fraction // 1000 if self.format == "rfc5424micro" else None)
            return b"<%d>1 %b %b %b %d %b - " % (priority, stamp, self.hostname, tag, self.pid, tag)
        host = b" " + self.hostname if self.format == "rfc3164" else b""
        return b"<%d>%b%b %b[%d]: " % (priority, rfc3164(seconds), host, tag, self.pid)

    def _block(self, header: bytes, lines: list[bytes]) -> bytes:
        sizes = set(map(len, lines))
        if max(sizes) <= self._room(header):
            if self.framing is Framing.NEWLINE:
                block = b"%b%b\n" % (header, (NEWLINE + header).join(lines))
                if NUL not in block and block.count(NEWLINE) == len(lines):
                    return block
            else:
                end = b"" if self.framing is Framing.COUNTED else NEWLINE
                heads = {size: b"%d %b" % (len(header) + size + len(end), header) for size in sizes}
                return b"".join([heads[len(line)] + line + end for line in lines])
        return b"".join([message for line in lines for message in self._messages(header, line)])

    def _messages(self, header: bytes, line: bytes) -> list[bytes]:
        text = escape(line) if self.framing is Framing.NEWLINE else line
        return [self._frame(header, part) for part in parts(text, self._room(header))]

    def _room(self, header: bytes) -> int:
        return self.max_bytes - len(header) - len(NEWLINE)

    def _frame(self, header: bytes, text: bytes) -> bytes:
        if self.framing is Framing.NEWLINE:
            return b"%b%b\n" % (header, text)
        if self.framing is Framing.COUNTED:
            return b"%d %b%b" % (len(header) + len(text), header, text)
        return b"%d %b%b\n" % (len(header) + len(text) + 1, header, text)


def escape(line: bytes) -> bytes:
    """Write what could end a message as rsyslog does: a newline as `#012`, a NUL (ends one in syslog-ng) as `#000`."""
    return line.replace(NEWLINE, b"#012").replace(NUL, b"#000")


def parts(text: bytes, size: int) -> list[bytes]:
    """Cut into parts of at most `size` bytes, which is at least 4; not within a character if it is UTF-8."""
    cut, at = [], 0
    while len(text) - at > size:
        end = next((end for end in range(at + size, at + size - 4, -1) if text[end] & 0xC0 != 0x80), at + size)
        cut.append(text[at:end])
        at = end
    return [*cut, text[at:]]


@lru_cache(maxsize=4096)
def word(text: str, otherwise: str) -> bytes:
    """Return text as one word of a header: printable ASCII without spaces, `otherwise` if there is nothing."""
    return re.sub(r"[^\x21-\x7e]", "_", text)[:TAG_CHARS].encode() or otherwise.encode()


@lru_cache(maxsize=64)
def rfc3164(seconds: int) -> bytes:
    """Return the local time as `Jan  2 15:04:05`."""
    local = time.localtime(seconds)
    return f"{MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}".encode()


def rfc3339(seconds: int, micros: int | None) -> bytes:
    """Return the local time with its offset as `2006-01-02T15:04:05+02:00`, with microseconds if there are any."""
    clock, zone = _clock_and_zone(seconds)
    return clock + zone if micros is None else b"%b.%06d%b" % (clock, micros, zone)


@lru_cache(maxsize=64)
def _clock_and_zone(seconds: int) -> tuple[bytes, bytes]:
    local = time.localtime(seconds)
    minutes = local.tm_gmtoff // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}" if minutes else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local).encode(), zone.encode()
