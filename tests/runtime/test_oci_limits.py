"""Limits: refused in Docker's words, and found in the cgroup files of a running container."""

import os
import subprocess

import pytest

from logd.errors import InvalidParameter
from logd.runtime import capabilities, cgroup, limits
from logd.spec import HostConfig, ThrottleDevice, Ulimit, WeightDevice

MB = 1 << 20
ALL = dict.fromkeys(("memory", "swap", "cpu", "cpuset", "pids", "blkio_weight", "blkio_weight_device"), True)
V2 = limits.Support(**ALL, v2=True)
NOTHING = limits.Support(**dict.fromkeys(ALL, False), v2=False)

needs_v1 = pytest.mark.skipif(cgroup.detect().kind == "v2", reason="reads cgroup v1 files")
needs_v2 = pytest.mark.skipif(cgroup.detect().kind != "v2", reason="reads cgroup v2 files")


@needs_v1
def test_limits_are_in_the_cgroup_files_v1(containers):
    host = HostConfig(
        memory=32 * MB, memory_swap=64 * MB, memory_reservation=16 * MB, nano_cpus=500_000_000, cpu_shares=512,
        cpuset_cpus="0", pids_limit=25, blkio_weight=300,
    )  # fmt: skip
    script = """cd /sys/fs/cgroup && cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes \
        memory/memory.soft_limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares \
        cpuset/cpuset.cpus pids/pids.max; cat blkio/blkio.weight blkio/blkio.bfq.weight 2>/dev/null; true"""
    found = containers.sh(script, host=host).split()
    assert found[:8] == [str(32 * MB), str(64 * MB), str(16 * MB), "50000", "100000", "512", "0", "25"]
    assert "300" in found[8:]


@needs_v2
def test_limits_are_in_the_cgroup_files_v2(containers):
    host = HostConfig(memory=32 * MB, memory_swap=64 * MB, nano_cpus=500_000_000, cpuset_cpus="0", pids_limit=25)
    script = "cd /sys/fs/cgroup && cat memory.max memory.swap.max cpu.max cpuset.cpus pids.max"
    assert containers.sh(script, host=host).split() == [str(32 * MB), str(32 * MB), "50000", "100000", "0", "25"]


def test_a_quota_and_a_period_are_taken_as_they_are(containers):
    host = HostConfig(cpu_period=50_000, cpu_quota=25_000)
    script = "cd /sys/fs/cgroup; cat cpu.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us 2>/dev/null; true"
    assert containers.sh(script, host=host).split() == ["25000", "50000"]


def test_a_fork_beyond_the_pids_limit_fails(containers):
    done = containers.run(
        "/bin/sh", "-c", "for i in 1 2 3 4 5 6; do sleep 1 & done; wait", host=HostConfig(pids_limit=4)
    )
    assert b"fork" in done.stderr


def test_the_containers_cgroup_is_found_by_its_path_and_counts_oom_kills(containers):
    request = containers.bundle(
        "/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 60", host=HostConfig(memory=8 * MB)
    )
    path = f"/logd-oci-test/{request.id}"
    folders = cgroup.container_folders(cgroup.detect(), path)
    process = subprocess.Popen(
        [*containers.runtime, "run", "--bundle", str(request.exec_dir), request.id],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert b"Killed" in process.stderr.readline()
        assert cgroup.oom_kills(folders) >= 1
        pids = cgroup.processes(folders["pids"])
        assert pids
        with open(f"/proc/{pids[0]}/cgroup", encoding="ascii") as file:
            membership = cgroup.parse_membership(file.read())
        assert cgroup.folders(cgroup.detect(), membership)["memory"] == folders["memory"]
    finally:
        subprocess.run([*containers.runtime, "kill", request.id, "KILL"], check=False)
        process.wait(10)
        process.stderr.close()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (HostConfig(memory=5 * MB), "Minimum memory limit allowed is 6MB"),
        (HostConfig(memory=-1), "Minimum memory limit allowed is 6MB"),
        (HostConfig(memory=8 * MB, memory_swap=7 * MB), "Minimum memoryswap limit should be larger than memory limit"),
        (HostConfig(memory_swap=7 * MB), "You should always set the Memory limit when using Memoryswap limit"),
        (HostConfig(memory_reservation=1), "Minimum memory reservation allowed is 6MB"),
        (HostConfig(memory=7 * MB, memory_reservation=8 * MB), "can not be less than memory reservation limit"),
        (HostConfig(memory_swappiness=101), "valid memory swappiness range is 0-100"),
        (HostConfig(kernel_memory=1), "kernel memory"),
        (HostConfig(nano_cpus=10**12), "range of CPUs is from 0.01 to"),
        (HostConfig(nano_cpus=10**6), "range of CPUs is from 0.01 to"),
        (HostConfig(nano_cpus=-1), "range of CPUs is from 0.01 to"),
        (HostConfig(nano_cpus=1, cpu_quota=1), "Nano CPUs and CPU Quota cannot both be set"),
        (HostConfig(nano_cpus=1, cpu_period=1), "Nano CPUs and CPU Period cannot both be set"),
        (HostConfig(cpu_period=999), "CPU cfs period can not be less than 1ms"),
        (HostConfig(cpu_quota=999), "CPU cfs quota can not be less than 1ms"),
        (HostConfig(cpu_shares=-1), "invalid CPU shares"),
        (HostConfig(cpuset_cpus="x"), "Invalid value x for cpuset cpus"),
        (HostConfig(cpuset_cpus="900"), "Requested CPUs are not available - requested 900, available: "),
        (HostConfig(cpuset_mems="77"), "Requested memory nodes are not available"),
        (HostConfig(blkio_weight=5), "Range of blkio weight is from 10 to 1000"),
        (HostConfig(blkio_device_read_bps=[ThrottleDevice(path="/dev/null", rate=1)]), "is not a block device"),
        (HostConfig(shm_size=-1), "SHM size can not be less than 0"),
        (HostConfig(oom_score_adj=1001), "range for oom score adj is"),
        (HostConfig(cpu_realtime_runtime=1), "not supported"),
        (HostConfig(io_maximum_iops=1), "Linux does not support"),
        (HostConfig(ulimits=[Ulimit(name="nope")]), "invalid ulimit type: nope"),
        (HostConfig(ulimits=[Ulimit(name="nofile", soft=9, hard=8)]), "soft limit must be less than or equal to hard"),
    ],
)
def test_a_limit_that_can_not_be_is_refused_in_dockers_words(host, words):
    with pytest.raises(InvalidParameter, match=words):
        limits.validate_limits(host, limits.host_support())


