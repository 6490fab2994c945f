"""What a container uses: counters, which only grow, and what it has at a moment. Sizes are bytes.

Each run has a cgroup of its own, so the counters of a container's runs are added up; they are kept in container.json,
so that they outlive a restart of the container and of the daemon.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec


class Device(NamedTuple):
    """What a cgroup has had done by one block device."""

    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


class Interface(NamedTuple):
    """What a network interface has carried, in the order of /proc/net/dev."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Stall(NamedTuple):
    """How long tasks have waited for a resource, in microseconds (Documentation/accounting/psi.rst)."""

    some_us: int = 0
    """At least one task waited."""
    full_us: int = 0
    """All tasks that were not idle waited at once."""


class Counters(msgspec.Struct, kw_only=True):
    """The counters of one run, or of several. What the kernel doesn't count on this host is 0, or not in a map."""

    cpu_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_periods: int = 0
    """Enforcement periods that have passed (only with a quota)."""
    cpu_throttled_periods: int = 0
    cpu_throttled_ns: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    memory_failures: int = 0
    """How often the memory limit was hit: v1 memory.failcnt, v2 memory.events `max`."""
    oom_kills: int = 0
    """Processes that the kernel killed for want of memory, as it counts them."""
    devices: dict[str, Device] = {}
    """By the device's numbers, `8:0`."""
    interfaces: dict[str, Interface] = {}
    """By the interface's name; without the loopback."""
    stalls: dict[str, Stall] = {}
    """By the resource: cpu, memory, io."""

    def __add__(self, other: "Counters") -> "Counters":
        """Return the sum; that with nothing is the other one itself."""
        if self == NOTHING:
            return other
        return Counters(
            **{name: getattr(self, name) + getattr(other, name) for name in _NUMBERS},
            devices=_sum(Device, self.devices, other.devices),
            interfaces=_sum(Interface, self.interfaces, other.interfaces),
            stalls=_sum(Stall, self.stalls, other.stalls),
        )


NOTHING: Final = Counters()
_NUMBERS: Final = tuple(name for name in Counters.__struct_fields__ if name not in {"devices", "interfaces", "stalls"})

T = TypeVar("T", Device, Interface, Stall)


def _sum(kind: type[T], ours: Mapping[str, T], theirs: Mapping[str, T]) -> dict[str, T]:
    nothing = kind()
    return {
        key: kind(*(one + other for one, other in zip(ours.get(key, nothing), theirs.get(key, nothing), strict=True)))
        for key in {**ours, **theirs}
    }


class Pages(NamedTuple):
    """Huge pages of one size, in bytes; `failures`: how often the limit was hit."""

    usage: int
    peak: int
    failures: int


class Sample(msgspec.Struct, kw_only=True):
    """A look at a container's cgroup, or at the root's. Sizes are bytes; 0 where the kernel has no such figure."""

    time_ns: int
    """Unix time."""
    counters: Counters
    memory_usage: int = 0
    working_set: int = 0
    """The usage without the page cache that is easily given back (inactive_file)."""
    rss: int = 0
    cache: int = 0
    mapped_file: int = 0
    active_file: int = 0
    inactive_file: int = 0
    swap: int = 0
    kernel_memory: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    """0: none."""
    swap_limit: int = 0
    """Of swap alone on every kind of tree; 0: none."""
    memory_reservation: int = 0
    pids: int = 0
    pids_limit: int = 0
    """0: none."""
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    """0: none."""
    cpu_period_us: int = 0
    huge_pages: dict[str, Pages] = {}
    """By the size of the page, `2MB`; only sizes of which some are in use, or were."""
    stalled: dict[str, float] = {}
    """By the resource (cpu, memory, io): in which part of the last ten seconds some task waited, 0 to 1."""
