"""A sample as series: cAdvisor's names, types and labels, for containers, the cgroups above them, and the machine.

What cAdvisor gets wrong is right here under the same name: I/O is the cgroup's own, OOM kills are the kernel's count,
pressure is there on cgroup v1 too, a reservation is memory.low, and a swap limit is that of swap alone. Typed
otherwise is what its type does not allow under its name: the `failcnt`s are counters without _total, and untyped.
Source: cadvisor lib/metrics/prometheus.go.
"""

from typing import Final, NamedTuple

from logd.metrics.families import CONTAINER, Family, Series
from logd.units import NS
from logd.usage import Counters, Pages, Sample

US: Final = 1_000_000
"""Microseconds of a second."""


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(f"container_{name}", "counter", text, labels, CONTAINER)


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"container_{name}", "gauge", text, labels, CONTAINER)


CPU_USAGE: Final = _counter("cpu_usage_seconds_total", "CPU time used, of all runs.", "cpu")
CPU_USER: Final = _counter("cpu_user_seconds_total", "CPU time used in user mode.")
CPU_SYSTEM: Final = _counter("cpu_system_seconds_total", "CPU time used in the kernel.")
CPU_PERIODS: Final = _counter("cpu_cfs_periods_total", "Periods in which the CPU quota was enforced.")
CPU_THROTTLED: Final = _counter("cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up.")
CPU_THROTTLED_S: Final = _counter("cpu_cfs_throttled_seconds_total", "How long it was held back by its CPU quota.")
FAILURES: Final = _counter("memory_failures_total", "Page faults, those below included.", "failure_type", "scope")
FAILCNT: Final = Family(
    "container_memory_failcnt", "unknown", "How often the memory limit was hit (a counter).", (), CONTAINER
)
WAITING: Final = {
    resource: _counter(f"pressure_{resource}_waiting_seconds_total", f"How long some task waited for {words}.")
    for resource, words in (("cpu", "a CPU"), ("memory", "memory"), ("io", "I/O"))
}
STALLED: Final = {
    resource: _counter(f"pressure_{resource}_stalled_seconds_total", f"How long all tasks waited for {words} at once.")
    for resource, words in (("cpu", "a CPU"), ("memory", "memory"), ("io", "I/O"))
}
READ_BYTES: Final = _counter("fs_reads_bytes_total", "Bytes read from a device.", "device")
WRITTEN_BYTES: Final = _counter("fs_writes_bytes_total", "Bytes written to a device.", "device")
READS: Final = _counter("fs_reads_total", "Reads from a device.", "device")
WRITES: Final = _counter("fs_writes_total", "Writes to a device.", "device")
DEVICE_USAGE: Final = _counter(
    "blkio_device_usage_total", "Bytes moved to or from a device.", "device", "major", "minor", "operation"
)
INTERFACE: Final = (
    _counter("network_receive_bytes_total", "Bytes received.", "interface"),
    _counter("network_receive_packets_total", "Packets received.", "interface"),
    _counter("network_receive_errors_total", "Errors in receiving.", "interface"),
    _counter("network_receive_packets_dropped_total", "Packets dropped that were received.", "interface"),
    _counter("network_transmit_bytes_total", "Bytes sent.", "interface"),
    _counter("network_transmit_packets_total", "Packets sent.", "interface"),
    _counter("network_transmit_errors_total", "Errors in sending.", "interface"),
    _counter("network_transmit_packets_dropped_total", "Packets dropped that were to be sent.", "interface"),
)
"""In the order of usage.Interface."""

MEMORY: Final = (
    _gauge("memory_usage_bytes", "Memory charged, page cache included."),
    _gauge("memory_working_set_bytes", "The usage without the page cache that is easily given back."),
    _gauge("memory_rss", "Anonymous memory, in bytes."),
    _gauge("memory_cache", "Page cache, in bytes."),
    _gauge("memory_mapped_file", "Mapped files, in bytes."),
    _gauge("memory_swap", "Swap used, in bytes."),
    _gauge("memory_kernel_usage", "Memory of the kernel for it, in bytes."),
    _gauge("memory_max_usage_bytes", "The highest usage so far."),
    _gauge("memory_total_active_file_bytes", "Page cache that was used lately."),
    _gauge("memory_total_inactive_file_bytes", "Page cache that was not used lately."),
)
THREADS: Final = _gauge("threads", "Tasks.")
THREADS_MAX: Final = _gauge("threads_max", "How many tasks there may be; 0: no limit.")
CPU_SHARES: Final = _gauge("spec_cpu_shares", "CPU shares, also where the kernel has a weight.")
CPU_PERIOD: Final = _gauge("spec_cpu_period", "Period of the CPU quota, in microseconds.")
CPU_QUOTA: Final = _gauge("spec_cpu_quota", "CPU quota, in microseconds of each period.")
MEMORY_LIMIT: Final = _gauge("spec_memory_limit_bytes", "Memory limit; 0: none, of the root: the machine's memory.")
SWAP_LIMIT: Final = _gauge("spec_memory_swap_limit_bytes", "Limit of swap alone; 0: none.")
RESERVATION: Final = _gauge("spec_memory_reservation_limit_bytes", "Memory that is kept for it; 0: none.")
PAGES_USAGE: Final = _gauge("hugetlb_usage_bytes", "Huge pages in use.", "pagesize")
PAGES_PEAK: Final = _gauge("hugetlb_max_usage_bytes", "The most huge pages in use so far.", "pagesize")
PAGES_FAILURES: Final = Family(
    "container_hugetlb_failcnt", "unknown", "How often the limit was hit (a counter).", ("pagesize",), CONTAINER
)

