"""The decision: who is started again, after how long, and who when the daemon starts."""

import pytest
from engine_samples import make_container
from hypothesis import given
from hypothesis import strategies as st

from logd.container import State
from logd.engine.restarts import (
    FIRST_WAIT_NS,
    LONGEST_WAIT_NS,
    STEADY_NS,
    is_due,
    next_wait_ns,
    rest_ns,
    starts_with_daemon,
)
from logd.engine.signals import means_stop
from logd.spec import HostConfig, RestartPolicy
from logd.units import NS

NAMES = ("", "no", "on-failure", "always", "unless-stopped")
policies = st.builds(RestartPolicy, name=st.sampled_from(NAMES), maximum_retry_count=st.integers(0, 5))
codes = st.integers(0, 255)
counts = st.integers(0, 10)
times = st.integers(0, 1 << 62)


@pytest.mark.parametrize(
    ("name", "most", "exit_code", "count", "due"),
    [
        ("no", 0, 1, 0, False),
        ("", 0, 1, 0, False),
        ("always", 0, 0, 1000, True),
        ("unless-stopped", 0, 137, 1000, True),
        ("on-failure", 0, 0, 0, False),
        ("on-failure", 0, 1, 1000, True),
        ("on-failure", 0, 255, 0, True),  # nobody saw the end
        ("on-failure", 0, 137, 0, True),  # the kernel's out-of-memory killer
        ("on-failure", 3, 1, 2, True),
        ("on-failure", 3, 1, 3, False),
    ],
)
def test_each_policy_decides_as_dockers(name: str, most: int, exit_code: int, count: int, due: bool) -> None:
    policy = RestartPolicy(name=name, maximum_retry_count=most)
    assert is_due(policy, exit_code=exit_code, count=count, stopped=False) is due


@given(policies, codes, counts)
def test_who_was_stopped_by_a_person_is_never_due(policy: RestartPolicy, exit_code: int, count: int) -> None:
    assert not is_due(policy, exit_code=exit_code, count=count, stopped=True)


@given(st.integers(1, 20))
def test_on_failure_with_a_number_restarts_just_so_often(most: int) -> None:
    policy, count = RestartPolicy(name="on-failure", maximum_retry_count=most), 0
    while is_due(policy, exit_code=1, count=count, stopped=False):
        count += 1
    assert count == most


def test_the_wait_doubles_from_100_ms_to_a_minute() -> None:
    waits, last = [], 0
    for _ in range(12):
        last = next_wait_ns(last, ran_ns=0)
        waits.append(last / NS)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]


@given(times, times)
def test_a_wait_is_within_its_bounds_and_the_first_again_after_ten_seconds(last_ns: int, ran_ns: int) -> None:
    wait_ns = next_wait_ns(last_ns, ran_ns)
    assert FIRST_WAIT_NS <= wait_ns <= LONGEST_WAIT_NS or last_ns < FIRST_WAIT_NS
    assert wait_ns == FIRST_WAIT_NS or (last_ns and ran_ns < STEADY_NS)


@given(st.integers(0, LONGEST_WAIT_NS), times, times)
def test_what_is_left_of_a_wait_is_never_more_than_it_whatever_the_clock_does(
    wait_ns: int, finished_ns: int, now_ns: int
) -> None:
    left_ns = rest_ns(wait_ns, finished_ns, now_ns)
    assert 0 <= left_ns <= wait_ns
    if now_ns >= finished_ns:
        assert left_ns == max(0, finished_ns + wait_ns - now_ns)


@pytest.mark.parametrize(
    ("signal", "stop_signal", "stops"),
    [(9, "HUP", True), (1, "", True), (15, "", True), (1, "TERM", False), (15, "SIGTERM", True), (3, "3", True)],
)
def test_a_kill_means_a_stop_as_for_dockerd(signal: int, stop_signal: str, stops: bool) -> None:
    assert means_stop(stop_signal, signal) is stops


@pytest.mark.parametrize(
    ("name", "changes", "count", "starts"),
    [
        ("always", {}, 0, True),
        ("always", {"manually_stopped": True}, 0, True),
        ("unless-stopped", {}, 0, True),
        ("unless-stopped", {"manually_stopped": True}, 0, False),
        ("on-failure", {"exit_code": 1}, 1, True),
        ("on-failure", {"exit_code": 1}, 2, False),
        ("on-failure", {"exit_code": 0}, 0, False),
        ("on-failure", {"exit_code": 143, "manually_stopped": True}, 0, False),
        ("no", {"exit_code": 1}, 0, False),
        ("always", {"started_ns": 0}, 0, False),  # it never ran
        ("always", {"running": True}, 0, False),
        ("always", {"dead": True}, 0, False),
    ],
)
def test_with_the_daemon_those_start_that_docker_would(tmp_path, name, changes, count, starts) -> None:
    most = 2 if name == "on-failure" else 0
    container = make_container(
        tmp_path,
        state=State(**{"started_ns": 1, "finished_ns": 2, **changes}),
        host_config=HostConfig(restart_policy=RestartPolicy(name=name, maximum_retry_count=most)),
        restart_count=count,
    )
    assert starts_with_daemon(container) is starts
