"""Let what is made from now on lie together in memory, in pages of its own.

A shim shares with its zygote each page that it does not write to, and CPython writes to whatever it uses (reference
counts). An object made in passing fills a gap between older ones: the few hundred that a shim uses would lie in as
many pages, each copied for each shim.

It rests on how pymalloc (CPython 3.11, Objects/obmalloc.c) and glibc's malloc place what they are asked for; elsewhere
it may help less, and does no harm.
"""

import ctypes
from typing import Final

LARGEST_BYTES: Final = 512
"""pymalloc serves objects up to that, in steps of 16, malloc all else, whose larger gaps were not worth it."""
POOL_BYTES: Final = 16 << 10
POOL_HEADER_BYTES: Final = 48
"""Objects of one size lie in pools of their own."""
CHUNK_HEADER_BYTES: Final = 8
IN_ORDER: Final = 4
"""So many neighbours, one after the other, come from memory that was not in use before."""
MOST: Final = 20_000
"""Gaps of one size, before it is given up; up to 2,000 were seen."""

_malloc = ctypes.CDLL(None).malloc
_malloc.argtypes, _malloc.restype = [ctypes.c_size_t], ctypes.c_size_t


def fill_gaps() -> list[object]:
    """Return what now fills the gaps, to be kept."""
    filling: list[object] = []
    for size in range(16, LARGEST_BYTES + 1, 16):
        _fill_pools(size, filling)
    for size in range(LARGEST_BYTES, 31, -16):  # what is left of a larger gap is filled by the smaller ones
        _fill_chunks(size)
    return filling


def _fill_pools(size: int, filling: list[object]) -> None:
    last = in_order = 0
    for _ in range(MOST):
        one = bytes(size - 33) if size > 33 else float(len(filling)) if size == 32 else object()
        filling.append(one)
        begins = id(one) % POOL_BYTES == POOL_HEADER_BYTES
        in_order = in_order + 1 if begins or (in_order and id(one) == last + size) else 0
        last = id(one)
        if in_order == IN_ORDER:
            return


def _fill_chunks(size: int) -> None:
    last = in_order = 0
    for _ in range(MOST):
        address = _malloc(size - CHUNK_HEADER_BYTES)
        in_order = in_order + 1 if address == last + size else 0
        last = address
        if in_order == IN_ORDER:
            return