@pytest.mark.skipif("CAP_SYS_RESOURCE" in capabilities.held(), reason="this process may raise limits")
def test_what_needs_a_capability_that_the_daemon_lacks_is_refused_at_create():
    with pytest.raises(InvalidParameter, match="CAP_SYS_RESOURCE"):
        limits.validate_limits(HostConfig(ulimits=[Ulimit(name="nofile", soft=1, hard=1 << 40)]), V2)
    with pytest.raises(InvalidParameter, match="CAP_SYS_RESOURCE"):
        limits.validate_limits(HostConfig(oom_score_adj=-1), V2)


def test_what_the_host_can_not_limit_is_warned_of_and_left_out():
    host = HostConfig(
        memory=8 * MB, pids_limit=5, nano_cpus=10**9, cpuset_cpus="0", blkio_weight=10, oom_kill_disable=True
    )
    assert len(limits.validate_limits(host, NOTHING)) == 6
    assert limits.resources(host, NOTHING) == {}


def test_a_weight_for_a_device_is_left_out_where_only_bfq_could_take_it(tmp_path, monkeypatch):
    (tmp_path / "blkio/logd").mkdir(parents=True)
    for name in ("cgroup.procs", "logd/blkio.bfq.weight", "logd/blkio.bfq.weight_device"):
        (tmp_path / "blkio" / name).touch()
    monkeypatch.setattr(limits, "_device_number", lambda _: {"major": 8, "minor": 0})
    host = HostConfig(blkio_weight=300, blkio_weight_device=[WeightDevice(path="/dev/sda", weight=200)])
    support = limits.host_support(tmp_path)
    assert [text.split(" Block")[1][:18] for text in limits.validate_limits(host, support)] == [" I/O weight_device"]
    assert limits.resources(host, support) == {"blockIO": {"weight": 300}}


def test_on_cgroup_v2_there_is_no_swappiness_and_no_way_to_switch_the_killer_off():
    host = HostConfig(memory=8 * MB, memory_swappiness=5, oom_kill_disable=True)
    assert len(limits.validate_limits(host, V2)) == 2
    assert limits.resources(host, V2) == {"memory": {"limit": 8 * MB, "swap": 16 * MB}}


def test_the_values_that_the_cli_always_sends_set_no_limit():
    assert limits.resources(HostConfig(pids_limit=0, memory_swappiness=-1, oom_kill_disable=False), V2) == {}


def test_settling_shows_what_docker_shows():
    settled = limits.settle(HostConfig(memory=8 * MB, cpu_shares=1, pids_limit=-1, memory_swappiness=-1))
    assert (settled.memory_swap, settled.cpu_shares, settled.pids_limit) == (16 * MB, 2, None)
    assert (settled.shm_size, settled.ipc_mode, settled.memory_swappiness) == (64 * MB, "private", None)


def test_block_devices_are_named_by_number():
    device = next((path for path in ("/dev/vda", "/dev/sda", "/dev/loop0") if os.path.exists(path)), None)
    if device is None:
        pytest.skip("no block device here")
    number = os.stat(device).st_rdev
    section = limits.block_io(HostConfig(blkio_device_write_iops=[ThrottleDevice(path=device, rate=7)]))
    assert section == {"throttleWriteIOPSDevice": [{"major": os.major(number), "minor": os.minor(number), "rate": 7}]}


def test_default_ulimits_give_way_to_the_requests():
    host = HostConfig(ulimits=[Ulimit(name="nofile", soft=5, hard=6)])
    assert limits.rlimits(host, {"nofile": (1, 2), "core": (0, 0)}) == [
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6},
    ]
