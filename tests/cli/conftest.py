"""Fixtures: a scripted daemon, and `logs` as a person starts it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_peer import Peer


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path)
    yield peer
    peer.close()


class Logs:
    """Starts `logs` against the peer."""

    def __init__(self, host: str) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "DOCKER_HOST"}},
            "LOGD_HOST": host,
            "TERM": "xterm",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "logd.cli.logs", *arguments]

    def __call__(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        options = {"capture_output": True, "timeout": 30, "env": self.environment, **options}
        return subprocess.run(self.command(*arguments), check=False, **options)

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(*arguments), env=self.environment, **options)


@pytest.fixture
def logs(peer: Peer) -> Logs:
    return Logs(peer.host)
