"""`logd doctor` on a daemon with a broken plugin, and with a destination that is down."""

import json
from typing import Any

from probing import wait_until


def test_what_does_not_work_is_named_with_its_error_and_the_exit_status_is_1(
    run: Any, probe: Any, drivers: Any, forwarding: Any
) -> None:
    target = probe()
    target.behave("refuse")
    container = run("echo one", "--log-driver", "probe", *target.options(), "--name", "ailing")
    wait_until(lambda: drivers(container)["probe"]["state"] == "retrying")
    done = forwarding.logd("doctor", "--json", check=False)
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1
    assert found["destinations"]["status"] == "fail"
    assert "ailing probe (probe) retrying: nobody listens" in found["destinations"]["found"]
    assert "logd_probe_broken" in found["plugins"]["found"]
    assert found["pipes"]["status"] == "ok"
    target.behave("well")
    wait_until(lambda: drivers(container)["probe"]["state"] == "idle")
    lines = forwarding.logd("doctor", check=False).stdout.splitlines()
    assert "ok    destinations: none is known to be down" in lines
