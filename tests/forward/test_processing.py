"""Line processors between a container and its destination, in a daemon that runs; the destination is json-file."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

TRACE = ["Traceback (most recent call last):", '  File "x.py", line 1, in f', "    g()", "ValueError: secret"]
NAME = "json-file"


def opts(*options: str) -> list[str]:
    return ["--log-driver", NAME, *(word for option in options for word in ("--log-opt", option))]


def sent(daemon: Any, container: str) -> list[str]:
    """Return the lines that have arrived."""
    path = Path(daemon.docker("inspect", "--format", "{{.LogPath}}", container).stdout.strip())
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["log"].removesuffix("\n") for line in lines if line.endswith(b"\n")]


def settled(drivers: Any, container: str) -> dict[str, Any]:
    """Return the driver's account once nothing is waiting."""
    return wait_until(lambda: (found := drivers(container)[NAME]) and not found["buffered"] and found)


@pytest.mark.calm
def test_lines_are_joined_chosen_and_masked_and_what_is_left_out_is_accounted_for(
    run: Any, drivers: Any, forwarding: Any
) -> None:
    lines = ["GET /health", "mail me@example.com", *TRACE, "on", "GET /health"]
    text = "\n".join(lines) + "\n"
    options = opts("multiline=python,java", "exclude=/health", "redact=secret", "redact-presets=emails")
    container = run(f"cat <<'E'\n{text}E", *options)
    account = settled(drivers, container)
    assert sent(forwarding, container) == ["mail ***", "\n".join(TRACE).replace("secret", "***"), "on"]
    assert account["dropped"] == {"filtered": 24}
    assert (account["captured"], account["delivered"], account["difference"]) == (len(text), len(text) - 24, 0)
    assert forwarding.docker("logs", container).stdout == text


@pytest.mark.calm
def test_a_marker_tells_of_suppressed_lines_while_the_container_is_silent(
    run: Any, drivers: Any, forwarding: Any
) -> None:
    container = run("seq 100; sleep 999", *opts("rate-limit=5"))
    assert wait_until(lambda: (found := sent(forwarding, container))[5:] and found)[:5] == list("12345")
    assert sent(forwarding, container)[5:] == ["[logd: 95 lines suppressed by rate-limit=5]"]
    account = settled(drivers, container)
    assert (account["dropped"], account["delivered"], account["difference"]) == ({"rate-limit": 282}, 10, 0)


def test_a_record_that_is_held_back_while_the_forwarder_is_killed_is_joined_again(
    run: Any, drivers: Any, forwarding: Any, tmp_path: Path
) -> None:
    options = [*opts("multiline-start=^START", "multiline-flush=1h"), "-v", f"{tmp_path}:/t"]
    script = (
        "echo START 1; echo a; echo START 2; echo b; while [ ! -e /t/go ]; do sleep 0.1; done; echo c; echo START 3"
    )
    container = run(script, *options)
    wait_until(lambda: sent(forwarding, container) == ["START 1\na"])
    forwarders = forwarding.get("/logd/plugins")["forwarders"]
    os.kill(forwarders[0]["pid"], signal.SIGKILL)
    (tmp_path / "go").touch()
    account = settled(drivers, container)
    assert sent(forwarding, container) == ["START 1\na", "START 2\nb\nc", "START 3"]
    assert account["difference"] == 0


@pytest.mark.calm
def test_a_line_that_waits_for_more_is_sent_when_nothing_comes(run: Any, forwarding: Any) -> None:
    container = run("echo START 1; echo a; sleep 999", *opts("multiline-start=^START", "multiline-flush=200ms"))
    wait_until(lambda: sent(forwarding, container) == ["START 1\na"])


@pytest.mark.calm
def test_wrong_options_of_a_processor_are_refused_at_create(forwarding: Any) -> None:
    refused = forwarding.docker("create", *opts("redact=("), "busybox", check=False)
    assert re.search(r"redact: invalid regular expression '\('", refused.stderr)


@pytest.mark.calm
def test_lines_that_come_one_by_one_within_the_time_are_one_record(run: Any, drivers: Any, forwarding: Any) -> None:
    script = "for n in 1 2 3 4; do echo START $n; for m in a b c; do sleep 0.3; echo $m; done; done"
    container = run(script, *opts("multiline-start=^START", "multiline-flush=2s", "flush-interval=0s"))
    forwarding.docker("wait", container)
    settled(drivers, container)
    assert sent(forwarding, container) == [f"START {n}\na\nb\nc" for n in range(1, 5)]
