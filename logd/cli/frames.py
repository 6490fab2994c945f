"""The wire of `/logd/containers/{id}/logs`: a 24-byte header before each payload, big-endian.

    byte 0      kind: 1 stdout, 2 stderr, 3 gap, 4 error, 5 end, 6 start, 7 exec
    bytes 1-3   zero
    bytes 4-7   length of the payload
    bytes 8-15  time, ns since 1970
    bytes 16-23 position: count of the stream's bytes since the container was created

The payload of 1 and 2 is whole lines that share the time; of 3 JSON `{"stream", "length", "reason"}`; of 4 text;
of 5 and 6 the cursor behind and before the answer; of 7 the beginning of the id of the exec that has printed what the
next frame holds. A kind that is not known is skipped, so that a newer daemon can add one.
"""

import struct
from typing import Final, NamedTuple

from logd.cli.client import Broken
from logd.record import STREAM_NAMES, ExecRun, Gap, Run

HEADER: Final = struct.Struct(">BxxxIQQ")
GAP: Final = 3
ERROR: Final = 4
END: Final = 5
START: Final = 6
EXEC: Final = 7
MAX_PAYLOAD_BYTES: Final = 64 << 20  # far above any line part; more than this is not our protocol


class Failure(NamedTuple):
    """The daemon could not go on; `text` says why."""

    time_ns: int
    text: str


class End(NamedTuple):
    """Nothing follows: all that was asked for has been sent."""

    time_ns: int


class Start(NamedTuple):
    """Where the answer starts: the positions of stdout and stderr before its first line. Its time precedes all."""

    time_ns: int
    positions: tuple[int, int]


Event = Run | Gap | Failure | End | Start


class FrameDecoder:
    """Turns the body's bytes, however they are cut, into events."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = HEADER.size
        self._exec_id = ""
        """Whose the next frame is, if an exec's."""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events that they complete. Raises Broken for what is no frame."""
        buffer = self._buffer
        buffer += data
        events: list[Event] = []
        if len(buffer) < self._needed:
            return events
        start, total, size = 0, len(buffer), HEADER.size
        with memoryview(buffer) as view:
            while True:
                self._needed = size
                if total - start < size:
                    break
                kind, length, time_ns, position = HEADER.unpack_from(buffer, start)
                if length > MAX_PAYLOAD_BYTES:
                    raise Broken(f"the daemon's answer is not a log stream: a frame of {length} bytes")
                self._needed = size + length
                if total - start < self._needed:
                    break
                payload = bytes(view[start + size : start + self._needed])
                start += self._needed
                if kind in STREAM_NAMES:
                    events.append(Run(time_ns, kind, position, payload))
                    if self._exec_id:
                        events[-1] = ExecRun.of(self._exec_id, events[-1])  # type: ignore[arg-type]  # a Run
                        self._exec_id = ""
                elif kind == EXEC:
                    self._exec_id = payload.decode("ascii", "replace")
                else:
                    events.extend(_rare(kind, time_ns, position, payload))
        del buffer[:start]
        return events


def parse_cursor(text: str) -> tuple[int, int]:
    """Return the positions of a cursor `1:OUT:ERR` (1 is its version). Raises ValueError."""
    version, *numbers = text.split(":")
    if version != "1" or len(numbers) != 2 or not all(part.isascii() and part.isdigit() for part in numbers):
        raise ValueError(f"invalid cursor {text!r} (copy one from --json: CONTAINER@1:OUT:ERR)")
    return int(numbers[0]), int(numbers[1])


def _rare(kind: int, time_ns: int, position: int, payload: bytes) -> list[Event]:
    text = payload.decode("utf-8", "replace")
    if kind == GAP:
        import json  # noqa: PLC0415  # gaps are rare

        gap = json.loads(payload)
        return [Gap(time_ns, _stream_number(gap["stream"]), position, int(gap["length"]), str(gap["reason"]))]
    if kind == ERROR:
        return [Failure(time_ns, text)]
    if kind == END:
        return [End(time_ns)]
    if kind == START:
        return [Start(0, parse_cursor(text))]
    return []


def _stream_number(value: object) -> int:
    """Return a gap's stream, which may be a number or a name."""
    for number, name in STREAM_NAMES.items():
        if value in {number, name}:
            return number
    raise Broken(f"the daemon's answer is not a log stream: a gap in stream {value!r}")
