import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.images.store import ImageStore


@pytest.fixture(autouse=True)
def as_root() -> None:
    """Owners, devices and trusted attributes are root's to set; so the daemon runs as root, and these tests do."""
    assert os.geteuid() == 0, "the tests of images run as root"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts layers (top first) as a container has them, with a writable one on top."""
    mounted: list[Path] = []

    def mount(lower: list[Path]) -> Path:
        base = tmp_path / f"overlay{len(mounted)}"
        for name in ("upper", "work", "root"):
            (base / name).mkdir(parents=True)
        options = f"lowerdir={':'.join(map(str, lower))},upperdir={base / 'upper'},workdir={base / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(base / "root")], check=True)
        mounted.append(base / "root")
        return base / "root"

    yield mount
    for root in mounted:
        subprocess.run(["umount", str(root)], check=True)


def run_unpack(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "logd.images.unpack", *map(str, arguments)]
