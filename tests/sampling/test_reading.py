"""Samples of recorded cgroup trees: v1, v2 and hybrid."""

import shutil

import msgspec
import pytest

from logd.runtime import cgroup
from logd.sampling.cpu import TICK_NS, shares_of_weight
from logd.sampling.reading import Reading
from logd.usage import Counters, Device, Interface, Pages, Sample, Stall

ID = "ab" * 32
PATH = f"/logd/{ID}"
MIB = 1 << 20
US = 1000


def sample_of(trees, kind, path=PATH):
    reading = Reading(cgroup.detect(trees / kind), path, trees / "host")
    try:
        first, second = reading.read(), reading.read()
    finally:
        reading.close()
    assert first.time_ns <= second.time_ns
    second.time_ns = first.time_ns
    assert first == second  # as is said by the places found at first
    first.time_ns = 0
    return first


def test_hybrid_has_v1_figures_and_the_unified_trees_times_and_pressure(trees):
    assert sample_of(trees, "hybrid") == Sample(
        time_ns=0,
        counters=Counters(
            cpu_ns=347_991_629,
            cpu_user_ns=332_861 * US,
            cpu_system_ns=15_130 * US,
            cpu_periods=10,
            cpu_throttled_periods=2,
            cpu_throttled_ns=8_903_447,
            page_faults=1747,
            oom_kills=1,
            devices={"254:0": Device(0, 33_591_296, 0, 42)},
            stalls={"cpu": Stall(269_620, 266_034), "memory": Stall(), "io": Stall(7798, 7798)},
        ),
        memory_usage=21_377_024,
        working_set=21_377_024,
        rss=49_152,
        cache=20 * MIB,
        kernel_memory=356_352,
        memory_peak=22_753_280,
        memory_limit=64 * MIB,
        swap_limit=32 * MIB,
        memory_reservation=32 * MIB,
        pids=1,
        pids_limit=100,
        cpu_shares=512,
        cpu_quota_us=50_000,
        cpu_period_us=100_000,
        stalled={"cpu": 0.0157, "memory": 0.0, "io": 0.0},
    )


def test_v1_alone_counts_user_and_system_time_in_ticks_and_has_no_pressure(trees):
    assert sample_of(trees, "v1") == Sample(
        time_ns=0,
        counters=Counters(
            cpu_ns=347_991_629,
            cpu_user_ns=33 * TICK_NS,
            cpu_system_ns=1 * TICK_NS,
            page_faults=1747,
            major_page_faults=3,
            oom_kills=3,
            devices={"8:0": Device(MIB, 524_288, 20, 7), "8:16": Device(4096, 0, 1, 0)},
        ),
        memory_usage=21_377_024,
        working_set=21_377_024 - 8 * MIB,
        rss=6 * MIB,
        cache=12 * MIB,
        mapped_file=MIB,
        active_file=4 * MIB,
        inactive_file=8 * MIB,
        kernel_memory=356_352,
        memory_peak=22_753_280,
        pids=3,
        cpu_shares=512,
        cpu_period_us=100_000,
        huge_pages={"2MB": Pages(2 * MIB, 6 * MIB, 4)},
    )


def test_v2_has_everything_in_one_folder(trees):
    assert sample_of(trees, "v2") == Sample(
        time_ns=0,
        counters=Counters(
            cpu_ns=5_123_456 * US,
            cpu_user_ns=4_000_123 * US,
            cpu_system_ns=1_123_333 * US,
            cpu_periods=51,
            cpu_throttled_periods=7,
            cpu_throttled_ns=345_678 * US,
            page_faults=20_451,
            major_page_faults=17,
            memory_failures=12,
            oom_kills=2,
            devices={"259:0": Device(MIB, 32 * MIB, 16, 33), "8:16": Device(4096, 0, 1, 0)},
            stalls={"cpu": Stall(2_600_123, 900_456), "memory": Stall(55_001, 42_000), "io": Stall(771_234, 700_001)},
        ),
        memory_usage=29 * MIB,
        working_set=20 * MIB,
        rss=12 * MIB,
        cache=14 * MIB,
        mapped_file=5 * MIB,
        active_file=5 * MIB,
        inactive_file=9 * MIB,
        swap=MIB,
        kernel_memory=2 * MIB,
        memory_peak=32 * MIB,
        memory_limit=32 * MIB,
        memory_reservation=16 * MIB,
        pids=5,
        pids_limit=100,
        cpu_shares=1024,
        cpu_quota_us=50_000,
        cpu_period_us=100_000,
        huge_pages={"2MB": Pages(4 * MIB, 0, 3)},
        stalled={"cpu": 0.125, "memory": 0.0, "io": 0.0125},
    )


