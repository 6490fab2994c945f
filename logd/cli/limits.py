"""What a container may use and how it is restarted: the options that `run`, `create` and `update` have in common.

Source: Docker Engine API 1.47, HostConfig and ContainerUpdate.
"""

from collections.abc import Mapping
from typing import Any, Final

import click

from logd.errors import InvalidParameter
from logd.units import parse_ram_size

LIMITS: Final = (
    click.option("-m", "--memory", metavar="SIZE", help="Memory limit, such as 64m or 1g."),
    click.option("--memory-reservation", metavar="SIZE", help="Memory it keeps when memory is short."),
    click.option("--memory-swap", metavar="SIZE", help="Limit of memory and swap together; -1 is none."),
    click.option("--cpus", type=float, help="Number of CPUs, such as 0.5."),
    click.option("-c", "--cpu-shares", type=int, metavar="N", help="Share of CPU time beside others; 1024 is usual."),
    click.option("--cpu-period", type=int, metavar="US", help="Period of the CPU quota."),
    click.option("--cpu-quota", type=int, metavar="US", help="CPU time in a period."),
    click.option("--cpu-rt-period", type=int, metavar="US", help="Period of real-time CPU time."),
    click.option("--cpu-rt-runtime", type=int, metavar="US", help="Real-time CPU time in a period."),
    click.option("--cpuset-cpus", metavar="LIST", help="CPUs on which it may run, such as 0-2,4."),
    click.option("--cpuset-mems", metavar="LIST", help="Memory nodes that it may use."),
    click.option("--blkio-weight", type=int, metavar="10-1000", help="Share of disk time beside others."),
    click.option("--pids-limit", type=int, help="How many processes it may have; -1 is no limit."),
    click.option("--restart", metavar="POLICY", help="no, on-failure[:N], always, or unless-stopped."),
)
NUMBERS: Final = {
    "cpu_shares": "CpuShares", "cpu_period": "CpuPeriod", "cpu_quota": "CpuQuota", "pids_limit": "PidsLimit",
    "cpu_rt_period": "CpuRealtimePeriod", "cpu_rt_runtime": "CpuRealtimeRuntime", "blkio_weight": "BlkioWeight",
}  # fmt: skip
LISTS: Final = {"cpuset_cpus": "CpusetCpus", "cpuset_mems": "CpusetMems"}
SIZES: Final = {"memory": "Memory", "memory_reservation": "MemoryReservation", "memory_swap": "MemorySwap"}
"""By the options' names: the fields that they set."""
NANO: Final = 1_000_000_000


def limits(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are asked for. Raises InvalidParameter."""
    found: dict[str, Any] = {key: options[name] for name, key in NUMBERS.items() if options[name] is not None}
    found |= {key: options[name] for name, key in LISTS.items() if options[name]}
    found |= {key: parse_size_option(name, options[name]) for name, key in SIZES.items() if options[name]}
    if options["cpus"] is not None:
        found["NanoCpus"] = round(options["cpus"] * NANO)
    if options["restart"]:
        found["RestartPolicy"] = _restart_policy(options["restart"])
    return found


def long_name(name: str) -> str:
    """Return an option as it is written: --memory-swap for memory_swap."""
    return f"--{name.replace('_', '-')}"


def parse_size_option(name: str, text: str) -> int:
    """Return an option's size in bytes; -1 is no limit of memory and swap. Raises InvalidParameter."""
    if text == "-1" and name == "memory_swap":
        return -1
    try:
        return parse_ram_size(text)
    except ValueError as error:
        raise InvalidParameter(f"{long_name(name)}: {error}") from error


def _restart_policy(text: str) -> dict[str, Any]:
    """Return the policy that NAME or NAME:N means; the daemon knows the names, and which may have a number."""
    name, colon, number = text.partition(":")
    if colon and not (number.isascii() and number.isdigit()):
        raise InvalidParameter(f"--restart: invalid number of restarts in {text!r} (write on-failure:3)")
    return {"Name": name, "MaximumRetryCount": int(number or 0)}