FIGURES: Final = (
    *(CPU_USAGE, CPU_USER, CPU_SYSTEM, CPU_PERIODS, CPU_THROTTLED, CPU_THROTTLED_S, FAILURES, FAILCNT),
    *WAITING.values(),
    *STALLED.values(),
    *(READ_BYTES, WRITTEN_BYTES, READS, WRITES, DEVICE_USAGE),
    *INTERFACE,
    *MEMORY,
    *(THREADS, THREADS_MAX, CPU_SHARES, CPU_PERIOD, CPU_QUOTA, MEMORY_LIMIT, SWAP_LIMIT, RESERVATION),
    *(PAGES_USAGE, PAGES_PEAK, PAGES_FAILURES),
)


class Shape(NamedTuple):
    """Which series there are: they stay while this does."""

    quota: bool
    stalls: tuple[str, ...]
    devices: tuple[str, ...]
    interfaces: tuple[str, ...]
    gauges: bool
    pages: tuple[str, ...]


def shape_of(counters: Counters, sample: Sample | None) -> Shape:
    """Return the shape of counters, and of the gauges in a sample where there is one."""
    quota = counters.cpu_periods > 0 or (sample is not None and sample.cpu_quota_us > 0)
    return Shape(
        quota,
        tuple(counters.stalls),
        tuple(counters.devices),
        tuple(counters.interfaces),
        sample is not None,
        tuple(sample.huge_pages) if sample is not None else (),
    )


def series_of(shape: Shape, names: dict[str, str]) -> list[Series]:
    """Return the series in the order of `values_of`; `names` are those of the devices, `8:0` → `/dev/sda`."""
    found: list[Series] = [
        (CPU_USAGE, "total"),
        (CPU_USER,),
        (CPU_SYSTEM,),
        *((FAILURES, kind, scope) for kind in ("pgfault", "pgmajfault") for scope in ("container", "hierarchy")),
        (FAILCNT,),
    ]
    if shape.quota:
        found += [(CPU_PERIODS,), (CPU_THROTTLED,), (CPU_THROTTLED_S,)]
    for resource in shape.stalls:
        found += [(WAITING[resource],), (STALLED[resource],)]
    for family in (READ_BYTES, WRITTEN_BYTES, READS, WRITES):
        found += [(family, names[device]) for device in shape.devices]
    for device in shape.devices:
        major, _, minor = device.partition(":")
        found += [(DEVICE_USAGE, names[device], major, minor, operation) for operation in ("Read", "Write")]
    for family in INTERFACE:
        found += [(family, interface) for interface in shape.interfaces]
    if shape.gauges:
        found += [(family,) for family in (*MEMORY, THREADS, THREADS_MAX, CPU_SHARES, CPU_PERIOD)]
        found += [(CPU_QUOTA,)] if shape.quota else []
        found += [(MEMORY_LIMIT,), (SWAP_LIMIT,), (RESERVATION,)]
    for family in (PAGES_USAGE, PAGES_PEAK, PAGES_FAILURES):
        found += [(family, size) for size in shape.pages]
    return found


def values_of(shape: Shape, counters: Counters, sample: Sample | None) -> tuple[float, ...]:
    """Return the values, in the order of `series_of`."""
    faults, major = counters.page_faults, counters.major_page_faults
    values: list[float] = [
        counters.cpu_ns / NS,
        counters.cpu_user_ns / NS,
        counters.cpu_system_ns / NS,
        *(faults, faults, major, major),
        counters.memory_failures,
    ]
    if shape.quota:
        values += counters.cpu_periods, counters.cpu_throttled_periods, counters.cpu_throttled_ns / NS
    for some_us, full_us in counters.stalls.values():
        values += some_us / US, full_us / US
    if shape.devices:
        done = counters.devices.values()
        for column in zip(*done, strict=True):
            values += column
        for device in done:
            values += device[:2]
    for column in zip(*counters.interfaces.values(), strict=True):
        values += column
    if sample is not None:
        values += _gauges(sample, quota=shape.quota)
    return tuple(values)


def _gauges(sample: Sample, *, quota: bool) -> list[float]:
    pages: tuple[Pages, ...] = tuple(sample.huge_pages.values())
    return [
        sample.memory_usage,
        sample.working_set,
        sample.rss,
        sample.cache,
        sample.mapped_file,
        sample.swap,
        sample.kernel_memory,
        sample.memory_peak,
        sample.active_file,
        sample.inactive_file,
        sample.pids,
        sample.pids_limit,
        sample.cpu_shares,
        sample.cpu_period_us,
        *((sample.cpu_quota_us,) if quota else ()),
        sample.memory_limit,
        sample.swap_limit,
        sample.memory_reservation,
        *(one for column in zip(*pages, strict=True) for one in column),
    ]
