"""Note in a store that its container's output was not followed to its end: whoever should have done it was killed."""

import os

from logd.logstore.opened import OpenSegment, UnreadableSegmentError
from logd.logstore.opening import open_store
from logd.logstore.options import StoreOptions
from logd.logstore.segment import Kind, segment_numbers
from logd.logstore.writer import read_boot_id
from logd.record import STDERR, STDOUT


def note_unobserved_end(folder: str, options: StoreOptions, run: int) -> bool:
    """Note gaps of unknown length and the end of run number `run`, unless the store says that it has ended.

    False if there was nothing to note, or if another process holds the store's lock: then it is that one's. Raises
    OSError.
    """
    if not os.path.isdir(folder):
        return False
    reason = "crash" if _is_of_this_boot(folder) else "unclean-boot"
    try:
        writer = open_store(folder, options, waits=False)
    except BlockingIOError:
        return False
    try:
        if _has_ended(folder, run):
            return False
        for stream in (STDOUT, STDERR):
            writer.note_gap(stream, 0, reason)
        writer.mark(Kind.END, run)
    finally:
        writer.close()
    return True


def _has_ended(folder: str, run: int) -> bool:
    """Tell whether the last mark in the store is the end of this run."""
    for number in reversed(segment_numbers(folder)):
        try:
            segment = OpenSegment(folder, number)
        except UnreadableSegmentError:
            continue
        try:
            for entry in segment.scan(0, segment.count(), (0,), backwards=True):
                if entry[4] in (Kind.BEGIN, Kind.END):
                    return entry[4] == Kind.END and entry[2] == run
        finally:
            segment.close()
    return False


def _is_of_this_boot(folder: str) -> bool:
    """Tell whether the machine that wrote the newest segment has not been started anew since."""
    numbers = segment_numbers(folder)
    if not numbers:
        return True
    try:
        segment = OpenSegment(folder, numbers[-1])
    except UnreadableSegmentError:
        return True
    segment.close()
    return segment.header.boot_id == read_boot_id()
