"""Fixtures of the tests of the whole system."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def emptied_busybox(shared_busybox: Any) -> Iterator[Any]:
    """The daemon of a module; what a test leaves there of containers goes with it."""
    yield shared_busybox
    if names := shared_busybox.docker("ps", "-aq").stdout.split():
        shared_busybox.docker("rm", "-f", *names)
