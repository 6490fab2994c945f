"""What drivers still need of a store, for its writer: the positions in the files `cursors/NAME`.

Each file has two slots of 2048 bytes, written in turn, in place, so that they can be written on a full disk. A slot is
text: the word `logdcur1`, a space, the crc32 of the JSON object that follows as 8 hexadecimal digits, a space, that
object, spaces, a newline. The intact slot with the higher `sequence` counts. What the object holds says `Progress` in
progress.py, which is not imported here: this runs in every shim.
"""

import json
import os
from binascii import crc32
from typing import Any, Final, NamedTuple

FOLDER: Final = "cursors"
SLOT_BYTES: Final = 2048
WORD: Final = b"logdcur1"


class Claim(NamedTuple):
    """What one driver needs."""

    positions: tuple[int, int]
    """From here on nothing has been delivered, of stdout and of stderr."""
    budget: int
    """How many bytes may wait for it."""
    is_blocking: bool
    """Whether the container waits when there are more; else the oldest go."""


def read_claims(folder: str) -> list[Claim]:
    """Return what the drivers of the store in `folder` need. A damaged file is no claim."""
    try:
        names = os.listdir(f"{folder}/{FOLDER}")
    except FileNotFoundError:
        return []
    slots = [read_slot(f"{folder}/{FOLDER}/{name}") for name in names]
    return [
        Claim((slot["positions"][0], slot["positions"][1]), slot["budget"], slot["is_blocking"])
        for slot in slots
        if slot is not None and slot["budget"]
    ]


def read_slot(path: str) -> dict[str, Any] | None:
    """Return the object in a file's newest intact slot; None if there is none."""
    try:
        with open(path, "rb") as file:
            return newest(file.read(2 * SLOT_BYTES))
    except FileNotFoundError:
        return None


def newest(raw: bytes) -> dict[str, Any] | None:
    """Return the object in the newer intact slot of the two in `raw`."""
    found = None
    for slot in (raw[:SLOT_BYTES], raw[SLOT_BYTES:]):
        body = slot[18:].rstrip()
        if slot[:8] == WORD and slot[9:17] == b"%08x" % crc32(body):
            values: dict[str, Any] = json.loads(body)
            if found is None or values["sequence"] > found["sequence"]:
                found = values
    return found


def pack(raw: bytes) -> bytes:
    """Return the slot with this JSON object."""
    slot = b"%s %08x %s" % (WORD, crc32(raw), raw)
    assert len(slot) < SLOT_BYTES
    return slot.ljust(SLOT_BYTES - 1) + b"\n"
