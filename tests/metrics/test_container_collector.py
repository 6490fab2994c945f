"""The collector of containers, with cgroups of this host and with runs that have ended."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from logd.config import DaemonConfig
from logd.container import Container, Record, State
from logd.metrics.containers import KEEP_S, ContainerCollector
from logd.metrics.exposition import render
from logd.metrics.families import Page
from logd.metrics.groups import MAX_GROUPS, Machine
from logd.metrics.subjects import Subjects
from logd.runtime import cgroup
from logd.sampling.registry import Samples
from logd.spec import ContainerSpec, HostConfig
from logd.usage import Counters, Sample

PARENT = "/logd-collector-test"
NS = 10**9


class Containers:
    """What the engine is to the collector."""

    def __init__(self):
        self.samples = Samples()
        self.here, self.gone = [], []

    def containers(self):
        return self.here

    def departed(self):
        return self.gone

    def use(self, container):
        sample = self.samples.read(container.id)
        if sample is None:
            return container.last_sample, container.usage
        return sample, container.usage + sample.counters


@pytest.fixture
def source():
    made = Containers()
    yield made
    made.samples.close()


@pytest.fixture
def collector(source, tmp_path):
    subjects = Subjects(DaemonConfig(), lambda container: f"{PARENT}/{container.id}")
    config = DaemonConfig(data_root=tmp_path, cgroup_parent=PARENT)
    return ContainerCollector(source, subjects, config, Machine(2, 1 << 30), lambda _: 12345)


def make_container(root, name, **changes):
    fields = {
        "id": name.encode().hex().ljust(64, "0"),
        "name": name,
        "created_ns": time.time_ns(),
        "image_id": "sha256:" + "1" * 64,
        "image_ref": "busybox",
        "os": "linux",
        "path": "sh",
        "args": [],
        "config": ContainerSpec(),
        "host_config": HostConfig(),
        "mounts": [],
        "run": 1,
        "restart_count": 0,
        "state": State(running=True, started_ns=time.time_ns()),
    }
    record = Record(**{**fields, **changes})
    return Container(record, root / record.id, root / "exec" / record.id)


@pytest.fixture
def run_in_cgroup():
    """Return what runs a process in a cgroup of its own in each tree, below PARENT, by the container's id."""
    hierarchy = cgroup.detect()
    folders, processes = [], []

    def run(identifier):
        process = subprocess.Popen(["sleep", "1000"])
        processes.append(process)
        for folder in set(cgroup.container_folders(hierarchy, f"{PARENT}/{identifier}").values()):
            folder.mkdir(parents=True)
            folders.append(folder)
            with contextlib.suppress(OSError):  # a tree that has to be set up first, such as cpuset's
                (folder / "cgroup.procs").write_text(str(process.pid))
        return process.pid

    yield run
    for process in processes:
        process.kill()
        process.wait()
    for folder in [*folders, *{folder.parent for folder in folders}]:
        Path(folder).rmdir()


async def series(collector):
    await collector.gather()
    page = Page(collector.families)
    collector.collect(page)
    found = {}
    for family in parse_text(render(page, "text")):
        for sample in family.samples:
            found.setdefault(sample.labels.get("name", sample.labels.get("id")), {})[sample.name] = sample.value
    return found


async def test_a_scrape_of_running_containers_opens_no_file(source, collector, tmp_path, run_in_cgroup):
    for number in range(3):
        container = make_container(tmp_path, f"running-{number}")
        source.here.append(container)
        source.samples.begin(container.id, f"{PARENT}/{container.id}", run_in_cgroup(container.id))
    await series(collector)
    opened = []
    watching = True
    sys.addaudithook(lambda event, arguments: opened.append(arguments) if watching and event == "open" else None)
    try:
        with open(os.devnull, "rb"):
            pass
        found = await series(collector)
    finally:
        watching = False
    assert [arguments[0] for arguments in opened] == [os.devnull]  # which shows that an open would be seen
    assert len([name for name in found if name and name.startswith("running-")]) == 3
    assert found["running-2"]["container_memory_usage_bytes"] >= 0
    assert found["running-2"]["container_threads"] == 1
    assert found["running-2"]["container_fs_usage_bytes"] == 12345
    assert found[PARENT]["container_threads"] == 3


