"""journald's rate limit, as the doctor reads it from the host's files."""

import os
from pathlib import Path

import pytest

from logd.doctor.journald import parse_time_span, rate_limit


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with journald, where this process is in the unit logd.service."""
    for folder in ("run/systemd/journal", "run/systemd/units", "etc/systemd/journald.conf.d", "proc/self"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run/systemd/journal/socket").touch()
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/logd.service\n")
    return tmp_path


def configure(host: Path, text: str, file: str = "etc/systemd/journald.conf") -> None:
    (host / file).parent.mkdir(parents=True, exist_ok=True)
    (host / file).write_text(text)


def export(host: Path, setting: str, value: str) -> None:
    os.symlink(value, host / "run/systemd/units" / f"log-rate-limit-{setting}:logd.service")


def test_journalds_own_limit_is_a_failure_for_who_logs_there_only(host: Path) -> None:
    found = rate_limit(3, host)
    assert found.status == "fail"
    assert "10000 entries in 30 s for logd.service" in found.found
    assert "LogRateLimitIntervalSec=1us" in found.advice
    assert rate_limit(0, host).status == "ok"


def test_a_host_without_journald_has_no_limit(tmp_path: Path) -> None:
    assert rate_limit(3, tmp_path).status == "ok"


def test_a_limit_that_is_switched_off_in_journald_conf_is_in_order(host: Path) -> None:
    configure(host, "[Journal]\nRateLimitIntervalSec=0\n")
    assert rate_limit(3, host).status == "ok"


def test_the_last_drop_in_counts_and_the_nearest_of_one_name(host: Path) -> None:
    configure(host, "[Journal]\nRateLimitBurst=1\n")
    configure(host, "[Journal]\nRateLimitBurst=3\n", "usr/lib/systemd/journald.conf.d/50-x.conf")
    configure(host, "[Journal]\nRateLimitBurst=4\n", "etc/systemd/journald.conf.d/50-x.conf")
    configure(host, "[Journal]\nRateLimitInterval=1min 30s\n", "run/systemd/journald.conf.d/10-y.conf")
    assert "4 entries in 90 s" in rate_limit(1, host).found


def test_what_journald_would_not_understand_or_is_elsewhere_has_no_effect(host: Path) -> None:
    configure(
        host, "[Other]\nRateLimitBurst=0\n[Journal]\n#RateLimitBurst=0\nRateLimitIntervalSec=soon\nStorage=auto\n"
    )
    assert "10000 entries in 30 s" in rate_limit(1, host).found


@pytest.mark.parametrize(("setting", "value"), [("interval", "1"), ("burst", "4000000000")])
def test_the_units_own_limit_stands_above_it(host: Path, setting: str, value: str) -> None:
    configure(host, "[Journal]\nRateLimitIntervalSec=1s\nRateLimitBurst=10\n")
    export(host, setting, value)
    assert rate_limit(1, host).status == "ok"


def test_a_unit_may_be_limited_more_than_the_others(host: Path) -> None:
    configure(host, "[Journal]\nRateLimitIntervalSec=0\n")
    export(host, "interval", "2000000")
    assert "10000 entries in 2 s" in rate_limit(1, host).found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("30", 30), ("1us", 1e-6), ("1min 30s", 90), ("2h", 7200), ("infinity", float("inf"))],
)
def test_a_time_span_is_read_as_systemd_does(text: str, seconds: float) -> None:
    assert parse_time_span(text) == seconds
