"""A cgroup of the tests' own, in every tree of this host."""

import contextlib
import os
import secrets
from pathlib import Path

import pytest

from logd.runtime.cgroup import container_folders, detect

CONTROLLERS = ("", "cpu", "cpuacct", "memory", "blkio", "io", "pids")  # a new cgroup of cpuset takes no process


class OwnCgroup:
    """A cgroup without processes. `remove` removes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        trees = container_folders(detect(), path)
        self.folders = {trees[name] for name in CONTROLLERS if name in trees}
        for folder in self.folders:
            folder.mkdir()

    def remove(self) -> None:
        for folder in self.folders:
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()


@pytest.fixture
def own_cgroup():
    made = OwnCgroup(f"/logd-tests-{secrets.token_hex(8)}")
    yield made
    made.remove()


@pytest.fixture
def descriptors():
    """Return a count of the descriptors that this process has."""
    return lambda: len(os.listdir("/proc/self/fd"))


@pytest.fixture
def trees():
    """Return where recorded trees are, and what is read beside them."""
    return Path(__file__).parents[1] / "data/cgroup"
