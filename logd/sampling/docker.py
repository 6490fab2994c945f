"""A container's statistics in the shape of Docker's API, from the bytes of its cgroup's files.

Source: Docker Engine API 1.47, ContainerStats; what dockerd 20.10 and 27 answer; cgroup-v1's memory.rst, cpuacct.rst
and blkio-controller.rst, cgroup-v2.rst. `read` gives a file by its name in the cgroup, b"" where there is none.
What has no figure is left out, null or empty exactly where dockerd has it so: clients tell these apart.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from logd.units import NS
from logd.usage import Interface

Read = Callable[[str], bytes]
Json = dict[str, Any]

TICKS_PER_S: Final = 100
"""USER_HZ, the same on every architecture that Docker runs on."""
HOST_CPU_FIELDS: Final = 7
"""user, nice, system, idle, iowait, irq, softirq of /proc/stat's first line (proc(5)); steal and guest don't count."""
_V1_OF_EACH: Final = (
    "cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout", "pgfault", "pgmajfault",
    "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable",
)  # fmt: skip
MEMORY_V1: Final = (
    *_V1_OF_EACH,
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    *(f"total_{name}" for name in _V1_OF_EACH),
)
MEMORY_V2: Final = (
    "anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback", "anon_thp",
    "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "slab_reclaimable",
    "slab_unreclaimable", "pgfault", "pgmajfault", "workingset_refault", "workingset_activate",
    "workingset_nodereclaim", "pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree",
    "pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc",
)  # fmt: skip
SPLIT: Final = ("workingset_refault", "workingset_activate")
"""Since Linux 5.9 the kernel counts these for anonymous memory and for files, and the sum no more."""
BLKIO: Final = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip
"""Docker's tables. Each but one is named after the file of the I/O scheduler that has it."""
FILES_OF_TABLES: Final = {"io_queue_recursive": "io_queued_recursive", "io_time_recursive": "time_recursive"}
SCHEDULERS: Final = ("blkio.", "blkio.bfq.")
"""Before each table's name: cfq (Linux before 5.0), bfq."""
THROTTLED: Final = {
    "io_service_bytes_recursive": ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"),
    "io_serviced_recursive": ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"),
}
"""What is counted without a scheduler that counts."""


def no_cpu() -> Json:
    """Return `cpu_stats` of nothing, as `precpu_stats` of a first answer is."""
    return _cpu(0, 0, 0, (0, 0, 0))


def no_stats() -> Json:
    """Return what dockerd answers of a container that does not run, but for its name and the times."""
    return {
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(BLKIO),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": no_cpu(),
        "memory_stats": {},
    }


def stats(read: Read, version: int, memory_total: int) -> Json:
    """Return a running container's figures. `version` is that of the cgroups of cpu and memory.

    `memory_total`, the machine's, is the limit of a container without one.
    """
    first = version == 1
    return {
        "pids_stats": _without_zeros(current=_number(read("pids.current")), limit=_number(read("pids.max"))),
        "blkio_stats": _blkio_v1(read) if first else _blkio_v2(read),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu_v1(read) if first else _cpu_v2(read),
        "memory_stats": _memory_v1(read, memory_total) if first else _memory_v2(read, memory_total),
    }


def networks(interfaces: Mapping[str, Interface]) -> Json:
    """Return the field `networks`, or no field where there are no interfaces."""
    shown = {name: interface._asdict() for name, interface in interfaces.items()}
    return {"networks": shown} if shown else {}


