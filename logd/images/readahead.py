"""What an iterator gives, worked out by a thread of its own a little ahead of who takes it.

It pays where the work is done without Python's lock: decompressing, digesting. Runs in the unpacking process only.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

AHEAD: Final = 2 << 20
"""Bytes that are ready to be taken; once there are as many no further piece is begun, however large it may be."""


class ReadAhead:
    """Iterates over `pieces` up to their end or error, which is raised where they are taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ready: deque[bytes] = deque()
        self._ahead = 0
        self._end: BaseException | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="read-ahead", daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._end is not None)
            if not self._ready:
                assert self._end is not None
                raise self._end
            piece = self._ready.popleft()
            self._ahead -= len(piece)
            self._changed.notify()
        return piece

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._ahead < AHEAD)
                piece = next(self._pieces)
                with self._changed:
                    self._ready.append(piece)
                    self._ahead += len(piece)
                    self._changed.notify()
        except BaseException as error:  # StopIteration, too
            with self._changed:
                self._end = error
                self._changed.notify()
