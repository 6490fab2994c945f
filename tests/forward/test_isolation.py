"""As `logd log status` shows it: a driver that hangs does nothing to the others, and a wrong count is seen."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import SHORT, Trial, judge, run
from probing import Probe, wait_until
from receivers import make_receiver

WRONG = Path(__file__).parent / "wrong"
LAG_S = 1.0
SECONDS = 20


def status(daemon: Any, container: str) -> dict[str, Any]:
    (one,) = daemon.get(f"/logd/containers/{container}/log")["drivers"]
    return dict(one)


def restarts(daemon: Any, plugin: str) -> int:
    found = daemon.get("/logd/plugins")["forwarders"]
    return sum(one["restarts"] for one in found if one["plugin"] == plugin)


@pytest.mark.soak
async def test_a_driver_that_never_gives_its_loop_back_does_not_make_others_late(
    forwarding: Any, loggen: Path, tmp_path: Path, probe: Callable[[str], Probe]
) -> None:
    target = probe("probe")
    target.behave("spin")
    receiver = make_receiver("fluentd", tmp_path / "fluentd")
    await receiver.start()
    trial = Trial(forwarding, loggen, "fluentd", receiver, SECONDS * 2000)
    lags = []
    try:
        await trial.create()
        await trial.start()
        await trial.has_arrived()
        run_it = [
            "run",
            "-d",
            "--network",
            "none",
            "--log-driver",
            "probe",
            *target.options(),
            "busybox",
            "echo",
            "one",
        ]
        spinning = (await asyncio.to_thread(forwarding.docker, *run_it)).stdout.strip()
        await asyncio.to_thread(wait_until, lambda: status(forwarding, spinning)["state"] == "no answer")
        while not trial.has_ended():
            lags.append((await trial.account())["lag_s"])
        assert await asyncio.to_thread(restarts, forwarding, "probe") >= 1
        judge(await trial.finish("another spins"), SHORT["none"])
    finally:
        await receiver.stop()
    print(f"lag of fluentd beside a driver that spins: {max(lags):.3f} s at most of {len(lags)} looks")
    assert max(lags) < LAG_S
    target.behave("well")
    wait_until(lambda: target.texts() == ["one"])
    wait_until(lambda: status(forwarding, spinning)["difference"] == 0)


@pytest.mark.parametrize("counter", ["delivered", pytest.param("dropped", marks=pytest.mark.soak)])
async def test_a_counter_that_counts_wrong_shows_in_the_account(
    make_daemon: Callable[..., Any], busybox_tar: bytes, loggen: Path, tmp_path: Path, counter: str
) -> None:
    daemon = make_daemon().start(PYTHONPATH=str(WRONG), LOGD_WRONG_COUNTER=counter)
    daemon.docker("import", "-", "busybox:latest", stdin=busybox_tar, text=False)
    fault = SHORT["none"]
    (row,) = await run(daemon, loggen, tmp_path, ["fluentd"], fault)
    assert row.lost == 0
    assert row.difference
    with pytest.raises(AssertionError):
        judge(row, fault)
