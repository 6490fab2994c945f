"""Fixtures of the API's tests: Docker's SDK for Python on the daemon of a module."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest


@pytest.fixture
def collected_sockets() -> Iterator[None]:
    """Have the SDK's sockets collected while the warning is off."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def client(shared_busybox: Any) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(base_url=shared_busybox.host, version="auto")) as client:
        yield client


@pytest.fixture
def containers() -> Iterator[list[Any]]:
    """Containers of the SDK: those that are put there go with the test."""
    made: list[Any] = []
    yield made
    for container in made:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)
