"""Which ids of the host a container's own users and groups have, where it has a user namespace.

The engine's own files (layers, writable layers, volumes) have the container's ids on the disk; the mounts through
which a container sees them translate. So a mapping may change from one container to the next, and all share the layers.
Source: user_namespaces(7).
"""

from collections.abc import Iterable
from typing import Final

import msgspec

OVERFLOW: Final = 65534
"""What an id looks like that has no place in a mapping: /proc/sys/kernel/overflowuid, as it is everywhere."""
MAX_RANGES: Final = 124
"""So many lines fit in what a uid_map is written at once, which has to be less than a page."""


class IdRange(msgspec.Struct, frozen=True):
    """`size` ids that follow each other: from `inside` on in the container, from `outside` on for the host."""

    inside: int
    outside: int
    size: int


class IdMap(msgspec.Struct, frozen=True):
    """The mapping of a user namespace. Both kinds map at least the container's 0."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    @property
    def root(self) -> tuple[int, int]:
        """The host's ids of the container's root."""
        return outside(self.uids, 0), outside(self.gids, 0)


def consecutive(blocks: Iterable[tuple[int, int]]) -> tuple[IdRange, ...]:
    """Return the ranges that map the container's ids from 0 on to (first, size) blocks of the host, in their order."""
    ranges, inside = [], 0
    for first, size in blocks:
        ranges.append(IdRange(inside, first, size))
        inside += size
    return tuple(ranges)


def is_mapped(ranges: Iterable[IdRange], number: int) -> bool:
    """Tell whether an id of the container has one on the host."""
    return any(one.inside <= number < one.inside + one.size for one in ranges)


def outside(ranges: Iterable[IdRange], number: int) -> int:
    """Return the host's id of a container's; raises ValueError, in dockerd's words, for one that has none."""
    for one in ranges:
        if one.inside <= number < one.inside + one.size:
            return one.outside + number - one.inside
    raise ValueError(f"Container ID {number} cannot be mapped to a host ID")


def inside(ranges: Iterable[IdRange], number: int) -> int:
    """Return the container's id of one of the host's, OVERFLOW for one that has none: so the kernel shows it there."""
    for one in ranges:
        if one.outside <= number < one.outside + one.size:
            return one.inside + number - one.outside
    return OVERFLOW
