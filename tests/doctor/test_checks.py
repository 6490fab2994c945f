"""The doctor's checks of kernel, disk and daemon, on hosts made for it and on this one."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.doctor import daemon, kernel


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def sysctls(tmp_path: Path) -> Path:
    for name, value in {
        "fs/file-nr": "900\t0\t1000",
        "net/core/rmem_default": "4096",
        "net/core/rmem_max": "4096",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    return tmp_path


@pytest.mark.usefixtures("few_descriptors")
def test_few_descriptors_are_told_with_what_they_are_enough_for() -> None:
    found = kernel.descriptors()
    assert (found.status, found.found) == ("warn", "1024 for each process, enough for about 36 containers")


def test_a_system_near_its_limit_of_open_files_fails(sysctls: Path) -> None:
    assert kernel.files(sysctls).status == "fail"
    (sysctls / "fs/file-nr").write_text("100\t0\t1000\n")
    assert kernel.files(sysctls).status == "ok"


def test_small_buffers_for_datagrams_matter_to_who_logs_by_udp(sysctls: Path) -> None:
    assert [kernel.datagrams(users, sysctls).status for users in (0, 2)] == ["ok", "warn"]


def test_a_host_that_forbids_wide_pipes_is_told_which_sysctls_to_raise() -> None:
    """In a process of its own, without the capability that goes past the sysctls."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setresuid(65534, 65534, 65534)
            held = [os.pipe() for _ in range(1100)]  # 16,384 pages, and more: this user's share (pipe-user-pages-soft)
            os.write(writing, kernel.pipes().status.encode() + str(len(held)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        assert said.read() == "warn1100"
    assert kernel.pipes().status == "ok"


def test_free_space_below_the_reserve_fails_and_near_it_warns(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    free, total = stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
    assert daemon.space(tmp_path, total + 1).status == "fail"
    assert daemon.space(tmp_path, free * 3 // 4).status == "warn"
    assert daemon.space(tmp_path, 0).status == "ok"


def test_a_default_runtime_that_is_not_there_fails_another_one_warns() -> None:
    both = {"runc": "/bin/sh", "gone": "/nowhere/gone"}
    assert daemon.runtimes("runc", {"runc": "/bin/sh"}, {"runc": "1.1"}).found == "runc 1.1; default: runc"
    assert daemon.runtimes("runc", both, {}).status == "warn"
    assert daemon.runtimes("gone", both, {}).status == "fail"


def test_a_seccomp_profile_that_is_not_there_fails_with_its_path() -> None:
    found = daemon.seccomp("/nowhere/profile.json")
    assert found.status == "fail"
    assert "/nowhere/profile.json" in found.found
    assert [daemon.seccomp(setting).status for setting in ("", "builtin", "unconfined")] == ["ok", "ok", "warn"]


def test_many_destinations_that_are_down_are_named_up_to_ten() -> None:
    one = {"container": "web", "name": "audit", "driver": "fluentd", "state": "retrying", "error": "refused"}
    assert daemon.destinations([one]).found == "web audit (fluentd) retrying: refused"
    assert daemon.destinations([one] * 12).found.endswith("; and 2 more")
    assert daemon.destinations([]).status == "ok"
