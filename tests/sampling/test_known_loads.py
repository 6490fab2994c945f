"""Containers whose use is known, as a scraper sees it: through the real daemon, runtime, kernel and /metrics."""

import contextlib
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "metrics"))
from scraping import scrape, wait_until

MIB = 1 << 20
PAYLOAD = 1000
HEADERS = 14 + 20 + 8  # Ethernet, IPv4, UDP
DATAGRAMS = 1024
SEND = f"""
import socket
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range({DATAGRAMS}):
    sending.sendto(bytes({PAYLOAD}), ("198.51.100.2", 9))
"""


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Return a static program that makes loads."""
    target = tmp_path_factory.mktemp("load") / "load"
    subprocess.run(["gcc", "-O2", "-static", "-o", target, Path(__file__).parent / "load.c"], check=True)
    return target


@pytest.fixture
def run(shared_busybox, load):
    """Return what runs `load` in a container, and gives its name."""
    names = []

    def start(*arguments, options=(), ready=True):
        name = f"load-{secrets.token_hex(4)}"
        if "--rm" not in options:
            names.append(name)
        mount = ("-v", f"{load}:/load:ro")
        shared_busybox.docker("run", "-d", "--name", name, *mount, *options, "busybox", "/load", *arguments)
        if ready:
            said(shared_busybox, name, "ready")
        return name

    yield start
    if names:
        shared_busybox.docker("rm", "-f", "-v", *names)


@pytest.fixture
def seen(shared_busybox):
    """Return the page of a scrape of now."""
    return lambda: scrape(shared_busybox.socket)


def said(daemon, name, word):
    """Return the number behind a word that a load has printed."""

    def find():
        lines = [line.split() for line in daemon.docker("logs", name).stdout.splitlines()]
        return next(((int(number),) for first, number in lines if first == word), None)

    return wait_until(find)[0]


def go(daemon, name, word):
    """Let a load begin, and return what it has done."""
    daemon.docker("kill", "--signal", "USR1", name)
    return said(daemon, name, word)


def cpu_s(page, name):
    return page.value("container_cpu_usage_seconds_total", name=name, cpu="total")


@pytest.mark.parametrize("milliseconds", [2000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_the_cpu_time_of_a_load_is_what_it_says_itself(shared_busybox, run, seen, milliseconds):
    name = run("burn", str(milliseconds), options=("--cpus", "0.5"))
    before = seen()
    used_s = go(shared_busybox, name, "used") / 1e6
    after = seen()
    counted_s = cpu_s(after, name) - cpu_s(before, name)
    assert 0 < used_s < 0.5 * 1.1 * milliseconds / 1000 + 0.1
    assert counted_s == pytest.approx(used_s, rel=0.05)
    parts_s = sum(
        page.value(f"container_cpu_{part}_seconds_total", name=name) * sign
        for page, sign in ((after, 1), (before, -1))
        for part in ("user", "system")
    )
    assert parts_s == pytest.approx(counted_s, rel=0.05)
    assert after.value("container_cpu_cfs_periods_total", name=name) > 0
    assert after.value("container_spec_cpu_quota", name=name) == 50_000


def test_the_memory_of_a_load_is_what_it_touched(run, seen):
    name = run("touch", str(64 * MIB))
    page = seen()
    assert page.value("container_memory_rss", name=name) == pytest.approx(64 * MIB, rel=0.05)
    assert page.value("container_memory_working_set_bytes", name=name) == pytest.approx(64 * MIB, rel=0.05)
    assert page.value("container_memory_max_usage_bytes", name=name) >= 64 * MIB
    assert page.value("container_oom_events_total", name=name) == 0


def test_what_a_load_writes_past_the_cache_is_counted_for_its_device(shared_busybox, run, seen):
    device = disk_of(shared_busybox.data_root)
    if device is None:
        pytest.skip(f"{shared_busybox.data_root} is on no block device: nothing is written to one")
    number, path = device
    # A newer v1 kernel counts only on disks that were ever throttled.
    name = run("write", "/data/file", str(32 * MIB), options=("-v", "/data", "--device-write-bps", f"{path}:1gb"))
    which = {"name": name, "device": path}
    before = sum(one.value for one in seen().series("container_fs_writes_bytes_total", **which))
    assert go(shared_busybox, name, "wrote") == 32 * MIB
    page = seen()
    assert page.value("container_fs_writes_bytes_total", **which) - before == pytest.approx(32 * MIB, rel=0.05)
    assert page.value("container_fs_writes_total", **which) >= 32
    major, minor = number.split(":")
    written = page.value("container_blkio_device_usage_total", name=name, major=major, minor=minor, operation="Write")
    assert written == page.value("container_fs_writes_bytes_total", **which)


def disk_of(folder):
    """Return number and path of the whole disk that a folder is on; None where its file system has none."""
    device = os.stat(folder).st_dev
    entry = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not entry.exists():
        return None
    entry = entry.resolve()
    if (entry / "partition").exists():
        entry = entry.parent
    return (entry / "dev").read_text().strip(), f"/dev/{entry.name}"


@pytest.fixture
def sender():
    """Return the pid of a process in a network namespace of its own."""
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready && exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    yield process.pid
    process.communicate()


def ip(pid, *arguments):
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *arguments], check=True)


def connect(sender, receiver):
    """Make a link between two processes' namespaces; nothing has to be asked for before a datagram is sent."""
    ip(sender, "link", "add", "tx0", "type", "veth", "peer", "name", "rx0", "netns", str(receiver))
    ip(receiver, "link", "set", "rx0", "address", "02:00:00:00:00:02")
    for pid, link, number in ((receiver, "rx0", 2), (sender, "tx0", 1)):
        ip(pid, "address", "add", f"198.51.100.{number}/24", "dev", link)
        ip(pid, "link", "set", link, "up")
    ip(sender, "neigh", "replace", "198.51.100.2", "lladdr", "02:00:00:00:00:02", "dev", "tx0", "nud", "permanent")


