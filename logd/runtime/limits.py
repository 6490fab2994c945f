"""Limits of a container: checked in Docker's words, written as OCI `linux.resources` and `process.rlimits`.

The OCI section is the same for cgroup v1 and v2: the runtime converts. Sizes are bytes, CPU times microseconds.
Source: Docker's "Resource constraints" and daemon/daemon_unix.go's checks by behaviour; OCI runtime specification,
config-linux.md "Control groups"; getrlimit(2).
"""

import os
import resource
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from logd.errors import InvalidParameter
from logd.runtime import capabilities, cgroup
from logd.spec import HostConfig, ThrottleDevice

MIN_MEMORY: Final = 6 << 20  # Docker's; less does not even hold the runtime's own start
NANO: Final = 1_000_000_000
MIN_NANO_CPUS: Final = NANO // 100  # the kernel's least quota, 1 ms, of CPU_PERIOD
CPU_PERIOD: Final = 100_000  # µs; the kernel's default and what --cpus is expressed in
MIN_SHARES, MAX_SHARES = 2, 262_144  # kernel/sched: what it would clamp to
RLIMITS: Final = frozenset(
    "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()  # noqa: SIM905
)
UNSUPPORTED: Final = "Your kernel does not support %s or the cgroup is not mounted. %s"


@dataclass(frozen=True)
class Support:
    """What this host's cgroups can limit."""

    memory: bool
    swap: bool
    cpu: bool
    cpuset: bool
    pids: bool
    blkio_weight: bool
    v2: bool
    blkio_weight_device: bool
    """On v1 CFQ's file: what bfq has instead it takes only for a disk whose scheduler it is."""


def host_support(root: Path = cgroup.ROOT) -> Support:
    """Look it up in the cgroup trees below `root`."""
    hierarchy = cgroup.detect(root)
    v2 = hierarchy.kind == "v2"
    memory = hierarchy.mounts.get("memory")
    v1_swap = memory is not None and (memory / "memory.memsw.limit_in_bytes").exists()
    return Support(
        memory=memory is not None,
        swap=memory is not None if v2 else v1_swap,
        cpu=hierarchy.has("cpu"),
        cpuset=hierarchy.has("cpuset"),
        pids=hierarchy.has("pids"),
        blkio_weight=_has_weight(hierarchy),
        v2=v2,
        blkio_weight_device=_has_weight(hierarchy) if v2 else any(root.glob("blkio/*/blkio.weight_device")),
    )


def _has_weight(hierarchy: cgroup.Hierarchy) -> bool:
    """A root cgroup has no weight: look at its children. Without any it can't be known, and the runtime will tell."""
    folder = hierarchy.mounts.get("io", hierarchy.mounts.get("blkio"))
    if folder is None:
        return False
    children = [child for child in folder.iterdir() if child.is_dir()]
    names = ("blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight")
    return not children or any((child / name).exists() for child in children for name in names)


def settle(host: HostConfig, default_shm_size: int = 64 << 20) -> HostConfig:
    """Fill in what Docker fills in when a container is created, so that inspect shows it."""
    changes: dict[str, Any] = {}
    if host.memory > 0 and host.memory_swap == 0:
        changes["memory_swap"] = 2 * host.memory
    if host.cpu_shares:
        changes["cpu_shares"] = clamp_shares(host.cpu_shares)
    if host.shm_size == 0:
        changes["shm_size"] = default_shm_size
    if host.pids_limit is not None and host.pids_limit <= 0:
        changes["pids_limit"] = None
    if host.memory_swappiness == -1:
        changes["memory_swappiness"] = None
    if host.oom_kill_disable is None:
        changes["oom_kill_disable"] = False
    if not host.ipc_mode:
        changes["ipc_mode"] = "private"
    if not host.cgroupns_mode:
        changes["cgroupns_mode"] = "private"
    return msgspec.structs.replace(host, **changes)


def clamp_shares(shares: int) -> int:
    """Return the CPU shares as the kernel takes them."""
    return min(max(shares, MIN_SHARES), MAX_SHARES)


def validate_limits(host: HostConfig, support: Support, *, update: bool = False) -> list[str]:
    """Check all limits; returns Docker's warnings, raises InvalidParameter in Docker's words.

    `update`: what is not set is as the container has it already; see `validate_swap`.
    """
    _validate_memory(host)
    if not update:
        validate_swap(host)
    _validate_cpu(host)
    _validate_others(host)
    return _unsupported(host, support)


