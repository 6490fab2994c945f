"""The size of a container's writable layer: a walk that can be interrupted, and begins again later the dearer it is.

The tree belongs to the container, which may change it meanwhile: folders are opened relative to the one above, never
through a symlink, and never on another file system.
"""

import os
import time
from collections.abc import Iterator
from typing import Final

PAUSE_S: Final = 60.0
"""The least time between two walks."""
LONGEST_PAUSE_S: Final = 1200.0
SHARE: Final = 0.005
"""A walk that takes longer comes less often, so that it takes no more than this part of a processor."""
MAX_DEPTH: Final = 64
"""Folders deeper than that are not looked into: each level keeps a descriptor open."""
STEP_ENTRIES: Final = 64
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Layer:
    """One writable layer; `path` is trusted, what is below it is not."""

    def __init__(self, path: str) -> None:
        self.bytes: int | None = None
        """What the last whole walk found; None before that."""
        self.is_live = True
        """Whether a container may write to it. One that has ended is walked once more."""
        self.due_s = 0.0
        """When the next walk, or the next part of one, is due (`time.monotonic`)."""
        self._path = path
        self._walk: Iterator[int] | None = None
        self._spent_s = 0.0
        self._total = 0

    def step(self, now_s: float) -> bool:
        """Walk a little; true when a walk is complete. A folder that is gone has no size."""
        if self._walk is None:
            self._walk, self._spent_s, self._total = _sizes(self._path), 0.0, 0
        began_s = time.thread_time()
        found = next(self._walk, None)
        self._spent_s += time.thread_time() - began_s
        if found is not None:
            self._total += found
            return False
        self._walk, self.bytes = None, self._total
        pause_s = min(max(PAUSE_S, self._spent_s / SHARE), LONGEST_PAUSE_S)
        self.due_s = now_s + pause_s if self.is_live else float("inf")
        return True

    def close(self) -> None:
        """Give up a walk that is under way."""
        self._walk = None


def _sizes(path: str) -> Iterator[int]:
    """Give the bytes of regular files in small sums, hard links once."""
    try:
        root = os.open(path, _FLAGS)
    except OSError:
        return
    device = os.fstat(root).st_dev
    seen: set[int] = set()
    opened = [root]
    entries = [_entries(root)]
    total = count = 0
    try:
        while opened:
            entry = next(entries[-1], None)
            if entry is None:
                os.close(opened.pop())
                entries.pop()
                continue
            count += 1
            if count % STEP_ENTRIES == 0:
                yield total
                total = 0
            try:
                info = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    if info.st_dev == device and len(opened) < MAX_DEPTH:
                        below = os.open(entry.name, _FLAGS, dir_fd=opened[-1])
                        opened.append(below)
                        entries.append(_entries(below))
                    continue
            except OSError:
                continue  # it has gone, or is something else by now
            if not entry.is_file(follow_symlinks=False) or info.st_dev != device or info.st_ino in seen:
                continue
            if info.st_nlink > 1:
                seen.add(info.st_ino)
            total += info.st_size
        yield total
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _entries(folder: int) -> Iterator[os.DirEntry[str]]:
    """Give a folder's entries, of which the scan ends with the generator."""
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError:
        return
