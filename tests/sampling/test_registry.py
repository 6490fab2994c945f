"""The registry of what runs: real cgroups and network namespaces of this host, and threads that look at once."""

import os
import resource
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from logd.runtime.cgroup import container_folders, detect
from logd.sampling.network import MAX_INTERFACES
from logd.sampling.registry import Samples


@pytest.fixture
def samples():
    made = Samples()
    yield made
    made.close()


@pytest.fixture
def isolated():
    """Return what starts a shell in a network namespace of its own."""
    processes = []

    def start(script):
        command = ["unshare", "--net", "sh", "-c", script]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_cgroup_is_read_until_it_is_gone(samples, own_cgroup):
    samples.begin("one", own_cgroup.path, 0)
    first, second = samples.read("one"), samples.read("one")
    assert first.time_ns < second.time_ns
    assert (first.pids, first.counters.interfaces) == (0, {})
    own_cgroup.remove()
    assert samples.read("one") is None
    assert samples.finish("one") is None


def test_what_is_not_known_has_no_sample(samples, own_cgroup):
    assert samples.read("one") is samples.finish("one") is samples.group("/no/such") is None
    assert samples.raw("one", "memory.stat") == b""
    samples.begin("one", "/no/such", 0)
    assert "one" not in samples
    samples.begin("two", own_cgroup.path, 0)
    assert "two" in samples


def test_no_descriptor_is_opened_by_looks_nor_left_at_the_end(samples, own_cgroup, descriptors):
    before = descriptors()
    samples.begin("one", own_cgroup.path, 0)
    samples.raw("one", "memory.stat")
    kept = descriptors()
    assert before < kept <= before + 18
    for _ in range(3):
        samples.read("one")
        samples.raw("one", "memory.stat")
    assert descriptors() == kept
    samples.begin("one", own_cgroup.path, 0)  # again
    assert descriptors() == kept
    samples.finish("one")
    assert descriptors() == before


def test_a_cgroup_counts_what_its_processes_do(samples, own_cgroup):
    samples.begin("one", own_cgroup.path, 0)
    before = samples.read("one").counters
    joins = " && ".join(f"echo $$ > {folder}/cgroup.procs" for folder in own_cgroup.folders)
    script = f"{joins} && i=0 && while [ $i -lt 50000 ]; do i=$((i+1)); done"
    used = _cpu_of_children()
    subprocess.run(["sh", "-c", script], check=True)
    used = _cpu_of_children() - used
    assert 0 < samples.read("one").counters.cpu_ns - before.cpu_ns <= used * 1e9 + 50_000_000


def _cpu_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_raw_files_are_those_of_the_cgroup(samples, own_cgroup):
    samples.begin("one", own_cgroup.path, 0)
    folders = container_folders(detect(), own_cgroup.path)
    limit = "memory.max" if samples.version("one") == 2 else "memory.limit_in_bytes"
    assert samples.raw("one", limit) == (folders["memory"] / limit).read_bytes()
    assert samples.raw("one", "no.such") == b""


def test_interfaces_are_those_of_the_namespace_and_outlive_its_processes(samples, own_cgroup, isolated):
    process = isolated("ip link add name probe0 type veth peer name probe1 && echo ready && exec cat")
    assert process.stdout.readline() == b"ready\n"
    samples.begin("one", own_cgroup.path, process.pid)
    assert "probe0" in samples.read("one").counters.interfaces
    assert b"probe0" in samples.raw("one", "net/dev")
    process.kill()
    process.wait()
    assert "probe0" in samples.read("one").counters.interfaces
    assert "probe0" in samples.finish("one").counters.interfaces


def test_a_namespace_with_very_many_interfaces_shows_its_oldest(samples, own_cgroup, isolated):
    links = "for i in $(seq 40); do echo link add name a$i type veth peer name b$i; done | ip -batch -"
    process = isolated(f"{links} && echo ready && exec cat")
    assert process.stdout.readline() == b"ready\n"
    samples.begin("one", own_cgroup.path, process.pid)
    found = samples.read("one").counters.interfaces
    assert len(found) == MAX_INTERFACES < 80
    assert {"a1", "b1"} <= found.keys()


def test_the_hosts_interfaces_are_not_those_of_a_process_that_uses_them(samples, own_cgroup):
    samples.begin("one", own_cgroup.path, os.getpid())
    assert samples.read("one").counters.interfaces == {}
    assert samples.raw("one", "net/dev") == b""


