"""CPU time, throttling, shares and quota of a cgroup.

On v1 the total is cpuacct's, in nanoseconds; user and system time are the unified tree's where the cgroup is in it
too, since cpuacct.stat counts in steps of 10 ms. Without a quota the kernel counts no periods.
Source: kernel documentation, cgroup-v1/cpuacct.rst, scheduler/sched-bwc.rst, cgroup-v2.rst "CPU Interface Files".
"""

import math
import os
from typing import Final

from logd.runtime.cgroup import UNIFIED
from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import nothing
from logd.sampling.parse import Columns, count, number, pairs
from logd.usage import Counters, Sample

US: Final = 1000
"""Nanoseconds."""
TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class CpuV1:
    """The controllers cpu and cpuacct, each in a tree of its own or both in one."""

    def __init__(self, files: CgroupFiles) -> None:
        self._usage = files.open("cpuacct", "cpuacct.usage")
        self._split = files.open(UNIFIED, "cpu.stat")
        self._ticks = files.open("cpuacct", "cpuacct.stat") if self._split is nothing else None
        self._shares = number(files.read_once("cpu", "cpu.shares"))
        self._quota = max(0, number(files.read_once("cpu", "cpu.cfs_quota_us")))
        self._period = number(files.read_once("cpu", "cpu.cfs_period_us"))
        self._throttling = files.open("cpu", "cpu.stat") if self._quota else nothing
        self._split_columns = Columns(b"user_usec", b"system_usec")
        self._throttling_columns = Columns(b"nr_periods", b"nr_throttled", b"throttled_time")
        self._last: Counters | None = None

    def fill(self, sample: Sample) -> None:
        """Enter the figures. Raises Gone."""
        counters = sample.counters
        counters.cpu_ns = number(self._usage())
        sample.cpu_shares, sample.cpu_quota_us, sample.cpu_period_us = self._shares, self._quota, self._period
        last, self._last = self._last, counters
        if last is not None and last.cpu_ns == counters.cpu_ns:  # nothing has run
            counters.cpu_user_ns, counters.cpu_system_ns = last.cpu_user_ns, last.cpu_system_ns
            counters.cpu_periods, counters.cpu_throttled_periods = last.cpu_periods, last.cpu_throttled_periods
            counters.cpu_throttled_ns = last.cpu_throttled_ns
            return
        if self._ticks is None:
            user, system = self._split_columns(self._split())
            counters.cpu_user_ns, counters.cpu_system_ns = user * US, system * US
        else:
            table = pairs(self._ticks())
            counters.cpu_user_ns = count(table, b"user") * TICK_NS
            counters.cpu_system_ns = count(table, b"system") * TICK_NS
        throttling = self._throttling_columns(self._throttling())
        counters.cpu_periods, counters.cpu_throttled_periods, counters.cpu_throttled_ns = throttling


class CpuV2:
    """The unified tree's cpu.stat, which is there without the controller too."""

    def __init__(self, files: CgroupFiles) -> None:
        self._stat = files.open(UNIFIED, "cpu.stat")
        self._shares = shares_of_weight(number(files.read_once("cpu", "cpu.weight")))
        self._columns = Columns(
            b"usage_usec", b"user_usec", b"system_usec", b"nr_periods", b"nr_throttled", b"throttled_usec"
        )
        quota, _, period = files.read_once("cpu", "cpu.max").partition(b" ")
        self._quota, self._period = number(quota), number(period)

    def fill(self, sample: Sample) -> None:
        """Enter the figures. Raises Gone."""
        counters = sample.counters
        usage, user, system, periods, throttled_periods, throttled = self._columns(self._stat())
        counters.cpu_ns, counters.cpu_user_ns, counters.cpu_system_ns = usage * US, user * US, system * US
        counters.cpu_periods, counters.cpu_throttled_periods = periods, throttled_periods
        counters.cpu_throttled_ns = throttled * US
        sample.cpu_shares, sample.cpu_quota_us, sample.cpu_period_us = self._shares, self._quota, self._period


def shares_of_weight(weight: int) -> int:
    """Return the CPU shares (2 to 262144) that a runtime turns into this cpu.weight (1 to 10000); 0 for 0.

    The runtimes' rule since 2025 maps 2, 1024 and 262144 to 1, 100 and 10000, by a quadratic function of the
    logarithms: log10(weight) = (l² + 125 l) / 612 - 7 / 34, with l = log2(shares); rounded up.
    """
    if weight <= 0:
        return 0
    wanted = 612 * (math.log10(weight) + 7 / 34)
    return round(2 ** ((math.sqrt(125**2 + 4 * wanted) - 125) / 2))
