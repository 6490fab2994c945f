"""Fixtures: a scripted daemon, and `logs` as a person starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_peer import Logs, Peer
from screen import Screen


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path)
    yield peer
    peer.close()


@pytest.fixture
def logs(peer: Peer) -> Iterator[Logs]:
    logs = Logs(peer.host)
    yield logs
    logs.close()


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()