def test_the_root_is_the_machine(samples):
    sample = samples.group("/")
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) * 1024
    assert sample.memory_limit == total
    assert 0 < sample.memory_usage < total
    assert sample.pids > 1
    assert sample.counters.cpu_ns > 0
    assert "lo" not in sample.counters.interfaces
    assert samples.group("/").counters.cpu_ns >= sample.counters.cpu_ns


def test_a_parent_that_was_removed_is_found_again_when_it_is_back(samples, own_cgroup, descriptors):
    assert samples.group(own_cgroup.path).pids == 0
    own_cgroup.remove()
    assert samples.group(own_cgroup.path) is None
    for folder in own_cgroup.folders:
        folder.mkdir()
    before = descriptors()
    assert samples.group(own_cgroup.path).pids == 0
    assert samples.group(own_cgroup.path).pids == 0
    assert descriptors() > before
    kept = descriptors()
    samples.group(own_cgroup.path)
    assert descriptors() == kept


def test_the_machines_disks_are_whole_and_used(samples):
    devices = samples.group("/").counters.devices
    with open("/proc/diskstats", encoding="ascii") as file:
        lines = [line.split() for line in file]
    names = {f"{line[0]}:{line[1]}": line[2] for line in lines if int(line[3]) + int(line[7])}
    whole = {number for number, name in names.items() if os.path.exists(f"/sys/block/{name}")}
    assert devices.keys() == whole


def test_a_path_out_of_the_trees_is_no_group(samples):
    assert samples.group("/..") is samples.group("/../memory") is None


def test_without_descriptors_a_run_still_begins_and_is_read_later(samples, own_cgroup, descriptors):
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        samples.begin("one", own_cgroup.path, os.getpid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() == before
    assert samples.read("one").memory_usage >= 0
    assert samples.raw("one", "memory.stat").startswith((b"cache", b"anon"))
    assert descriptors() > before


def test_a_cgroup_that_was_never_opened_and_is_gone_has_no_sample(samples, own_cgroup):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        samples.begin("one", own_cgroup.path, os.getpid())
        assert samples.group(own_cgroup.path) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    own_cgroup.remove()
    assert samples.read("one") is samples.finish("one") is samples.group(own_cgroup.path) is None


def test_looks_from_threads_meet_no_closed_descriptor(samples, own_cgroup, tmp_path):
    stop = threading.Event()

    def look():
        count = 0
        while not stop.is_set():
            sample = samples.read("one")
            raw = samples.raw("one", "pids.current")
            assert sample is None or (sample.pids, sample.cpu_period_us) in {(0, 0), (0, 100_000)}
            assert raw in {b"", b"0\n"}
            samples.group(own_cgroup.path)
            count += 1
        return count

    with ThreadPoolExecutor(3) as threads:
        looking = [threads.submit(look) for _ in range(3)]
        try:
            for _ in range(100):
                samples.begin("one", own_cgroup.path, 0)
                other = (tmp_path / "other").open("wb")  # takes a number that was just closed
                samples.finish("one")
                other.close()
        finally:
            stop.set()
        assert all(one.result() > 0 for one in looking)


def test_all_is_closed_at_the_end(own_cgroup, descriptors):
    before = descriptors()
    samples = Samples()
    samples.begin("one", own_cgroup.path, 0)
    samples.group("/")
    samples.close()
    assert descriptors() == before
    assert samples.read("one") is None


@pytest.mark.parametrize(("kind", "version"), [("v1", 1), ("hybrid", 1), ("v2", 2)])
def test_the_version_is_that_of_memory_and_cpu(trees, kind, version):
    assert Samples(trees / kind, trees / "host").version("any") == version


def test_a_host_without_cgroups_has_no_samples(tmp_path, trees):
    samples = Samples(tmp_path, trees / "host")
    samples.begin("one", "/logd/one", os.getpid())
    assert samples.read("one") is None
    assert samples.group("/") is None


def test_a_recorded_tree_is_read_through_the_registry(trees, tmp_path):
    shutil.copytree(trees / "v2", tmp_path / "v2")
    samples = Samples(tmp_path / "v2", trees / "host")
    samples.begin("one", f"/logd/{'ab' * 32}", 0)
    (tmp_path / "v2/logd" / ("ab" * 32) / "pids.current").write_text("17\n")
    assert samples.read("one").pids == 17
    samples.close()