@pytest.fixture
def changed(trees, tmp_path):
    """Return the copy of a tree with other files in a container's folder; None takes a file away."""

    def make(kind, **files):
        shutil.copytree(trees / kind, tmp_path / kind, symlinks=True)
        shutil.copytree(trees / "host", tmp_path / "host")
        folders = cgroup.container_folders(cgroup.detect(tmp_path / kind), PATH)
        for place, content in files.items():
            controller, _, name = place.partition("/")
            file = folders[controller] / name
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_text(content)
        return sample_of(tmp_path, kind)

    return make


def test_the_swap_limit_is_of_swap_alone_on_v2_too(changed):
    assert changed("v2", **{"memory/memory.swap.max": "67108864\n"}).swap_limit == 64 * MIB


def test_swap_without_a_limit_has_none_on_v1(changed):
    assert changed("hybrid", **{"memory/memory.memsw.limit_in_bytes": "9223372036854771712\n"}).swap_limit == 0


def test_a_kernel_without_swap_accounting_has_no_swap_limit(changed):
    assert changed("hybrid", **{"memory/memory.memsw.limit_in_bytes": None}).swap_limit == 0


def test_the_working_set_is_never_below_nothing(changed):
    assert changed("v2", **{"memory/memory.current": "4096\n"}).working_set == 0


def test_an_older_v2_kernel_has_neither_a_peak_nor_the_sum_of_its_own_memory(changed):
    stat = "anon 4096\nfile 0\nkernel_stack 16384\nslab 8192\nfile_mapped 0\npgfault 5\n"
    sample = changed("v2", **{"memory/memory.peak": None, "memory/memory.stat": stat})
    assert (sample.memory_peak, sample.kernel_memory, sample.rss, sample.counters.page_faults) == (0, 24_576, 4096, 5)


def test_a_v2_cgroup_without_controllers_still_has_its_cpu_time(changed):
    names = ("memory.current", "memory.stat", "memory.events", "memory.peak", "memory.swap.current", "memory.max")
    gone = {f"memory/{name}": None for name in names} | {"pids/pids.current": None, "io/io.stat": None}
    sample = changed("v2", **gone, **{"cpu/cpu.stat": "usage_usec 7\nuser_usec 5\nsystem_usec 2\n"})
    assert (sample.counters.cpu_ns, sample.counters.cpu_periods) == (7 * US, 0)
    assert (sample.memory_usage, sample.pids, sample.counters.devices) == (0, 0, {})


def test_files_of_throttling_that_name_no_device_are_passed_over_for_the_schedulers(changed):
    bfq = {"blkio/blkio.bfq.io_service_bytes_recursive": "8:0 Read 5\n8:0 Write 6\nTotal 11\n"}
    empty = dict.fromkeys(
        (f"blkio/blkio.throttle.io_{name}_recursive" for name in ("service_bytes", "serviced")), "Total 0\n"
    )
    assert changed("hybrid", **empty, **bfq).counters.devices == {"8:0": Device(5, 6, 0, 0)}


def run(folders):
    """Have something run in a v1 cgroup."""
    usage = folders["cpuacct"] / "cpuacct.usage"
    usage.write_text(f"{int(usage.read_text()) + 1}\n")


@pytest.mark.parametrize("kind", ["hybrid", "v2"])
def test_of_a_cgroup_that_rests_it_is_still_seen_what_others_do_to_it(trees, tmp_path, kind):
    shutil.copytree(trees / kind, tmp_path / kind, symlinks=True)
    folders = cgroup.container_folders(cgroup.detect(tmp_path / kind), PATH)
    usage = folders["memory"] / ("memory.usage_in_bytes" if kind == "hybrid" else "memory.current")
    pressure = {name: folders[cgroup.UNIFIED] / f"{name}.pressure" for name in ("cpu", "io")}
    calm = "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
    for file in pressure.values():
        file.write_text(calm)
    reading = Reading(cgroup.detect(tmp_path / kind), PATH, trees / "host")
    first = reading.read()
    assert msgspec.structs.replace(reading.read(), time_ns=0) == msgspec.structs.replace(first, time_ns=0)
    stat = folders["memory"] / "memory.stat"
    stat.write_text(stat.read_text().replace("inactive_file", "was_inactive_file"))  # given back for want of memory
    usage.write_text(f"{first.memory_usage - first.inactive_file}\n")
    pressure["io"].write_text(calm.replace("total=7", "total=900"))  # a task that waits for its disk
    later = reading.read()
    assert (later.memory_usage, later.inactive_file) == (first.memory_usage - first.inactive_file, 0)
    assert (later.counters.stalls["io"].some_us, later.counters.stalls["cpu"].some_us) == (900, 7)
    reading.close()


