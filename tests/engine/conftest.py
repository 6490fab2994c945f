"""Fixtures of the engine's tests."""

import pytest
from engine_home import Home


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "data")
    yield made
    made.close()
