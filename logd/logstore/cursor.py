"""A cursor as text: `1:STDOUT:STDERR`, the format's version and the positions from which to go on."""

import re
from typing import Final

from logd.errors import InvalidParameter

VERSION: Final = 1
LARGEST: Final = (1 << 64) - 1
"""Positions are 64 bits wide in the index."""


def format_cursor(positions: tuple[int, int]) -> str:
    """Return the text of the positions of stdout and stderr."""
    return f"{VERSION}:{positions[0]}:{positions[1]}"


def parse_cursor(text: str) -> tuple[int, int]:
    """Return the positions of stdout and stderr that a cursor names. Raises InvalidParameter."""
    if not (match := re.fullmatch(r"(\d+):(\d+):(\d+)", text, re.ASCII)):
        raise InvalidParameter(f"cursor: {text!r} is not VERSION:STDOUT:STDERR, three numbers such as {VERSION}:0:0")
    version, stdout, stderr = (int(number) for number in match.groups())
    if version != VERSION:
        raise InvalidParameter(f"cursor: {text!r} has version {version} (supported: {VERSION})")
    if max(stdout, stderr) > LARGEST:
        raise InvalidParameter(f"cursor: {text!r} has a position beyond {LARGEST}")
    return stdout, stderr
