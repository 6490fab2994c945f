"""Fixtures of the runtime's tests."""

import pytest
from oci_container import Containers, make_busybox_layer


@pytest.fixture(scope="session")
def busybox_layer(tmp_path_factory):
    return make_busybox_layer(tmp_path_factory.mktemp("busybox") / "layer")


@pytest.fixture
def containers(tmp_path, busybox_layer):
    made = Containers(tmp_path, busybox_layer)
    yield made
    made.close()
