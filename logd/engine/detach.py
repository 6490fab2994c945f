"""Detach keys: the sequence by which a person at a container's terminal leaves it without ending it.

Source: docker attach, "Override the detach sequence"; default and accepted names, dockerd 27.
"""

import re
from typing import Final

from logd.errors import InvalidParameter

DEFAULT_KEYS: Final = b"\x10\x11"
"""ctrl-p,ctrl-q"""
_KEY: Final = re.compile(r"[\x00-\x7f]|ctrl-[a-z@\[\\\]^_]")
_CONTROL_BITS: Final = 0x1F
"""What a terminal leaves of a letter's code when Ctrl is held."""


def parse_detach_keys(text: str) -> bytes:
    """Return the bytes that keys such as `ctrl-a,x` send, by default DEFAULT_KEYS. Raises InvalidParameter."""
    if not text:
        return DEFAULT_KEYS
    keys = text.split(",")
    if not all(map(_KEY.fullmatch, keys)):
        raise InvalidParameter(f"Invalid detach keys ({text}) provided")
    return bytes(ord(key[-1].upper()) & _CONTROL_BITS if len(key) > 1 else ord(key) for key in keys)


class DetachKeys:
    """Looks for the keys in what a client types, however it is cut.

    `feed` returns what is to be passed on; a beginning of the keys is held back until it is known whether they follow.
    What comes after them is dropped.
    """

    def __init__(self, keys: bytes = DEFAULT_KEYS) -> None:
        self._keys = keys
        self._fallbacks = _fallbacks(keys)
        self._matched = 0
        self.found = False
        """Whether the client wants to leave."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, return those that are for the terminal."""
        if self.found:
            return b""
        if not self._matched and self._keys[0] not in data:
            return data
        passed = bytearray()
        for byte in data:
            if self._step(byte, passed):
                self.found = True
                break
        return bytes(passed)

    def finish(self) -> bytes:
        """Return what was held back, at the end of the input."""
        held, self._matched = self._keys[: self._matched], 0
        return b"" if self.found else held

    def _step(self, byte: int, passed: bytearray) -> bool:
        """Match one byte more, or pass on what can no longer be the beginning of the keys; true when all have come.

        The way is Knuth's, Morris' and Pratt's.
        """
        while self._matched and self._keys[self._matched] != byte:
            shorter = self._fallbacks[self._matched - 1]
            passed += self._keys[: self._matched - shorter]
            self._matched = shorter
        if self._keys[self._matched] == byte:
            self._matched += 1
        else:
            passed.append(byte)
        return self._matched == len(self._keys)


def _fallbacks(keys: bytes) -> list[int]:
    """Return for each length of a match, less one, the next shorter beginning of the keys that it ends with."""
    table = [0] * len(keys)
    length = 0
    for index in range(1, len(keys)):
        while length and keys[index] != keys[length]:
            length = table[length - 1]
        length += keys[index] == keys[length]
        table[index] = length
    return table
