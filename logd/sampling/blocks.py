"""What a cgroup has had done by each block device: its own, as the kernel accounts it, never the host's diskstats.

Source: kernel documentation, cgroup-v1/blkio-controller.rst, cgroup-v2.rst "IO Interface Files".
"""

from operator import add
from typing import Final

from logd.sampling.folders import CgroupFiles
from logd.sampling.kept import Look, nothing
from logd.sampling.parse import blkio, io_stat
from logd.usage import Device, Sample

V1_FILES: Final = (
    ("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"),
    ("blkio.bfq.io_service_bytes", "blkio.bfq.io_serviced"),
    ("blkio.io_service_bytes", "blkio.io_serviced"),
)
"""Bytes and operations, the best first: the throttling layer sees every device, a scheduler (bfq, cfq) only its own.
A newer kernel lets the throttling layer count only for disks that were ever throttled."""
_NONE: Final = Device()
RECURSIVE: Final = "_recursive"
"""Ends the name of the file that includes the cgroups below."""


class BlocksV1:
    """The first pair of files that names a device; one that has only a `Total` counts as absent."""

    def __init__(self, files: CgroupFiles) -> None:
        pairs = (_recursive_or_own(files, *names) for names in V1_FILES)
        self._pairs = [pair for pair in pairs if pair[0] is not nothing]
        self._lasting = _Lasting()

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises Gone."""
        if resting is not None:  # v1 charges the task that asks, also for what is written back later
            sample.counters.devices = resting.counters.devices
            return
        for pair in self._pairs:
            if sizes := blkio(pair[0]()):
                numbers = blkio(pair[1]())
                self._pairs = [pair]  # another one would begin at another 0
                devices = {device: Device(*size, *numbers.get(device, (0, 0))) for device, size in sizes.items()}
                break
        else:
            devices = {}
        sample.counters.devices = self._lasting.with_lost(devices)


class _Lasting:
    """Keeps figures from falling: v1 forgets what a cgroup below has done when that is removed.

    A counter that falls would be taken for one that began anew, and its whole height for an increase.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Device] = {}
        self._lost: dict[str, Device] = {}

    def with_lost(self, devices: dict[str, Device]) -> dict[str, Device]:
        """Return the present figures and what was seen before and is no longer in them."""
        for device, seen in self._seen.items():
            fallen = Device(*(max(0, old - new) for old, new in zip(seen, devices.get(device, _NONE), strict=True)))
            if any(fallen):
                self._lost[device] = _sum(self._lost.get(device, _NONE), fallen)
        self._seen = devices
        return {**devices, **{device: _sum(devices.get(device, _NONE), lost) for device, lost in self._lost.items()}}


def _sum(one: Device, other: Device) -> Device:
    return Device(*map(add, one, other))


def _recursive_or_own(files: CgroupFiles, sizes: str, numbers: str) -> tuple[Look, Look]:
    recursive = files.open("blkio", sizes + RECURSIVE), files.open("blkio", numbers + RECURSIVE)
    return recursive if recursive[0] is not nothing else (files.open("blkio", sizes), files.open("blkio", numbers))


class BlocksV2:
    """The v2 controller's io.stat."""

    def __init__(self, files: CgroupFiles) -> None:
        self._stat = files.open("io", "io.stat")

    def fill(self, sample: Sample, resting: Sample | None) -> None:
        """Enter the figures. Raises Gone."""
        sample.counters.devices = io_stat(self._stat())
