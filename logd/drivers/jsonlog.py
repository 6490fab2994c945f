r"""Lines as the records of Docker's json-file, byte for byte, a batch at a time.

    {"log":"text\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-01-02T03:04:05.678Z"}

Source: moby daemon/logger/jsonfilelog/jsonlog (escapes, order of keys), Go's time.RFC3339Nano. Control characters, `<`,
`>`, `&`, U+2028 and U+2029 are \u escapes, each byte that is not part of valid UTF-8 is \ufffd. So a record holds one
newline, its last byte, whatever the container has printed.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import orjson

from logd.batch import EXEC_FIELD, Group, exec_of
from logd.record import STREAM_NAMES

MANY: Final = 16
"""Lines in a group on the average, from which on it is faster to encode group by group (measured)."""

_BEGIN: Final = b'{"log":"'
_NEWLINE: Final = rb"\n"
_ESCAPES: Final = {
    **{byte: rb"\u%04x" % byte for byte in (*range(0x20), *b"<>&")},
    ord("\r"): rb"\r",
    ord('"'): rb"\"",
}
_ORDINARY: Final = bytes(byte for byte in range(256) if byte not in _ESCAPES) + b"\n"
_SHORT: Final = ((b"\b", rb"\b", rb"\u0008"), (b"\t", rb"\t", rb"\u0009"), (b"\f", rb"\f", rb"\u000c"))
"""Characters for which orjson has short escapes, and Docker has not."""
_BETWEEN: Final = b"\x7f"
"""The one character below 0x80 that is rare in text and stands for itself in JSON."""


def encode(groups: Sequence[Group], attributes: bytes = b"") -> bytes:
    """Return the records of all lines. `attributes` is what `encode_attributes` has made of the container's."""
    parts: list[bytes] = []
    if len(groups) * MANY <= sum(len(group.lines) for group in groups):
        for group in groups:
            end = _end(group, attributes)
            parts += (_BEGIN, _join_escaped(group.lines, end + _BEGIN), end)
        return b"".join(parts)
    texts = _escape_each([line for group in groups for line in group.lines])
    done = 0
    for group in groups:
        end = _end(group, attributes)
        until = done + len(group.lines)
        parts += (_BEGIN, texts[done] if until == done + 1 else (end + _BEGIN).join(texts[done:until]), end)
        done = until
    return b"".join(parts)


def encode_attributes(attributes: Mapping[str, str]) -> bytes:
    """Return the part of a record that holds the container's attributes, nothing if there are none.

    They come from Go's encoding/json, which has a short escape for the tab, and sorts by name.
    """
    if not attributes:
        return b""
    pairs = sorted((_whole(name), _whole(value)) for name, value in attributes.items())
    return b'"attrs":{%s},' % b",".join(b'"%s":"%s"' % pair for pair in pairs)


def _whole(text: str) -> bytes:
    between_tabs = text.encode("utf-8", "surrogateescape").split(b"\t")
    return rb"\t".join(escape(part).replace(b"\n", _NEWLINE) for part in between_tabs)


def _join_escaped(lines: Sequence[bytes], between: bytes) -> bytes:
    """Return the lines escaped, with `between` after each but the last."""
    for escaped, separator in _escaped(lines):
        joined = escaped.replace(separator, between)
        if len(joined) - len(escaped) == (len(lines) - 1) * (len(between) - len(separator)):  # faster than to count
            return joined
    raise AssertionError("the last way is always right")


def _escape_each(lines: Sequence[bytes]) -> list[bytes]:
    for escaped, separator in _escaped(lines):
        texts = escaped.split(separator)
        if len(texts) == len(lines):
            return texts
    raise AssertionError("the last way is always right")


def _escaped(lines: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Give the lines escaped and joined, and what is between them, in several ways, the fastest first.

    A way is right if what is between the lines is in none of them. Of the last one that is always true.
    """
    joined = _BETWEEN.join(lines)
    short = [one for one in _SHORT if one[0] in joined]
    # With a backslash about, the text `\t` and a tab's escape would look the same.
    if not short or b"\\" not in joined:
        with contextlib.suppress(UnicodeDecodeError):
            text = joined.decode()
            escaped = orjson.dumps(text)[1:-1]
            for _, theirs, ours in short:
                escaped = escaped.replace(theirs, ours)
            for byte in b"<>&":
                escaped = escaped.replace(bytes((byte,)), _ESCAPES[byte])
            yield (escaped if text.isascii() else _escape_separators(escaped)), _BETWEEN
    yield escape(b"\n".join(lines)), b"\n"
    yield b"\n".join(escape(line).replace(b"\n", _NEWLINE) for line in lines), b"\n"


def escape(data: bytes) -> bytes:
    """Return any bytes as the inside of a JSON string, but for newlines, which stay as they are."""
    data = data.replace(b"\\", rb"\\")
    for byte in set(data.translate(None, _ORDINARY)):
        data = data.replace(bytes((byte,)), _ESCAPES[byte])
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        # Each stray byte becomes a question mark, while a NUL, of which none is left, holds the place of real ones.
        text = data.replace(b"?", b"\0").decode("utf-8", "surrogateescape")
        data = text.encode("utf-8", "replace").replace(b"?", rb"\ufffd").replace(b"\0", b"?")
    return _escape_separators(data)


def _escape_separators(data: bytes) -> bytes:
    return data.replace("\u2028".encode(), rb"\u2028").replace("\u2029".encode(), rb"\u2029")


def _end(group: Group, attributes: bytes) -> bytes:
    """Return what follows the text of each of the group's lines."""
    if exec_id := exec_of(group):
        attributes = _with_exec(attributes, exec_id)
    seconds, fraction = divmod(group.time_ns, 1_000_000_000)
    whole = group.partial is None or group.partial.last
    if not fraction:
        return _to_the_second(whole, group.stream, attributes, seconds) + b'Z"}\n'
    return b'%s.%sZ"}\n' % (
        _to_the_second(whole, group.stream, attributes, seconds),
        (b"%09d" % fraction).rstrip(b"0"),
    )


def _with_exec(attributes: bytes, exec_id: str) -> bytes:
    """Return the attributes with that of a line that an exec has printed, before the container's."""
    pair = b'"%s":"%s"' % (EXEC_FIELD.encode(), exec_id.encode())
    return b'"attrs":{%s},' % pair if not attributes else attributes.replace(b"{", b"{%s," % pair, 1)


@lru_cache(maxsize=64)
def _to_the_second(whole: bool, stream: int, attributes: bytes, seconds: int) -> bytes:
    newline = _NEWLINE if whole else b""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
    return b'%s","stream":"%s",%s"time":"%s' % (newline, STREAM_NAMES[stream].encode(), attributes, moment)
