"""The unit's own rate limit, with a real journald: what logd's unit sets has every entry of every container taken."""

import configparser
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from journald_peer import Journald, journald, message, until

from logd.doctor.journald import parse_time_span
from logd.runtime.cgroup import detect

UNIT = "logd-doctor-test.service"
ENTRIES = 5000
SEND = """
import os, socket, sys
for folder in sys.argv[2:]:
    open(folder + "/cgroup.procs", "w").write(str(os.getpid()))
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect(sys.argv[1])
for number in range(5000):
    to.send(b"MESSAGE=line %d\\nPRIORITY=6\\n" % number)
to.send(b"MESSAGE=end\\nPRIORITY=3\\n")
"""


@pytest.fixture
def unit_cgroup() -> Iterator[list[Path]]:
    """A cgroup as the unit would have, in each tree that journald may look at."""
    found = detect()
    trees = [found.mounts[name] for name in ("", "systemd") if name in found.mounts]
    assert trees, "journald finds a process's unit by its cgroup: there is none"
    folders = [tree / "system.slice" / UNIT for tree in trees]
    fresh = [folder.parent for folder in folders if not folder.parent.exists()]
    for folder in folders:
        folder.mkdir(parents=True)
    yield folders
    for folder in [*folders, *fresh]:
        folder.rmdir()


def shipped_interval_us() -> str:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(Path(__file__).parents[2] / "config" / "logd.service")
    return f"{parse_time_span(unit['Service']['LogRateLimitIntervalSec']) * 1e6:.0f}"


def taken(running: Journald, folders: list[Path]) -> int:
    """Have a process of the unit log 5,000 entries by the native protocol; return how many journald takes."""
    arguments = [str(running.socket), *map(str, folders)]
    subprocess.run([sys.executable, "-c", SEND, *arguments], check=True)
    until(lambda: any(message(one) == b"end" for one in running.entries("PRIORITY=3")))  # its limit is one of its own
    entries = [one for one in running.entries() if message(one).startswith(b"line ")]
    assert {one["_SYSTEMD_UNIT"] for one in entries} == {UNIT}
    return len(entries)


def test_the_shipped_units_setting_switches_journalds_limit_off(tmp_path: Path, unit_cgroup: list[Path]) -> None:
    with journald(tmp_path / "limited", RateLimitIntervalSec="60s", RateLimitBurst="10") as running:
        assert taken(running, unit_cgroup) < ENTRIES
    with journald(tmp_path / "unit", RateLimitIntervalSec="60s", RateLimitBurst="10") as running:
        link = tmp_path / "unit" / "units" / f"log-rate-limit-interval:{UNIT}"
        os.symlink(shipped_interval_us(), link)
        assert taken(running, unit_cgroup) == ENTRIES
