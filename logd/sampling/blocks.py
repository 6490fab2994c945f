"""What a cgroup has had done by each block device: its own, as the kernel accounts it, never the host's diskstats.

Source: kernel documentation, cgroup-v1/blkio-controller.rst, cgroup-v2.rst "IO Interface Files".
"""

from typing import Final

from logd.sampling.folders import CgroupFiles
from logd.sampling.parse import blkio, io_stat
from logd.usage import Device, Sample

V1_FILES: Final = (
    ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
    ("blkio.bfq.io_service_bytes_recursive", "blkio.bfq.io_serviced_recursive"),
    ("blkio.io_service_bytes_recursive", "blkio.io_serviced_recursive"),
    ("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"),
)
"""Bytes and operations, the best first: the throttling layer sees every device, a scheduler only its own; those that
include the cgroups below. A newer kernel lets the throttling layer count only for disks that were ever throttled."""


class BlocksV1:
    """The first pair of files that names a device; one that has only a `Total` counts as absent."""

    def __init__(self, files: CgroupFiles) -> None:
        self._pairs = [tuple(files.open("blkio", name) for name in names) for names in V1_FILES]

    def fill(self, sample: Sample) -> None:
        """Enter the figures. Raises Gone."""
        for pair in self._pairs:
            sizes = blkio(pair[0]())
            if sizes:
                self._pairs = [pair]  # another one would begin at another 0
                numbers = blkio(pair[1]())
                sample.counters.devices = {
                    device: Device(*size, *numbers.get(device, (0, 0))) for device, size in sizes.items()
                }
                return


class BlocksV2:
    """The v2 controller's io.stat."""

    def __init__(self, files: CgroupFiles) -> None:
        self._stat = files.open("io", "io.stat")

    def fill(self, sample: Sample) -> None:
        """Enter the figures. Raises Gone."""
        sample.counters.devices = io_stat(self._stat())
