"""How many bytes of a store lie beyond a cursor: counted from the index entries, not taken from two positions."""

from logd.logstore.opened import OpenSegment, UnreadableSegmentError, parse
from logd.logstore.segment import ENTRY_BYTES, HEADER_ENTRIES, Kind, segment_numbers
from logd.record import STDERR, STDOUT

BLOCK_ENTRIES = 8192


def held_beyond(folder: str, positions: tuple[int, int]) -> tuple[int, int]:
    """Return (bytes of data beyond the positions of stdout and stderr, bytes missing among them).

    Missing is what gap entries tell of, and what segments held that are gone.
    """
    at = dict(zip((STDOUT, STDERR), positions, strict=True))
    held = missing = 0
    try:
        numbers = segment_numbers(folder)
    except FileNotFoundError:
        return 0, 0
    for number in numbers:
        try:
            segment = OpenSegment(folder, number)
        except (FileNotFoundError, UnreadableSegmentError):
            continue
        try:
            slot = HEADER_ENTRIES
            while block := segment.block(slot, BLOCK_ENTRIES):
                for _, position, length, stream, kind, _, _, _ in parse(block, slot):
                    if stream not in at or (kind > Kind.ADOPTED and kind != Kind.GAP):
                        continue
                    end = position + length
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
    return held, missing
