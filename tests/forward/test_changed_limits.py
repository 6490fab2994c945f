"""Limits of a store that are changed while its container runs."""

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

from probing import wait_until

PRINTED = 588_895
"""By `seq 100000`."""


def stored(folder: Path) -> int:
    found = 0
    for file in folder.glob("*.stdout"):
        with contextlib.suppress(FileNotFoundError):  # it goes just now
            found += file.stat().st_size
    return found


def test_limits_reach_the_store_of_a_container_that_runs(run: Any, forwarding: Any) -> None:
    """By a reload of the daemon's settings, and by options of the container's own."""
    container = run("seq 100000; sleep 1000", "--log-opt", "max-size=100k", "--log-opt", "max-file=50")
    folder = forwarding.data_root / "containers" / container / "log"
    wait_until(lambda: stored(folder) == PRINTED)
    settings = json.loads(forwarding.config_file.read_text())
    settings.setdefault("logd", {})["store"] = {"max-total": "300k"}
    forwarding.config_file.write_text(json.dumps(settings))
    forwarding.process.send_signal(signal.SIGHUP)
    wait_until(lambda: 100_000 < stored(folder) <= 300 << 10)
    forwarding.logd("log", "driver", "set", container, "local", "--log-opt", "max-size=50k", "--log-opt", "max-file=1")
    wait_until(lambda: stored(folder) <= 50 << 10)