def _validate_memory(host: HostConfig) -> None:
    if host.memory and host.memory < MIN_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory_swap < -1:
        raise InvalidParameter(f"Invalid value: {host.memory_swap}, memory-swap is a size or -1 for no limit")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.memory_reservation and host.memory_reservation < MIN_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.kernel_memory or host.kernel_memory_tcp:
        raise InvalidParameter("kernel memory limits are not supported: current kernels have none")


def validate_swap(host: HostConfig) -> None:
    """Check memory and swap together; raises InvalidParameter in Docker's words."""
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")


def _validate_cpu(host: HostConfig) -> None:
    count = os.cpu_count() or 1
    if host.nano_cpus and host.cpu_period:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus and host.cpu_quota:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host.nano_cpus and not MIN_NANO_CPUS <= host.nano_cpus <= count * NANO:
        raise InvalidParameter(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if host.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_realtime_period or host.cpu_realtime_runtime:
        raise InvalidParameter("--cpu-rt-period and --cpu-rt-runtime are not supported")
    if host.cpu_count or host.cpu_percent:
        raise InvalidParameter("--cpu-count and --cpu-percent are options of Windows")
    _validate_set("cpuset cpus", "CPUs", host.cpuset_cpus, Path("/sys/devices/system/cpu/online"))
    _validate_set("cpuset mems", "memory nodes", host.cpuset_mems, Path("/sys/devices/system/node/online"))


def _validate_set(option: str, what: str, wanted: str, available: Path) -> None:
    if not wanted:
        return
    there = available.read_text(encoding="ascii").strip() if available.exists() else "0"
    try:
        numbers = parse_set(wanted)
    except ValueError as error:
        raise InvalidParameter(f"Invalid value {wanted} for {option}: invalid format: {wanted}") from error
    if not numbers <= parse_set(there):
        raise InvalidParameter(f"Requested {what} are not available - requested {wanted}, available: {there}")


def parse_set(text: str) -> set[int]:
    """Read `0-2,7`; raises ValueError."""
    result: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or int(last or first) > 1 << 16:
            raise ValueError(text)
        result.update(range(int(first), int(last or first) + 1))
    return result


def _validate_others(host: HostConfig) -> None:
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    for device in host.blkio_weight_device:
        if not 10 <= device.weight <= 1000:
            raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if host.io_maximum_iops or host.io_maximum_bandwidth:
        raise InvalidParameter("Invalid QoS settings: Linux does not support Maximum IO Bandwidth or Maximum IO IOps")
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.oom_score_adj < 0 and "CAP_SYS_RESOURCE" not in capabilities.held():
        raise InvalidParameter(f"oom-score-adj {host.oom_score_adj}: the daemon lacks CAP_SYS_RESOURCE to go below 0")
    block_io(host)
    rlimits(host)


def _unsupported(host: HostConfig, support: Support) -> list[str]:
    warnings = []
    if (host.memory or host.memory_reservation) and not support.memory:
        warnings.append(UNSUPPORTED % ("memory limit capabilities", "Limitation discarded."))
    elif host.memory > 0 and host.memory_swap != -1 and not support.swap:
        warnings.append(UNSUPPORTED % ("swap limit capabilities", "Memory limited without swap."))
    if (host.nano_cpus or host.cpu_quota or host.cpu_period or host.cpu_shares) and not support.cpu:
        warnings.append(UNSUPPORTED % ("CPU shares and cfs quota", "Limits discarded."))
    if (host.cpuset_cpus or host.cpuset_mems) and not support.cpuset:
        warnings.append(UNSUPPORTED % ("cpuset", "Cpuset discarded."))
    if (host.pids_limit or 0) > 0 and not support.pids:
        warnings.append(UNSUPPORTED % ("PIDs limit capabilities", "PIDs limit discarded."))
    if host.blkio_weight and not support.blkio_weight:
        warnings.append(UNSUPPORTED % ("Block I/O weight", "Weight discarded."))
    if host.blkio_weight_device and not support.blkio_weight_device:
        warnings.append(UNSUPPORTED % ("Block I/O weight_device", "Weight-device discarded."))
    if host.memory_swappiness not in {None, -1} and (support.v2 or not support.memory):
        warnings.append(UNSUPPORTED % ("memory swappiness capabilities", "Memory swappiness discarded."))
    if host.oom_kill_disable and (support.v2 or not support.memory):
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    elif host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    return warnings


def resources(host: HostConfig, support: Support) -> dict[str, Any]:
    """Return `linux.resources` without the devices; what the host can't do is left out (it was warned of)."""
    result: dict[str, Any] = {}
    if support.memory and (memory := _memory(host, support)):
        result["memory"] = memory
    cpu = {**(_cpu(host) if support.cpu else {}), **(_cpuset(host) if support.cpuset else {})}
    if cpu:
        result["cpu"] = cpu
    if support.pids and (host.pids_limit or 0) > 0:
        result["pids"] = {"limit": host.pids_limit}
    blocks = block_io(host)
    if not support.blkio_weight:
        blocks.pop("weight", None)
    if not support.blkio_weight_device:
        blocks.pop("weightDevice", None)
    if blocks:
        result["blockIO"] = blocks
    return result


def _memory(host: HostConfig, support: Support) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if host.memory > 0:
        memory["limit"] = host.memory
        if support.swap:
            memory["swap"] = host.memory_swap or 2 * host.memory
    if host.memory_reservation > 0:
        memory["reservation"] = host.memory_reservation
    if not support.v2:
        if host.memory_swappiness not in {None, -1}:
            memory["swappiness"] = host.memory_swappiness
        if host.oom_kill_disable:
            memory["disableOOMKiller"] = True
    return memory


def _cpu(host: HostConfig) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host.nano_cpus:
        cpu["period"], cpu["quota"] = CPU_PERIOD, host.nano_cpus * CPU_PERIOD // NANO
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpu_shares:
        cpu["shares"] = clamp_shares(host.cpu_shares)
    return cpu


def _cpuset(host: HostConfig) -> dict[str, Any]:
    return {key: value for key, value in (("cpus", host.cpuset_cpus), ("mems", host.cpuset_mems)) if value}


def block_io(host: HostConfig) -> dict[str, Any]:
    """Return `linux.resources.blockIO`; raises InvalidParameter for a path that is no block device."""
    result: dict[str, Any] = {}
    if host.blkio_weight:
        result["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        result["weightDevice"] = [
            {**_device_number(device.path), "weight": device.weight} for device in host.blkio_weight_device
        ]
    throttles: Mapping[str, Sequence[ThrottleDevice]] = {
        "throttleReadBpsDevice": host.blkio_device_read_bps,
        "throttleWriteBpsDevice": host.blkio_device_write_bps,
        "throttleReadIOPSDevice": host.blkio_device_read_iops,
        "throttleWriteIOPSDevice": host.blkio_device_write_iops,
    }
    for name, devices in throttles.items():
        if devices:
            result[name] = [{**_device_number(device.path), "rate": device.rate} for device in devices]
    return result


def _device_number(path: str) -> dict[str, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidParameter(f"blkio: {path}: {error.strerror}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidParameter(f"blkio: {path} is not a block device")
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}


def rlimits(host: HostConfig, defaults: Mapping[str, tuple[int, int]] | None = None) -> list[dict[str, Any]]:
    """Return `process.rlimits`: the request's ulimits over the daemon's `default-ulimits` (name → soft, hard).

    Raises InvalidParameter for an unknown name, soft > hard, and a hard limit that this daemon has no right to give.
    """
    wanted = dict(defaults or {})
    wanted.update({ulimit.name.lower().removeprefix("rlimit_"): (ulimit.soft, ulimit.hard) for ulimit in host.ulimits})
    return [_rlimit(name, soft, hard) for name, (soft, hard) in sorted(wanted.items())]


def _rlimit(name: str, soft: int, hard: int) -> dict[str, Any]:
    if name.upper() not in RLIMITS:
        raise InvalidParameter(f"invalid ulimit type: {name}")
    if hard != -1 and (soft > hard or soft == -1):
        raise InvalidParameter(f"ulimit soft limit must be less than or equal to hard limit: {name}={soft}:{hard}")
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)  # LOCKS has none: the kernel no longer looks at it
    own = resource.getrlimit(number)[1] if number is not None else resource.RLIM_INFINITY
    above = own != resource.RLIM_INFINITY and (hard == -1 or hard > own)
    if above and "CAP_SYS_RESOURCE" not in capabilities.held():
        raise InvalidParameter(
            f"ulimit {name}={soft}:{hard}: the daemon's own hard limit is {own}, and it lacks CAP_SYS_RESOURCE"
        )
    unlimited = (1 << 64) - 1
    return {
        "type": f"RLIMIT_{name.upper()}",
        "soft": unlimited if soft == -1 else soft,
        "hard": unlimited if hard == -1 else hard,
    }
