"""dockerode, the SDK for Node that is npm's, on a real daemon: each of its steps is a test."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("dockerode_steps.js")
NODE_MODULES = Path(__file__).parent.parent.parent / ".make" / "npm" / "node_modules"
STEPS = re.findall(r'^step\("(.+?)", ', SCRIPT.read_text(), re.MULTILINE)
PATIENCE_S = 120


@pytest.fixture(scope="module")
def outcomes(shared_busybox):
    """What went wrong in each step, None where nothing did."""
    node = shutil.which("node")
    assert node, "the tests need node (Debian's nodejs)"
    assert (NODE_MODULES / "dockerode").is_dir(), "scripts/npm_packages.sh .make/npm fetches it"
    done = subprocess.run(
        [node, str(SCRIPT)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "DOCKER_HOST": shared_busybox.host, "NODE_PATH": str(NODE_MODULES)},
    )
    assert done.returncode == 0, f"{done}\n{shared_busybox.log()}"
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["step"]: one["error"] for one in said}


@pytest.mark.parametrize("step", STEPS)
def test_dockerode(outcomes, step):
    assert outcomes[step] is None


def test_dockerode_leaves_nothing(outcomes, shared_busybox):
    assert len(outcomes) == len(STEPS) > 15
    assert shared_busybox.docker("ps", "-aq").stdout == ""
    assert shared_busybox.docker("volume", "ls", "-q").stdout == ""
    networks = shared_busybox.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert sorted(networks) == ["bridge", "host", "none"]