def host_cpu(proc_stat: bytes) -> tuple[int, int]:
    """Return, from /proc/stat, the nanoseconds that all of the machine's CPUs have counted, and how many are online."""
    total_ns, online = 0, 0
    for line in proc_stat.split(b"\n"):
        if not line.startswith(b"cpu"):
            break  # they stand first
        name, *fields = line.split()
        if name == b"cpu":
            total_ns = sum(map(int, fields[:HOST_CPU_FIELDS])) * (NS // TICKS_PER_S)
        else:
            online += 1
    return total_ns, online


def _cpu(total_ns: int, kernel_ns: int, user_ns: int, throttling: tuple[int, int, int]) -> Json:
    periods, throttled_periods, throttled_ns = throttling
    return {
        "cpu_usage": {"total_usage": total_ns, "usage_in_kernelmode": kernel_ns, "usage_in_usermode": user_ns},
        "throttling_data": {
            "periods": periods,
            "throttled_periods": throttled_periods,
            "throttled_time": throttled_ns,
        },
    }


def _cpu_v1(read: Read) -> Json:
    quota, ticks = _keyed(read("cpu.stat")), _keyed(read("cpuacct.stat"))
    kernel_ns, user_ns = (ticks.get(name, 0) * (NS // TICKS_PER_S) for name in ("system", "user"))
    throttling = (quota.get("nr_periods", 0), quota.get("nr_throttled", 0), quota.get("throttled_time", 0))
    found = _cpu(_number(read("cpuacct.usage")), kernel_ns, user_ns, throttling)
    if each := [int(field) for field in read("cpuacct.usage_percpu").split()]:
        found["cpu_usage"]["percpu_usage"] = each
    return found


def _cpu_v2(read: Read) -> Json:
    values = _keyed(read("cpu.stat"))
    total_ns, kernel_ns, user_ns = (values.get(name, 0) * 1000 for name in ("usage_usec", "system_usec", "user_usec"))
    throttled_ns = values.get("throttled_usec", 0) * 1000
    throttling = (values.get("nr_periods", 0), values.get("nr_throttled", 0), throttled_ns)
    return _cpu(total_ns, kernel_ns, user_ns, throttling)


def _memory_v1(read: Read, memory_total: int) -> Json:
    values = _keyed(read("memory.stat"))
    return _without_zeros(
        usage=_number(read("memory.usage_in_bytes")),
        max_usage=_number(read("memory.max_usage_in_bytes")),
        failcnt=_number(read("memory.failcnt")),
        limit=_limit(_number(read("memory.limit_in_bytes")), memory_total),
    ) | {"stats": {name: values.get(name, 0) for name in MEMORY_V1}}


def _memory_v2(read: Read, memory_total: int) -> Json:
    """Return `memory_stats`. dockerd has no `max_usage` here, though the kernel has had the figure since 5.19."""
    values = _keyed(read("memory.stat"))
    for name in SPLIT:
        values.setdefault(name, values.get(f"{name}_anon", 0) + values.get(f"{name}_file", 0))
    return _without_zeros(
        usage=_number(read("memory.current")),
        max_usage=_number(read("memory.peak")),
        failcnt=_keyed(read("memory.events")).get("oom", 0),
        limit=_limit(_number(read("memory.max")), memory_total),
    ) | {"stats": {name: values.get(name, 0) for name in MEMORY_V2}}


def _limit(limit: int, memory_total: int) -> int:
    return min(limit, memory_total) if limit and memory_total else limit or memory_total


def _blkio_v1(read: Read) -> Json:
    """Return the tables of the first scheduler that has counted something, else what throttling counts of each."""
    for prefix in SCHEDULERS:
        if _table(read(f"{prefix}io_service_bytes_recursive")):
            return {name: _table(read(prefix + FILES_OF_TABLES.get(name, name))) for name in BLKIO}
    found = {name: _first(map(read, names)) for name, names in THROTTLED.items()}
    return {name: found.get(name, []) for name in BLKIO}


def _first(files: Iterable[bytes]) -> list[Json]:
    return next(filter(None, map(_table, files)), [])


def _table(data: bytes) -> list[Json]:
    """Return the lines `MAJOR:MINOR OPERATION VALUE`, or without an operation; the total of all devices is none."""
    entries = []
    for line in data.split(b"\n"):
        device, *rest = line.split() or (b"",)
        major, colon, minor = device.partition(b":")
        if colon and rest and rest[-1].isdigit():
            operation = rest[0].decode() if len(rest) > 1 else ""
            entries.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(rest[-1])})
    return entries


def _blkio_v2(read: Read) -> Json:
    """Return the tables: bytes only, read and written, in small letters, and null where there is no device."""
    entries = []
    for line in read("io.stat").split(b"\n"):
        device, *fields = line.split() or (b"",)
        major, colon, minor = device.partition(b":")
        if not colon or not fields:
            continue  # a device of which nothing is counted
        values = dict(field.split(b"=", 1) for field in fields if b"=" in field)
        for operation, name in (("read", b"rbytes"), ("write", b"wbytes")):
            value = int(values.get(name, 0))
            entries.append({"major": int(major), "minor": int(minor), "op": operation, "value": value})
    return dict.fromkeys(BLKIO) | {"io_service_bytes_recursive": entries or None}


def _keyed(data: bytes) -> dict[str, int]:
    """Return the lines `NAME NUMBER`."""
    pairs = (line.split() for line in data.split(b"\n"))
    return {pair[0].decode(): int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(data: bytes) -> int:
    """Return a file's number; 0 for `max`, and where there is no such file."""
    text = data.strip()
    return int(text) if text.isdigit() else 0


def _without_zeros(**numbers: int) -> Json:
    """Return the numbers that Docker shows: it leaves out a 0."""
    return {name: number for name, number in numbers.items() if number}
