"""The formats of the kernel's accounting files. What a parser does not know it leaves out: a newer kernel adds fields.

Source: kernel documentation, admin-guide/cgroup-v1 and cgroup-v2.rst, accounting/psi.rst, admin-guide/iostats.rst;
proc_pid_net(5).
"""

from collections.abc import Mapping
from typing import Final

from logd.usage import Device, Interface, Stall

UNLIMITED: Final = 1 << 62
"""v1 says "no limit" by the largest multiple of a page below 2^63."""
SECTOR: Final = 512
"""Of /proc/diskstats, whatever the device's own."""
LOOPBACK: Final = b"lo"
NET_DEV_TITLES: Final = 2


def number(data: bytes) -> int:
    """Read a file of one number; 0 where there is none (`max`, or no such file)."""
    try:
        return int(data)
    except ValueError:
        return 0


def limit(data: bytes) -> int:
    """Read a limit; 0 where there is none."""
    value = number(data)
    return value if 0 < value < UNLIMITED else 0


def pairs(data: bytes) -> dict[bytes, bytes]:
    """Read lines of a name and a number; the numbers stay text, since few of them are wanted."""
    words = data.split()
    return dict(zip(words[::2], words[1::2], strict=False))


def count(table: Mapping[bytes, bytes], name: bytes) -> int:
    """Return a number of `pairs`, 0 where there is none."""
    return int(table.get(name, 0))


class Columns:
    """The wanted numbers of a file of `pairs` whose names and their order hardly ever change: found once, then checked.

    That takes half the time of a dictionary, and memory.stat is the longest file of all.
    """

    def __init__(self, *names: bytes) -> None:
        self._names = names
        self._all: list[bytes] = []
        self._places: list[int] = []
        self._absent: list[int] = list(range(len(names)))

    def __call__(self, data: bytes) -> list[int]:
        """Return the numbers in the order of the names, 0 for one that is not there."""
        words = data.split()
        if words[::2] != self._all:
            self._find(words)
        values = [int(words[place]) for place in self._places]
        for index in self._absent:
            values.insert(index, 0)
        return values

    def _find(self, words: list[bytes]) -> None:
        table = {name: 2 * index + 1 for index, name in enumerate(words[: len(words) // 2 * 2 : 2])}
        self._all = words[::2]
        self._places = [table[name] for name in self._names if name in table]
        self._absent = [index for index, name in enumerate(self._names) if name not in table]


def pressure(data: bytes) -> tuple[Stall, float]:
    """Read a *.pressure file: the stalled times, and in which part (0 to 1) of the last ten seconds some task waited.

    The line `full` is not there for the cpu before Linux 5.13.
    """
    words = data.split()
    if len(words) < 5:
        return Stall(), 0.0
    full = int(words[9][6:]) if len(words) >= 10 else 0
    return Stall(int(words[4][6:]), full), round(float(words[1][6:]) / 100, 4)


def net_dev(data: bytes) -> dict[str, Interface]:
    """Read /proc/PID/net/dev, without the loopback."""
    found = {}
    for line in data.splitlines()[NET_DEV_TITLES:]:
        name, _, numbers = line.rpartition(b":")
        name = name.strip()
        if name == LOOPBACK or not name:
            continue
        n = numbers.split()
        rx, tx = map(int, n[:4]), map(int, n[8:12])
        found[name.decode("utf-8", "replace")] = Interface(*rx, *tx)
    return found


def blkio(data: bytes) -> dict[str, tuple[int, int]]:
    """Read a v1 blkio file of `8:0 Read 4096` lines: (read, written) by device; empty if it has only a `Total`."""
    words = iter(data.split())
    found: dict[str, tuple[int, int]] = {}
    for device, operation, value in zip(words, words, words, strict=False):
        if operation == b"Read":
            key = device.decode("ascii", "replace")
            found[key] = int(value), found.get(key, (0, 0))[1]
        elif operation == b"Write":
            key = device.decode("ascii", "replace")
            found[key] = found.get(key, (0, 0))[0], int(value)
    return found


def diskstats(data: bytes) -> dict[tuple[str, str], Device]:
    """Read /proc/diskstats: by number and name; partitions are among them, what was never used is not."""
    found = {}
    for line in data.splitlines():
        words = line.split()
        reads, read_sectors, writes, written_sectors = (int(words[column]) for column in (3, 5, 7, 9))
        if reads or writes:
            key = f"{words[0].decode('ascii')}:{words[1].decode('ascii')}", words[2].decode("utf-8", "replace")
            found[key] = Device(read_sectors * SECTOR, written_sectors * SECTOR, reads, writes)
    return found


def io_stat(data: bytes) -> dict[str, Device]:
    """Read a v2 io.stat.

    A device without figures may have its number alone, in older kernels on the line of the next device.
    """
    tables: dict[bytes, dict[bytes, bytes]] = {}
    figures: dict[bytes, bytes] = {}
    for word in data.split():
        key, equals, value = word.partition(b"=")
        if equals:
            figures[key] = value
        else:
            figures = tables[word] = {}
    return {
        device.decode("ascii", "replace"): Device(
            count(table, b"rbytes"), count(table, b"wbytes"), count(table, b"rios"), count(table, b"wios")
        )
        for device, table in tables.items()
        if table
    }
