"""The Docker API's multiplexed stream: an 8-byte header before each stretch of one stream's bytes.

    byte 0     stream: 0 stdin, 1 stdout, 2 stderr, 3 an error of the daemon (the docker CLI stops at one)
    bytes 1-3  zero
    bytes 4-7  length of the payload, unsigned, big-endian

Source: Docker Engine API, ContainerAttach, "Stream format".
"""

import struct
from collections.abc import Iterator
from typing import Final

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
SYSTEM_ERROR: Final = 3

HEADER: Final = struct.Struct(">BxxxI")
HEADER_SIZE: Final = HEADER.size


def header(stream: int, length: int) -> bytes:
    """Return the header of a frame of `length` payload bytes."""
    return HEADER.pack(stream, length)


def frame(stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return HEADER.pack(stream, len(payload)) + payload


def frame_lines(stream: int, data: bytes) -> bytes:
    """Return `data` with every line in a frame of its own, a last line without a newline too.

    That is how dockerd frames logs, and how users of the SDKs read them: a frame is a line.
    """
    lines = data.splitlines(keepends=True) if _plain(data) else _lines(data)
    lengths = list(map(len, lines))
    headers = {length: HEADER.pack(stream, length) for length in set(lengths)}
    pieces = [b""] * (2 * len(lines))  # filled by the stride: half the time of a loop
    pieces[::2] = [headers[length] for length in lengths]
    pieces[1::2] = lines
    return b"".join(pieces)


def _plain(data: bytes) -> bool:
    """Say whether `bytes.splitlines` would cut at newlines only (it cuts at a carriage return too)."""
    return b"\r" not in data


def _lines(data: bytes) -> list[bytes]:
    """Return the lines of `data`, cut after each newline only."""
    *whole, last = data.split(b"\n")
    lines = [line + b"\n" for line in whole]
    return [*lines, last] if last else lines


class Decoder:
    """Turns bytes, however they are cut, into (stream, payload) of whole frames.

    Raises ValueError for a header that no server sends: an unknown stream, or a payload over `max_frame` bytes.
    """

    def __init__(self, max_frame: int = 64 << 20) -> None:
        self._buffer = bytearray()
        self._max_frame = max_frame

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take the next bytes of the stream and yield the frames that they complete."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= HEADER_SIZE:
            stream, length = HEADER.unpack_from(buffer, start)
            if stream > SYSTEM_ERROR or length > self._max_frame:
                raise ValueError(f"not a multiplexed stream: header {bytes(buffer[start : start + HEADER_SIZE]).hex()}")
            end = start + HEADER_SIZE + length
            if end > len(buffer):
                break
            yield stream, bytes(buffer[start + HEADER_SIZE : end])
            start = end
        del buffer[:start]

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet: not 0 at the end means that the stream was cut."""
        return len(self._buffer)