def test_blocks_stay_with_the_files_that_counted_first(trees, tmp_path):
    shutil.copytree(trees / "hybrid", tmp_path / "hybrid", symlinks=True)
    folders = cgroup.container_folders(cgroup.detect(tmp_path / "hybrid"), PATH)
    throttle, bfq = (folders["blkio"] / f"blkio.{layer}.io_service_bytes_recursive" for layer in ("throttle", "bfq"))
    counted = throttle.read_text()
    throttle.write_text("Total 0\n")
    reading = Reading(cgroup.detect(tmp_path / "hybrid"), PATH, trees / "host")
    assert reading.read().counters.devices == {}
    bfq.write_text("8:0 Read 5\n8:0 Write 6\nTotal 11\n")
    run(folders)
    assert reading.read().counters.devices == {"8:0": Device(5, 6, 0, 0)}
    throttle.write_text(counted)  # began to count later, and would seem to go back
    run(folders)
    assert reading.read().counters.devices == {"8:0": Device(5, 6, 0, 0)}
    reading.close()


def test_what_a_removed_cgroup_below_has_written_is_not_taken_back(trees, tmp_path):
    shutil.copytree(trees / "hybrid", tmp_path / "hybrid", symlinks=True)
    folders = cgroup.container_folders(cgroup.detect(tmp_path / "hybrid"), PATH)
    sizes, numbers = (
        folders["blkio"] / f"blkio.throttle.io_{name}_recursive" for name in ("service_bytes", "serviced")
    )

    def count(read, written):
        sizes.write_text(f"8:0 Read {read}\n8:0 Write {written}\nTotal 0\n")
        numbers.write_text(f"8:0 Read {read // 10}\n8:0 Write {written // 10}\nTotal 0\n")
        run(folders)
        return reading.read().counters.devices

    reading = Reading(cgroup.detect(tmp_path / "hybrid"), PATH, trees / "host")
    assert count(100, 500) == {"8:0": Device(100, 500, 10, 50)}
    assert count(120, 200) == {"8:0": Device(120, 500, 12, 50)}
    assert count(130, 260) == {"8:0": Device(130, 560, 13, 56)}
    assert count(0, 0) == {"8:0": Device(130, 560, 13, 56)}
    sizes.write_text("Total 0\n")
    run(folders)
    assert reading.read().counters.devices == {"8:0": Device(130, 560, 13, 56)}
    assert count(10, 10) == {"8:0": Device(140, 570, 14, 57)}
    reading.close()


def test_pressure_that_is_switched_off_leaves_the_rest(changed):
    sample = changed("v2", **{f"cpu/{name}.pressure": None for name in ("cpu", "memory", "io")})
    assert (sample.counters.stalls, sample.stalled, sample.pids) == ({}, {}, 5)


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (512, 59), (1024, 100), (4096, 303), (262_144, 10_000)])
def test_a_weight_tells_the_shares_that_it_was_made_of(shares, weight):
    assert abs(shares_of_weight(weight) - shares) <= shares // 50


def test_no_weight_is_no_shares():
    assert shares_of_weight(0) == 0


def test_every_weight_has_shares_that_grow():
    shares = [shares_of_weight(weight) for weight in range(1, 10_001)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (2, 262_144)


def test_the_root_of_a_v2_tree_is_filled_in_from_the_machine(trees):
    sample = sample_of(trees, "v2", "/")
    kib = 1024
    assert (sample.memory_usage, sample.memory_limit) == (6_000_000 * kib, 8_000_000 * kib)
    assert (sample.working_set, sample.rss, sample.cache) == (3_500_000 * kib, 1_500_000 * kib, 3_100_000 * kib)
    assert (sample.mapped_file, sample.active_file) == (400_000 * kib, 1_000_000 * kib)
    assert (sample.swap, sample.swap_limit, sample.kernel_memory) == (250_000 * kib, 1_000_000 * kib, 230_000 * kib)
    assert sample.pids == 812
    counters = sample.counters
    assert (counters.cpu_ns, counters.devices) == (90_123_456 * US, {"259:0": Device(10 * MIB, 320 * MIB, 160, 330)})
    assert (counters.page_faults, counters.major_page_faults, counters.oom_kills) == (123_456_789, 4321, 6)
    assert counters.interfaces == {"eth0": Interface(5_000_000, 4000, 1, 2, 3_000_000, 2500, 3, 4)}
    assert counters.stalls["io"] == Stall(5_500_100, 4_200_000)
    assert sample.stalled["cpu"] == 0.02


def test_a_cgroup_that_is_not_there_is_told_from_one_that_is(trees):
    for path, exists in ((PATH, True), ("/logd", True), ("/nothing", False)):
        reading = Reading(cgroup.detect(trees / "v2"), path, trees / "host")
        assert reading.exists == exists
        reading.close()


@pytest.mark.parametrize("kind", ["v1", "v2", "hybrid"])
def test_raw_files_are_found_by_their_names_and_share_a_descriptor(trees, kind, descriptors):
    reading = Reading(cgroup.detect(trees / kind), PATH, trees / "host")
    before = descriptors()
    assert reading.raw("memory.stat")
    assert reading.raw("pids.current")
    assert descriptors() == before
    assert reading.raw("net/dev") == reading.raw("memory.nothing") == reading.raw("cgroup.nothing") == b""
    assert bool(reading.raw("cpu.pressure")) == (kind != "v1")
    reading.close()
    assert descriptors() < before
