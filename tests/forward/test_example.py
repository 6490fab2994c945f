"""The example package: installed as a stranger's is, tested by its own tests, and used by a container."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

LOKI = Path(__file__).parents[2] / "examples" / "logd-loki"
sys.path.append(str(LOKI / "tests"))
from loki_peer import LokiPeer  # noqa: E402  # the example's own


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package, as pip installs it."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(LOKI, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    target = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(target), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
async def loki() -> AsyncIterator[LokiPeer]:
    async with LokiPeer(needs_tenant=True) as peer:
        yield peer


@pytest.fixture
def daemon_with_loki(
    make_daemon: Callable[..., Any], busybox_tar: bytes, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    daemon = make_daemon().start()
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    return daemon


async def test_a_container_of_the_docker_command_line_logs_to_loki(daemon_with_loki: Any, loki: LokiPeer) -> None:
    options = {
        "loki-url": loki.url,
        "loki-tenant-id": "team-a",
        "loki-labels": "env=test",
        "labels": "app",
        "tag": "{{.Name}}/{{.ImageName}}",
    }
    words = [word for name, value in options.items() for word in ("--log-opt", f"{name}={value}")]
    script = "echo one; echo; printf 'tick\\ntick\\n'; printf 'no end'; echo oops >&2"
    command = ["run", "--name", "web", "--label", "app=shop", "--network", "none", "--log-driver", "loki", *words]
    await asyncio.to_thread(daemon_with_loki.docker, *command, "busybox", "sh", "-c", script)
    expected = ["one", "", "tick", "tick", "no end"]
    await asyncio.to_thread(wait_until, lambda: len(loki.entries(source="stdout")) == len(expected))
    assert [one.line for one in loki.entries(source="stdout")] == expected
    await asyncio.to_thread(wait_until, lambda: loki.entries(source="stderr"))
    assert [one.line for one in loki.entries(source="stderr")] == ["oops"]
    has = {"app": "shop", "container_name": "web", "env": "test", "tag": "web/busybox"}
    assert [(tenant, dict(labels)) for tenant, labels in sorted(loki.streams)] == [
        ("team-a", {**has, "source": source}) for source in ("stderr", "stdout")
    ]
    shown = await asyncio.to_thread(daemon_with_loki.docker, "logs", "web")
    assert shown.stdout == "one\n\ntick\ntick\nno end"


def test_an_option_of_the_driver_is_checked_when_the_container_is_created(daemon_with_loki: Any) -> None:
    command = ["create", "--log-driver", "loki", "--log-opt", "loki-url=ftp://x", "busybox"]
    refused = daemon_with_loki.docker(*command, check=False)
    assert "loki-url: 'ftp://x' (accepted: http://host:3100, https://…)" in refused.stderr
    assert refused.returncode == 1


@pytest.mark.soak
def test_the_examples_own_tests_pass_with_what_is_installed(installed: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(LOKI / "tests")]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        cwd=LOKI,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
