"""Docker's statistics from recorded files: of this kind of host (v1) with dockerd's own answer, and of a v2 host."""

import json
from pathlib import Path
from typing import Any

from logd.sampling import docker

DATA = Path(__file__).parents[1] / "data/docker-stats"
MEMORY_TOTAL = 25276510208


def recorded(name: str) -> dict[str, bytes]:
    files = (DATA / name).read_text().split("== ")[1:]
    return {title: body.encode() for title, _, body in (file.partition("\n") for file in files)}


def stats(files: dict[str, bytes], version: int, memory_total: int = MEMORY_TOTAL) -> dict[str, Any]:
    return docker.stats(lambda name: files.get(name, b""), version, memory_total)


def test_the_files_of_a_container_of_dockerd_give_its_answer() -> None:
    answer = json.loads((DATA / "running.json").read_text())
    for name in ("read", "preread", "precpu_stats", "name", "id", "networks"):
        del answer[name]  # of the moment, not of the files
    assert (answer["cpu_stats"].pop("system_cpu_usage"), answer["cpu_stats"].pop("online_cpus")) != (0, 0)
    assert stats(recorded("v1.files"), 1) == answer


def test_a_container_that_does_not_run_has_the_empty_answer_of_dockerd() -> None:
    answer = json.loads((DATA / "stopped.json").read_text())
    for name in ("read", "preread", "name", "id"):
        del answer[name]
    assert {**docker.no_stats(), "precpu_stats": docker.no_cpu()} == answer


def test_v2_has_its_own_keys_of_memory_and_microseconds_become_nanoseconds() -> None:
    found = stats(recorded("v2.files"), 2)
    assert found["cpu_stats"] == {
        "cpu_usage": {"total_usage": 8992210000, "usage_in_kernelmode": 2853059000, "usage_in_usermode": 6139150000},
        "throttling_data": {"periods": 41, "throttled_periods": 39, "throttled_time": 1442362000},
    }
    memory = found["memory_stats"]
    assert (memory["usage"], memory["max_usage"], memory["failcnt"]) == (139350016, 339906560, 3)
    assert memory["limit"] == MEMORY_TOTAL
    assert set(memory["stats"]) == set(docker.MEMORY_V2)
    assert len(memory["stats"]) == 31
    assert (memory["stats"]["inactive_file"], memory["stats"]["workingset_refault"]) == (51507200, 82)
    assert found["pids_stats"] == {"current": 6}


def test_v2_has_bytes_of_each_device_and_no_other_table() -> None:
    blkio = stats(recorded("v2.files"), 2)["blkio_stats"]
    assert blkio.pop("io_service_bytes_recursive") == [
        {"major": 254, "minor": 0, "op": "read", "value": 8388608},
        {"major": 254, "minor": 0, "op": "write", "value": 4096},
        {"major": 254, "minor": 16, "op": "read", "value": 0},
        {"major": 254, "minor": 16, "op": "write", "value": 512},
    ]
    assert len(blkio) == 7
    assert set(blkio.values()) == {None}


def test_a_refault_counter_of_an_old_kernel_is_taken_as_it_is() -> None:
    files = {"memory.stat": b"workingset_refault 9\nworkingset_activate 1\n"}
    assert stats(files, 2)["memory_stats"]["stats"]["workingset_refault"] == 9


def test_a_schedulers_counters_come_before_those_of_throttling_and_a_mere_total_is_none() -> None:
    throttle = {
        "blkio.throttle.io_service_bytes": b"8:0 Read 1\nTotal 1\n",
        "blkio.bfq.io_service_bytes_recursive": b"",
    }
    only_total = {**throttle, "blkio.bfq.io_service_bytes_recursive": b"Total 0\n"}
    bfq = {**throttle, "blkio.bfq.io_service_bytes_recursive": b"8:0 Read 7\nTotal 7\n"}
    cfq = {**bfq, "blkio.io_service_bytes_recursive": b"8:0 Read 9\n", "blkio.sectors_recursive": b"8:0 3\n"}

    def bytes_read(files: dict[str, bytes]) -> int:
        return int(stats(files, 1)["blkio_stats"]["io_service_bytes_recursive"][0]["value"])

    assert [bytes_read(one) for one in (throttle, only_total, bfq, cfq)] == [1, 1, 7, 9]
    sectors = stats(cfq, 1)["blkio_stats"]["sectors_recursive"]
    assert sectors == [{"major": 8, "minor": 0, "op": "", "value": 3}]


def test_the_limit_is_never_above_the_machines_memory() -> None:
    for text, shown in ((b"9223372036854771712\n", MEMORY_TOTAL), (b"67108864\n", 67108864)):
        assert stats({"memory.limit_in_bytes": text}, 1)["memory_stats"]["limit"] == shown
    assert stats({"memory.max": b"67108864\n"}, 2)["memory_stats"]["limit"] == 67108864


def test_the_hosts_cpu_time_is_the_first_seven_fields() -> None:
    text = b"cpu  1 2 3 4 5 6 7 800 900 1000\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu3 0 0 0 0 0 0 0 0 0 0\nintr 5 6\n"
    assert docker.host_cpu(text) == (28 * 10_000_000, 2)
