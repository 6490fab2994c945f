"""Huge pages of a cgroup, by their size. Only sizes of which the host has some are looked at: there seldom are any.

Source: kernel documentation, cgroup-v1/hugetlb.rst, cgroup-v2.rst "HugeTLB", admin-guide/mm/hugetlbpage.rst.
"""

from pathlib import Path
from typing import Final

from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import read_once
from logd.sampling.parse import count, number, pairs
from logd.usage import Pages, Sample

POOLS: Final = Path("sys/kernel/mm/hugepages")
UNITS: Final = ((1 << 20, "GB"), (1 << 10, "MB"), (1, "KB"))


class HugePagesV1:
    """The v1 controller."""

    def __init__(self, files: CgroupFiles, sizes: list[str]) -> None:
        names = ("usage_in_bytes", "max_usage_in_bytes", "failcnt")
        self._looks = {size: [files.open("hugetlb", f"hugetlb.{size}.{name}") for name in names] for size in sizes}

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises Gone."""
        for size, looks in self._looks.items():
            pages = Pages(*(number(look()) for look in looks))
            if any(pages):
                sample.huge_pages[size] = pages


class HugePagesV2:
    """The v2 controller, which keeps no peak."""

    def __init__(self, files: CgroupFiles, sizes: list[str]) -> None:
        names = ("current", "events")
        self._looks = {size: [files.open("hugetlb", f"hugetlb.{size}.{name}") for name in names] for size in sizes}

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises Gone."""
        for size, (current, events) in self._looks.items():
            pages = Pages(number(current()), 0, count(pairs(events()), b"max"))
            if any(pages):
                sample.huge_pages[size] = pages


def pool_sizes(host: Path) -> list[str]:
    """Return the sizes of huge pages that a host has or may make, as cgroups name them: `2MB`."""
    sizes = []
    try:
        pools = sorted((host / POOLS).iterdir())
    except OSError:  # a kernel without them
        return []
    for pool in pools:
        kilobytes = pool.name.removeprefix("hugepages-").removesuffix("kB")
        has = (number(read_once(f"{pool}/{name}")) for name in ("nr_hugepages", "nr_overcommit_hugepages"))
        if kilobytes.isdecimal() and any(has):
            sizes.append(_size_name(int(kilobytes)))
    return sizes


def _size_name(kilobytes: int) -> str:
    unit, suffix = next((unit, suffix) for unit, suffix in UNITS if kilobytes >= unit)
    return f"{kilobytes // unit}{suffix}"
