"""Fixtures of the runtime's tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from killing import kill_all
from oci_container import Containers, make_busybox_layer

from logd.runtime.supervisor import Supervisor


@pytest.fixture(scope="session")
def busybox_layer(tmp_path_factory):
    return make_busybox_layer(tmp_path_factory.mktemp("busybox") / "layer")


@pytest.fixture
def containers(tmp_path, busybox_layer):
    made = Containers(tmp_path, busybox_layer)
    yield made
    made.close()


@pytest.fixture
def exec_root(tmp_path: Path) -> Iterator[Path]:
    """A folder for sockets and bundles; what still runs on it afterwards is ended."""
    root = tmp_path / "exec"
    root.mkdir()
    yield root
    for comm in ("logd-keeper", "logd-shim"):
        kill_all(comm, root)


@pytest_asyncio.fixture
async def supervisor(exec_root: Path) -> AsyncIterator[Supervisor]:
    one = Supervisor(exec_root)
    await one.start()
    yield one
    await one.close()
