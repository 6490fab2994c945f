"""Records that a destination will never take: a file of JSON lines for each driver of a container, bounded.

    {"time": RFC 3339, "stream": "stdout", "position": 17, "reason": "…", "line": "text"}

`line` is base64 under the name `line_base64` where it is not UTF-8. The file lies in the store's folder, as
`dead-letters/NAME.jsonl`; when it is full, the one before it (`NAME.jsonl.1`) goes.
"""

import base64
import os
from typing import Any, Final

import orjson

from logd.batch import Group
from logd.record import STREAM_NAMES
from logd.units import format_time

FOLDER: Final = "dead-letters"
MAX_BYTES: Final = 8 << 20
"""Of each of the two files."""
_MODE: Final = 0o640


def bury(folder: str, name: str, line: Group, reason: str) -> None:
    """Append a rejected record (a group of one line). Raises OSError."""
    graves = os.path.join(folder, FOLDER)
    os.makedirs(graves, 0o750, exist_ok=True)
    path = os.path.join(graves, f"{name}.jsonl")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    try:
        if os.fstat(descriptor).st_size >= MAX_BYTES:
            os.rename(path, f"{path}.1")
            os.close(descriptor)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        os.write(descriptor, _encode(line, reason) + b"\n")
    finally:
        os.close(descriptor)


def _encode(line: Group, reason: str) -> bytes:
    letter: dict[str, Any] = {
        "time": format_time(line.time_ns),
        "stream": STREAM_NAMES[line.stream],
        "position": line.position,
        "reason": reason,
    }
    try:
        letter["line"] = line.lines[0].decode()
    except UnicodeDecodeError:
        letter["line_base64"] = base64.b64encode(line.lines[0]).decode()
    return orjson.dumps(letter)
