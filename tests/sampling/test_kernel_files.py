"""The formats of the kernel's accounting files, with the odd forms that they take."""

from hypothesis import example, given
from hypothesis import strategies as st

from logd.sampling import parse
from logd.usage import Device, Interface, Stall

NET_DEV_TITLES = b"Inter-|   Receive    |  Transmit\n face |bytes    packets errs drop ...\n"


def test_a_number_that_is_not_there_or_says_max_is_0():
    assert parse.number(b"42\n") == 42
    assert parse.number(b"-1\n") == -1
    assert parse.number(b"max\n") == 0
    assert parse.number(b"") == 0


def test_the_largest_multiple_of_a_page_is_no_limit():
    assert parse.limit(b"9223372036854771712\n") == 0
    assert parse.limit(b"18446744073709551615\n") == 0
    assert parse.limit(b"max\n") == 0
    assert parse.limit(b"-1\n") == 0
    assert parse.limit(b"67108864\n") == 67108864


def test_pressure_has_totals_and_the_share_of_the_last_ten_seconds():
    data = (
        b"some avg10=12.50 avg60=4.10 avg300=1.01 total=2600123\nfull avg10=3.00 avg60=1.00 avg300=0.30 total=900456\n"
    )
    assert parse.pressure(data) == (Stall(2600123, 900456), 0.125)


def test_the_cpus_pressure_had_no_full_line_before_linux_5_13():
    assert parse.pressure(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n") == (Stall(7, 0), 0.0)


def test_no_pressure_is_none():
    assert parse.pressure(b"") == (Stall(), 0.0)


def test_all_interfaces_but_the_loopback_are_read():
    data = (
        NET_DEV_TITLES
        + b"    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n"
        + b"  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
        + b"lo0:9 8 7 6 0 0 0 0 5 4 3 2 0 0 0 0\n"
    )
    assert parse.net_dev(data) == {"eth0": Interface(1, 2, 3, 4, 5, 6, 7, 8), "lo0": Interface(9, 8, 7, 6, 5, 4, 3, 2)}


def test_an_interfaces_name_may_be_any_bytes():
    data = NET_DEV_TITLES + b'"\xff{}: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n'
    assert list(parse.net_dev(data)) == ['"\ufffd{}']


def test_without_interfaces_there_are_none():
    assert parse.net_dev(b"") == parse.net_dev(NET_DEV_TITLES) == {}


def test_blkio_has_a_pair_for_each_device():
    data = b"8:0 Read 4096\n8:0 Write 512\n8:0 Sync 4608\n8:0 Total 4608\n8:16 Read 0\n8:16 Write 7\nTotal 4615\n"
    assert parse.blkio(data) == {"8:0": (4096, 512), "8:16": (0, 7)}


def test_a_blkio_file_of_a_total_alone_names_no_device():
    assert parse.blkio(b"Total 0\n") == parse.blkio(b"") == {}


def test_io_stat_has_devices_without_figures_and_fields_that_are_not_known():
    data = (
        b"7:0 \n259:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.usage=5\n"
        b"252:0 253:0 rbytes=9 wbytes=8 rios=7 wios=6 dbytes=0 dios=0\n8:0 use_delay=1 delay_nsec=5\n"
    )
    assert parse.io_stat(data) == {"259:0": Device(1, 2, 3, 4), "253:0": Device(9, 8, 7, 6), "8:0": Device()}


def test_diskstats_has_disks_and_partitions_that_were_used():
    data = (
        b" 254       0 vda 89104 0 2675097 1000 4477226 0 731132160 2000 0 300 4000 1 2 3 4 5 6\n"
        b" 254       1 vda1 10 0 80 1 2 0 16 1 0 1 1\n   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
    assert parse.diskstats(data) == {
        ("254:0", "vda"): Device(2675097 * 512, 731132160 * 512, 89104, 4477226),
        ("254:1", "vda1"): Device(80 * 512, 16 * 512, 10, 2),
    }


def test_columns_are_found_again_after_the_file_has_changed():
    columns = parse.Columns(b"usage", b"periods", b"system")
    assert columns(b"usage 1\nsystem 2\n") == [1, 0, 2]
    assert columns(b"usage 3\nsystem 4\n") == [3, 0, 4]
    assert columns(b"usage 5\nsystem 6\nperiods 7\n") == [5, 7, 6]
    assert columns(b"system 8\nusage 9\nperiods 10\n") == [9, 10, 8]
    assert columns(b"") == [0, 0, 0]


NAMES = st.from_regex(rb"[a-z_]{1,8}", fullmatch=True)


@given(st.lists(st.dictionaries(NAMES, st.integers(0, 2**64 - 1), max_size=6), max_size=5), st.lists(NAMES, max_size=5))
@example([{b"a": 0, b"b": 0}, {b"_": 1, b"a": 0}], [b"_"])
def test_columns_give_what_a_dictionary_gives(tables, wanted):
    columns = parse.Columns(*wanted)
    for table in tables:
        data = b"".join(b"%s %d\n" % pair for pair in table.items())
        assert columns(data) == [table.get(name, 0) for name in wanted]
        assert {name: int(value) for name, value in parse.pairs(data).items()} == table


@given(st.dictionaries(st.tuples(st.integers(0, 4095), st.integers(0, 255)), st.tuples(*[st.integers(0, 2**63)] * 4)))
def test_io_stat_reads_what_the_kernel_prints(devices):
    expected = {f"{major}:{minor}": Device(*figures) for (major, minor), figures in devices.items()}
    form = "{} rbytes={} wbytes={} rios={} wios={} dbytes=0 dios=0\n"
    assert parse.io_stat("".join(form.format(name, *one) for name, one in expected.items()).encode()) == expected
