"""Lines as JSON, many at a time: what lies between the quotes of a string. Source: RFC 8259 section 7.

Control characters, so also newline and NUL, are escaped; of what is no UTF-8 each part becomes U+FFFD. So neither a
quote nor anything that a protocol puts between its messages is in the result, whatever the container has printed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

_BETWEEN: Final = b"\x7f"
"""The one character below 0x80 that is rare in text and stands for itself in JSON."""
_BLANK: Final = b" \t\n\r"
_STARTS: Final = frozenset(bytes((byte,)) for byte in b'{["-0123456789tfn')


def inside(lines: Sequence[bytes], between: bytes = b"") -> bytes:
    """Return the insides of the lines' JSON strings with `between` after each but the last."""
    joined = _BETWEEN.join(lines)
    if joined.count(_BETWEEN) == len(lines) - 1:
        return orjson.dumps(joined.decode(errors="replace"))[1:-1].replace(_BETWEEN, between)
    return between.join([orjson.dumps(line.decode(errors="replace"))[1:-1] for line in lines])


def string(text: str) -> bytes:
    """Return any text as a JSON string, with its quotes; half a character becomes U+FFFD."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def pairs(values: Mapping[str, Any]) -> bytes:
    """Return an object without its braces, sorted by name as Go's encoding/json does."""
    return b",".join(b"%b:%b" % (string(name), value(values[name])) for name in sorted(values))


def value(any_value: Any) -> bytes:
    """Return a JSON value; numbers of any size."""
    if isinstance(any_value, str):
        return string(any_value)
    try:
        return orjson.dumps(any_value)
    except orjson.JSONEncodeError:  # more than 64 bits, half a character, nested very deep
        try:
            return json.dumps(any_value, separators=(",", ":"), default=str, allow_nan=False).encode()
        except (RecursionError, ValueError):
            return b"null"


def is_document(line: bytes) -> bool:
    """Tell whether a line is one JSON value and nothing else, in UTF-8."""
    if line.lstrip(_BLANK)[:1] not in _STARTS:
        return False
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
