"""What probes make of a container's health, without any container."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.container import Health, Probe
from logd.engine.health_state import Check, check_of, delay_ns, judge, output_text, restarted, spread_ns, timeout_text
from logd.engine.merge import check_request, merge_image
from logd.errors import InvalidParameter
from logd.spec import ContainerSpec, HealthConfig, HostConfig
from logd.units import NS

STARTED_NS = 1_700_000_000 * NS
CHECK = Check(
    argv=("true",),
    interval_ns=30 * NS,
    timeout_ns=NS // 2,
    start_period_ns=10 * NS,
    start_interval_ns=2 * NS,
    retries=3,
)


def probe(exit_code, after_s=0.0):
    start_ns = STARTED_NS + int(after_s * NS)
    return Probe(start_ns=start_ns, end_ns=start_ns + 1, exit_code=exit_code, output="")


def after(*results, check=CHECK):
    """The health of a container that was probed with these (exit code, seconds after its start)."""
    health = Health()
    for exit_code, seconds in results:
        health = judge(check, health, probe(exit_code, seconds), STARTED_NS)
    return health.status, health.failing_streak


def test_a_success_makes_it_healthy_and_three_failures_in_a_row_unhealthy():
    assert after() == ("starting", 0)
    assert after((0, 20)) == ("healthy", 0)
    assert after((1, 20), (1, 50)) == ("starting", 2)
    assert after((1, 20), (1, 50), (-1, 80)) == ("unhealthy", 3)
    assert after((0, 20), (1, 50), (137, 80)) == ("healthy", 2)
    assert after((1, 20), (1, 50), (1, 80), (1, 110), (0, 140)) == ("healthy", 0)


def test_failures_in_the_start_period_do_not_count_until_a_first_success_ends_it():
    assert after((1, 1), (1, 3), (1, 5), (1, 7)) == ("starting", 0)
    assert after((1, 1), (1, 9.9), (1, 10), (1, 40)) == ("starting", 2)
    assert after((0, 1), (1, 2), (1, 3), (1, 4)) == ("unhealthy", 3)


@given(st.lists(st.tuples(st.sampled_from([0, 1, -1]), st.integers(0, 30)), max_size=30), st.integers(1, 5))
def test_health_is_what_the_results_since_the_last_success_say(results, retries):
    results = sorted(results, key=lambda result: result[1])
    check = Check(
        argv=("x",), interval_ns=1, timeout_ns=1, start_period_ns=10 * NS, start_interval_ns=1, retries=retries
    )
    health = Health()
    for exit_code, seconds in results:
        health = judge(check, health, probe(exit_code, seconds), STARTED_NS)
    codes = [code for code, _ in results]
    last_success = max((index for index, code in enumerate(codes) if code == 0), default=-1)
    counted = [one for one in results[last_success + 1 :] if last_success >= 0 or one[1] >= 10]
    assert health.failing_streak == len(counted)
    if len(counted) >= retries:
        assert health.status == "unhealthy"
    else:
        assert health.status == ("healthy" if last_success >= 0 else "starting")
    assert [one.exit_code for one in health.log] == codes[-5:]


def test_the_next_probe_is_due_after_the_interval_and_in_the_start_period_after_the_start_interval():
    assert delay_ns(CHECK, Health(), 0) == 2 * NS
    assert delay_ns(CHECK, Health(), 10 * NS) == 30 * NS
    assert delay_ns(CHECK, Health(status="healthy"), 0) == 30 * NS
    assert delay_ns(CHECK, Health(status="unhealthy"), 0) == 30 * NS


def test_containers_that_are_found_at_the_same_moment_are_probed_all_over_the_interval():
    ids = [hashlib.sha256(bytes([number])).hexdigest() for number in range(200)]
    waits = [spread_ns(30 * NS, container_id) for container_id in ids]
    assert 0 <= min(waits) < max(waits) < 30 * NS
    in_each_second = Counter(wait // NS for wait in waits)
    assert len(in_each_second) >= 25
    assert max(in_each_second.values()) <= 20


def test_a_start_begins_anew_and_keeps_the_probes_that_were():
    health = Health(status="unhealthy", failing_streak=7, log=[probe(1)])
    assert restarted(health) == Health(status="starting", failing_streak=0, log=[probe(1)])
    assert restarted(None) == Health()


def test_what_is_shown_of_a_probe_is_dockers():
    assert output_text(b"a\xff\n", is_cut=False) == "a\ufffd\n"
    assert output_text(b"abc", is_cut=True) == "abc..."
    assert timeout_text(CHECK, "") == "Health check exceeded timeout (500ms)"
    assert timeout_text(CHECK, "half") == "Health check exceeded timeout (500ms): half"


def test_what_a_check_leaves_open_has_dockers_defaults():
    check = check_of(ContainerSpec(healthcheck=HealthConfig(test=["CMD", "curl", "x"])))
    assert check == Check(
        argv=("curl", "x"),
        interval_ns=30 * NS,
        timeout_ns=30 * NS,
        start_period_ns=0,
        start_interval_ns=5 * NS,
        retries=3,
    )


@pytest.mark.parametrize(
    ("test", "shell", "argv"),
    [
        (["CMD-SHELL", "a && b"], [], ("/bin/sh", "-c", "a && b")),
        (["CMD-SHELL", "a && b"], ["/bin/bash", "-ec"], ("/bin/bash", "-ec", "a && b")),
        (["CMD", "a", "b"], ["/bin/bash", "-ec"], ("a", "b")),
    ],
)
def test_a_command_is_run_as_it_is_or_by_the_containers_shell(test, shell, argv):
    check = check_of(ContainerSpec(healthcheck=HealthConfig(test=test), shell=shell))
    assert check is not None
    assert check.argv == argv


@pytest.mark.parametrize("test", [[], ["NONE"], ["NONE", "x"], ["CMD"], ["CMD-SHELL"], ["HTTP", "/"], [""]])
def test_without_a_command_there_is_no_check(test):
    assert check_of(ContainerSpec(healthcheck=HealthConfig(test=test))) is None
    assert check_of(ContainerSpec()) is None


def test_each_field_of_a_check_that_is_not_asked_for_is_the_images():
    image = HealthConfig(test=["CMD", "image"], interval=1 * NS, timeout=2 * NS, start_period=3 * NS, retries=4)

    def merged(asked, inherited=image):
        request = ContainerSpec(cmd=["x"], healthcheck=asked)
        return merge_image(request, ContainerSpec(healthcheck=inherited)).healthcheck

    assert merged(None) == image
    assert merged(HealthConfig(interval=9 * NS, start_interval=8 * NS)) == HealthConfig(
        test=["CMD", "image"], interval=9 * NS, timeout=2 * NS, start_period=3 * NS, start_interval=8 * NS, retries=4
    )
    none = merged(HealthConfig(test=["NONE"]))
    assert none is not None
    assert check_of(ContainerSpec(healthcheck=none)) is None
    assert merged(HealthConfig(retries=2), None) == HealthConfig(retries=2)
    assert merged(None, None) is None


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (HealthConfig(retries=-1), "Retries in Healthcheck cannot be negative"),
        (HealthConfig(interval=999_999), "Interval in Healthcheck cannot be less than 1ms"),
        (HealthConfig(timeout=-1), "Timeout in Healthcheck cannot be less than 1ms"),
        (HealthConfig(start_interval=1), "StartInterval in Healthcheck cannot be less than 1ms"),
        (HealthConfig(test=["http", "x"]), "Test in Healthcheck: unknown type 'http' (accepted: NONE, CMD, CMD-SHELL)"),
        (HealthConfig(test=["CMD"]), "Test in Healthcheck: CMD without a command"),
        (HealthConfig(test=["CMD-SHELL", ""]), "Test in Healthcheck: CMD-SHELL without a command"),
        (HealthConfig(test=["CMD", "a\0b"]), "Test in Healthcheck: a NUL byte in the command"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(check, words):
    with pytest.raises(InvalidParameter) as refusal:
        check_request(ContainerSpec(healthcheck=check), HostConfig())
    assert str(refusal.value) == words