def test_the_bytes_of_a_link_are_counted_and_stay_after_the_exit(shared_busybox, run, seen, sender):
    name = run("touch", "4096")
    pid = int(shared_busybox.docker("inspect", "--format", "{{.State.Pid}}", name).stdout)
    connect(sender, pid)
    which = {"name": name, "interface": "rx0"}
    before = seen().value("container_network_receive_bytes_total", **which)
    subprocess.run(["nsenter", f"--net=/proc/{sender}/ns/net", sys.executable, "-c", SEND], check=True)
    page = seen()
    received = page.value("container_network_receive_bytes_total", **which) - before
    assert received == pytest.approx(DATAGRAMS * (PAYLOAD + HEADERS), rel=0.05)
    assert page.value("container_network_receive_packets_total", **which) >= DATAGRAMS * 0.95
    shared_busybox.docker("kill", name)
    after = seen()
    assert after.value("container_network_receive_bytes_total", **which) - before >= received
    wait_until(lambda: not cgroup_of(shared_busybox, name).exists())
    assert seen().value("container_network_receive_bytes_total", **which) - before >= received


def cgroup_of(daemon, name):
    """Return the folder of a container's CPU accounting."""
    identifier = daemon.docker("inspect", "--format", "{{.Id}}", name).stdout.strip()
    return cpu_folder(f"/logd/{identifier}")


def cpu_folder(path):
    root = Path("/sys/fs/cgroup")
    return (root / "cpuacct" if (root / "cpuacct").exists() else root) / path.lstrip("/")


def test_a_process_that_is_killed_for_want_of_memory_is_counted(shared_busybox, run, seen):
    name = run("touch", str(64 * MIB), options=("--memory", "16m"), ready=False)
    wait_until(lambda: shared_busybox.docker("inspect", "--format", "{{.State.OOMKilled}}", name).stdout == "true\n")
    page = seen()
    assert page.value("container_oom_events_total", name=name) == 1
    assert page.value("container_memory_failcnt", name=name) > 0
    shared_busybox.docker("start", name)
    wait_until(lambda: seen().value("container_oom_events_total", name=name) == 2)


@pytest.fixture
def parent():
    """Return the path of a cgroup for containers of the test alone."""
    path = f"/logd-tests-{secrets.token_hex(4)}"
    yield path
    for folder in (Path("/sys/fs/cgroup") / path[1:], *Path("/sys/fs/cgroup").glob(f"*{path}")):
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()


@pytest.mark.parametrize("removal", [(), ("--rm",)], ids=["kept", "removed"])
def test_a_container_that_lived_50_ms_is_counted_to_the_millisecond(run, seen, parent, removal):
    name = run("brief", "50", options=("--cgroup-parent", parent, *removal), ready=False)
    wait_until(lambda: not any(entry.is_dir() for entry in cpu_folder(parent).iterdir()))
    page = seen()
    grown_s = cpu_usage_s(cpu_folder(parent))
    assert cpu_s(page, name) == pytest.approx(grown_s, abs=0.001)
    assert cpu_s(page, name) > 0.05
    assert page.value("container_cpu_usage_seconds_total", id=parent, cpu="total") == pytest.approx(grown_s, abs=0.001)


def cpu_usage_s(folder):
    if (folder / "cpuacct.usage").exists():
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    return int((folder / "cpu.stat").read_text().split()[1]) / 1e6
