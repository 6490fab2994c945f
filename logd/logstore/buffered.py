"""How many bytes of a store lie beyond a cursor: counted from the index entries, not taken from two positions."""

from logd.logstore.opened import OpenSegment, UnreadableSegmentError, parse
from logd.logstore.segment import ENTRY_BYTES, HEADER_ENTRIES, Kind, segment_numbers
from logd.record import STDERR, STDOUT

BLOCK_ENTRIES = 8192
ATTEMPTS = 5


def held_beyond(folder: str, positions: tuple[int, int], ends: tuple[int, int]) -> tuple[int, int]:
    """Return (bytes of data from the positions of stdout and stderr up to `ends`, bytes missing among them).

    Missing is what gap entries tell of, and what segments held that are gone. Take the ends, of a store that is being
    written, after the positions: what comes later is not counted then.
    """
    for _ in range(ATTEMPTS):
        numbers = _numbers(folder)
        held, missing, is_whole = _count(folder, numbers, positions, ends)
        if is_whole or _numbers(folder) == numbers:  # else a segment has gone meanwhile, of which the next ones tell
            break
    return held, missing


def _numbers(folder: str) -> list[int]:
    try:
        return segment_numbers(folder)
    except FileNotFoundError:
        return []


def _count(folder: str, numbers: list[int], positions: tuple[int, int], ends: tuple[int, int]) -> tuple[int, int, bool]:
    """Return what is held in the segments, what is missing, and whether both ends were reached."""
    at = dict(zip((STDOUT, STDERR), positions, strict=True))
    bound = dict(zip((STDOUT, STDERR), ends, strict=True))
    held = missing = 0
    bases: dict[int, int] = {}
    for number in numbers:
        try:
            segment = OpenSegment(folder, number)
        except (FileNotFoundError, UnreadableSegmentError):
            continue
        try:
            bases = {stream: segment.header.base(stream) for stream in at}
            slot = HEADER_ENTRIES
            while block := segment.block(slot, BLOCK_ENTRIES):
                for _, position, length, stream, kind, _, _, _ in parse(block, slot):
                    if stream not in at or (kind > Kind.ADOPTED and kind != Kind.GAP):
                        continue
                    end = min(position + length, bound[stream])
                    begin = max(position, at[stream])
                    if end <= begin:
                        continue
                    missing += begin - at[stream]
                    at[stream] = end
                    if kind == Kind.GAP:
                        missing += end - begin
                    else:
                        held += end - begin
                slot += len(block) // ENTRY_BYTES
        finally:
            segment.close()
    for stream, base in bases.items():  # what was there when the ends were taken may be gone: then nothing tells of it
        to = max(at[stream], min(base, bound[stream]))
        missing += to - at[stream]
        at[stream] = to
    return held, missing, all(at[stream] >= bound[stream] for stream in at)
