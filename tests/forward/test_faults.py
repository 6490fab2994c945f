"""Destinations that fail in every way while a container prints 2,000 lines a second: see faults.py."""

from pathlib import Path
from typing import Any

import pytest
from faults import LONG, SHORT, groups, judge, run

BRIEF = {
    "acknowledges half": ["fluentd", "splunk"],
    "resets mid-batch": ["fluentd tls", "splunk"],
    "bad certificates": ["gelf tls"],
    "--rm, away for long": ["journald", "splunk", "fluentd"],
    "processes killed": ["journald", "syslog tcp", "fluentd", "splunk"],
}
"""What the short form has; make soak has every fault with every destination."""


@pytest.mark.calm
@pytest.mark.parametrize("fault", [one for one in BRIEF if not SHORT[one].kills])
async def test_no_fault_of_a_destination_costs_a_line_or_holds_up_a_container(
    forwarding: Any, loggen: Path, tmp_path: Path, fault: str
) -> None:
    for row in await run(forwarding, loggen, tmp_path, BRIEF[fault], SHORT[fault]):
        judge(row, SHORT[fault])


@pytest.mark.parametrize("fault", [one for one in BRIEF if SHORT[one].kills])
async def test_processes_killed_at_random_moments_cost_no_line(
    forwarding: Any, loggen: Path, tmp_path: Path, fault: str
) -> None:
    for row in await run(forwarding, loggen, tmp_path, BRIEF[fault], SHORT[fault]):
        judge(row, SHORT[fault])


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", LONG)
async def test_no_fault_that_lasts_costs_a_line_or_holds_up_a_container(
    forwarding: Any, loggen: Path, tmp_path: Path, fault: str
) -> None:
    for number, group in enumerate(groups(LONG[fault])):
        for row in await run(forwarding, loggen, tmp_path / str(number), group, LONG[fault]):
            judge(row, LONG[fault])
