"""cgroup folders on v1, v2 and hybrid hosts, read from recorded trees."""

from pathlib import Path

import pytest

from logd.runtime import cgroup, limits

TREES = Path(__file__).parents[1] / "data/cgroup"
ID = "ab" * 32


def tree(kind):
    return TREES / kind, cgroup.detect(TREES / kind)


def own_folders(kind):
    root, hierarchy = tree(kind)
    membership = cgroup.parse_membership((root / "proc-cgroup").read_text())
    return root, cgroup.folders(hierarchy, membership)


@pytest.mark.parametrize("kind", ["v1", "v2", "hybrid"])
def test_a_tree_is_recognised(kind):
    assert tree(kind)[1].kind == kind


def test_a_folder_without_cgroups_has_none(tmp_path):
    assert cgroup.detect(tmp_path) == cgroup.Hierarchy("none")
    assert cgroup.detect(tmp_path / "missing").kind == "none"


def test_v1_trees_of_several_controllers_are_found_under_each_name():
    root, found = own_folders("v1")
    assert found["cpu"] == found["cpuacct"] == root / "cpu,cpuacct/logd" / ID
    assert found["memory"] == root / "memory/logd" / ID
    assert cgroup.UNIFIED not in found


def test_hybrid_trees_have_the_unified_one_beside_the_controllers():
    root, found = own_folders("hybrid")
    assert found[cgroup.UNIFIED] == found["hugetlb"] == root / "unified/logd" / ID
    assert found["cpu"] == root / "cpu/logd" / ID
    hierarchy = tree("hybrid")[1]
    assert hierarchy.is_v1("memory")
    assert not hierarchy.is_v1("hugetlb")


def test_v2_has_one_folder_for_everything():
    root, found = own_folders("v2")
    assert {found[name] for name in (cgroup.UNIFIED, "memory", "cpu", "pids", "io")} == {root / "logd" / ID}


@pytest.mark.parametrize("kind", ["v1", "v2", "hybrid"])
def test_a_containers_folders_are_those_of_its_process(kind):
    hierarchy = tree(kind)[1]
    assert cgroup.container_folders(hierarchy, f"/logd/{ID}") == own_folders(kind)[1]


def test_folders_that_are_gone_are_left_out():
    hierarchy = tree("hybrid")[1]
    assert cgroup.folders(hierarchy, {"memory": "/logd/gone", cgroup.UNIFIED: f"/logd/{ID}"}).keys() == {"", "hugetlb"}


@pytest.mark.parametrize(("kind", "count"), [("v1", 3), ("hybrid", 1), ("v2", 2)])
def test_oom_kills_are_counted(kind, count):
    assert cgroup.oom_kills(own_folders(kind)[1]) == count


def test_without_a_memory_cgroup_there_is_no_count(tmp_path):
    assert cgroup.oom_kills({}) is None
    assert cgroup.oom_kills({"memory": tmp_path}) is None


def test_processes_are_those_of_the_cgroups_below_too():
    assert cgroup.processes(own_folders("v2")[1]["pids"]) == [4711, 4800]
    assert cgroup.processes(own_folders("v1")[1]["pids"]) == [4711, 4712]
    assert cgroup.processes(TREES / "gone") == []


def test_numbers_are_read_and_max_is_none():
    folder = own_folders("v2")[1]["memory"]
    assert cgroup.read_number(folder / "memory.max") == 32 << 20
    assert cgroup.read_number(folder / "memory.swap.max") is None
    assert cgroup.read_number(folder / "nothing") is None


@pytest.mark.parametrize("kind", ["v1", "v2", "hybrid"])
def test_all_three_kinds_of_host_can_limit_everything(kind):
    support = limits.host_support(TREES / kind)
    assert (support.memory, support.swap, support.cpu, support.cpuset) == (True, True, True, True)
    assert (support.pids, support.blkio_weight, support.v2) == (True, True, kind == "v2")


def test_a_host_without_swap_accounting_says_so(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/cgroup.procs").touch()
    support = limits.host_support(tmp_path)
    assert (support.memory, support.swap, support.pids, support.v2) == (True, False, False, False)
