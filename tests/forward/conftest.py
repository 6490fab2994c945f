"""Daemons that have the plugin `probe` installed, whose driver writes lines to a file and misbehaves when told to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import build_loggen
from probing import PLUGIN, Probe


@pytest.fixture
def probe(tmp_path: Path) -> Callable[[str], Probe]:
    return lambda name="probe": Probe(tmp_path, name)


@pytest.fixture(scope="session")
def lasting(make_lasting_daemon: Callable[..., Any], busybox_tar: bytes) -> Any:
    """A daemon with the plugin and busybox, for tests that are calm."""
    return with_plugin_and_busybox(make_lasting_daemon(), busybox_tar)


@pytest.fixture
def forwarding(
    request: pytest.FixtureRequest,
    make_daemon: Callable[..., Any],
    busybox_tar: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """A daemon with the plugin and busybox, without containers: one of the test's own unless the test is calm."""
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    is_calm = request.node.get_closest_marker("calm") is not None
    daemon = request.getfixturevalue("lasting") if is_calm else with_plugin_and_busybox(make_daemon(), busybox_tar)
    yield daemon
    daemon.docker("rm", "-f", *daemon.docker("ps", "-aq").stdout.split(), check=False)


def with_plugin_and_busybox(daemon: Any, busybox_tar: bytes) -> Any:
    daemon.start(PYTHONPATH=str(PLUGIN))
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    return daemon


@pytest.fixture
def run(forwarding: Any) -> Callable[..., str]:
    """Start a container in the background with a shell script; returns its id."""

    def start(script: str, *options: str) -> str:
        return forwarding.docker(
            "run", "-d", "--network", "none", *options, "busybox", "sh", "-c", script
        ).stdout.strip()

    return start


@pytest.fixture
def drivers(forwarding: Any) -> Callable[[str], dict[str, Any]]:
    """Return a container's drivers by name, as the daemon shows them."""

    def show(container: str) -> dict[str, Any]:
        return {one["name"]: one for one in forwarding.get(f"/logd/containers/{container}/drivers")}

    return show


@pytest.fixture(scope="session")
def loggen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator of numbered lines, alone in a folder that containers may write to."""
    return build_loggen(tmp_path_factory.mktemp("loggen"))
