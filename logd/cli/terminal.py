"""What may reach a terminal: colours; everything else that a terminal would obey is made visible.

A log line is data from a program that may be hostile: an escape sequence in it could retitle the window, move the
cursor over other lines, or answer on the keyboard's behalf. Source of the classes: ECMA-48 (C0, C1, CSI, SGR).
"""

import os
import re
from typing import Final

RESET: Final = b"\x1b[0m"
NAME_COLOURS: Final = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")  # SGR; no red: it means errors
GAP_COLOUR: Final = b"\x1b[1;31m"
_COLOUR: Final = re.compile(rb"\x1b\[[0-9;:]*m")
_HARMLESS: Final = re.compile(rb"[\t\n\x20-\x7e]*")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\udc80-\udcff]")
_OBEYED: Final = re.compile(
    r"\x1b\[[0-9;:]{0,64}m"  # SGR: kept
    r"|\r(?=\n)"  # the line ends of DOS: kept
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, DEL, C1
    r"\u202a-\u202e\u2066-\u2069"  # overrides of the writing direction: they make text look like other text
    r"\udc80-\udcff]"  # bytes that are not UTF-8 (a terminal in 8-bit mode takes some of them for C1)
)


def visible(text: str) -> str:
    """Return `text` for one cell or line: with every control character made visible, colours and newlines too."""
    return _CONTROL.sub(_shown, text)


def neutralise(data: bytes) -> bytes:
    """Return `data` with everything but text, tabs, newlines and SGR colours made visible.

    Control characters become `^[`, `^M`, …; C1 controls and direction overrides `<U+009B>`; bytes that are not UTF-8
    `<9B>`, as in `less`.
    """
    match = _HARMLESS.match(data)
    if match and match.end() == len(data):
        return data
    return _OBEYED.sub(_visible, data.decode("utf-8", "surrogateescape")).encode("utf-8")


def has_colour(data: bytes) -> bool:
    """Say whether the text changes the terminal's colours, so that they must be reset after it."""
    return b"\x1b[" in data and _COLOUR.search(data) is not None


def is_terminal(descriptor: int) -> bool:
    """Say whether the descriptor is a terminal (a closed one is not)."""
    return os.isatty(descriptor)


def wants_colour(when: str, descriptor: int) -> bool:
    """Decide about colours: `always`, `never`, or `auto` (a terminal, without NO_COLOR and TERM=dumb)."""
    if when != "auto":
        return when == "always"
    return is_terminal(descriptor) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def name_colour(index: int) -> bytes:
    """Return the sequence that starts the colour of the container at `index`."""
    return f"\x1b[{NAME_COLOURS[index % len(NAME_COLOURS)]}m".encode()


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: the byte is in the low bits
        return f"<{code - 0xDC00:02X}>"
    if code >= 0x80:
        return f"<U+{code:04X}>"
    return "^?" if code == 0x7F else f"^{chr(code + 0x40)}"


def _visible(match: re.Match[str]) -> str:
    text = match[0]
    if len(text) > 1 or (text == "\r" and match.string[match.end() : match.end() + 1] == "\n"):
        return text
    return _shown(match)