async def test_counters_are_of_all_runs(source, collector, tmp_path, run_in_cgroup):
    container = make_container(tmp_path, "again", usage=Counters(cpu_ns=5 * NS, page_faults=7), run=2)
    source.here.append(container)
    source.samples.begin(container.id, f"{PARENT}/{container.id}", run_in_cgroup(container.id))
    found = (await series(collector))["again"]
    assert 5 <= found["container_cpu_usage_seconds_total"] < 6
    assert found["container_memory_failures_total"] >= 0


async def test_a_run_that_can_not_be_read_now_is_left_out_so_that_no_counter_goes_back(source, collector, tmp_path):
    container = make_container(tmp_path, "unread", usage=Counters(cpu_ns=5 * NS), run=2)
    source.here.append(container)
    found = (await series(collector))["unread"]
    assert "container_cpu_usage_seconds_total" not in found
    assert found["logd_container_restarts_total"] == 0
    assert found["container_last_seen"] > 0


@pytest.mark.parametrize(("ago_s", "usage_run", "shown"), [(1, 1, True), (KEEP_S + 5, 1, False), (1, 0, False)])
async def test_the_counters_of_an_ended_run_stay_for_a_while_once_they_are_whole(
    source, collector, tmp_path, ago_s, usage_run, shown
):
    state = State(started_ns=1, finished_ns=time.time_ns() - ago_s * NS, exit_code=3)
    usage = Counters(cpu_ns=NS, oom_kills=2)
    container = make_container(tmp_path, "ended", state=state, usage=usage, usage_run=usage_run)
    container.last_sample = Sample(time_ns=1, counters=usage, memory_usage=4096)
    source.here.append(container)
    found = (await series(collector))["ended"]
    assert ("container_cpu_usage_seconds_total" in found) is shown
    assert "container_memory_usage_bytes" not in found
    assert found["container_oom_events_total"] == 2
    assert found["logd_container_exit_code"] == 3


async def test_a_container_that_waits_for_its_restart_is_none_that_runs(source, collector, tmp_path):
    state = State(running=True, restarting=True, started_ns=1, finished_ns=time.time_ns(), exit_code=1)
    container = make_container(tmp_path, "waiting", state=state, usage=Counters(cpu_ns=NS), usage_run=1)
    source.here.append(container)
    found = (await series(collector))["waiting"]
    assert "container_last_seen" not in found
    assert found["container_cpu_usage_seconds_total"] == 1
    assert found["logd_container_exit_code"] == 1


async def test_parents_are_followed_up_to_a_number(source, tmp_path):
    subjects = Subjects(DaemonConfig(), lambda container: f"/p{container.name}/q/{container.id}")
    config = DaemonConfig(data_root=tmp_path, cgroup_parent=PARENT)
    collector = ContainerCollector(source, subjects, config, Machine(2, 1 << 30), lambda _: None)
    source.here = [make_container(tmp_path, str(number)) for number in range(2 * MAX_GROUPS)]
    await series(collector)
    assert len(collector._groups._subjects) <= MAX_GROUPS
    found = await series(collector)
    assert {"/", PARENT} <= found.keys()


@pytest.mark.parametrize("parent", ["/", "//", "/a/", "a", "/logd//x/"])
async def test_any_parent_that_can_be_set_has_series(source, tmp_path, parent):
    subjects = Subjects(DaemonConfig(), lambda container: f"/x/{container.id}")
    config = DaemonConfig(data_root=tmp_path, cgroup_parent=parent)
    collector = ContainerCollector(source, subjects, config, Machine(2, 1 << 30), lambda _: None)
    assert "container_memory_usage_bytes" in (await series(collector))["/"]


async def test_what_is_kept_of_a_container_goes_with_it(source, collector, tmp_path):
    source.here = [make_container(tmp_path, "one"), make_container(tmp_path, "two")]
    await series(collector)
    source.here = source.here[:1]
    await series(collector)
    assert len(collector._kept) == 1
    assert len(collector._subjects._known) == 1
