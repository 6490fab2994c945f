import re

import pytest

from logd import units

S = units.NS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h30m", 5400 * S),
        ("250ms", S // 4),
        ("1.5s", 3 * S // 2),
        (".5m", 30 * S),
        ("0", 0),
        ("-5s", -5 * S),
        ("+5s", 5 * S),
        ("1µs", 1000),
        ("1us1ns", 1001),
        ("0.1s", S // 10),
        ("2h45m30.5s", 9930 * S + S // 2),
    ],
)
def test_a_go_duration_is_read_exactly(text, expected):
    assert units.parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "1d", "1h 5m", "--5s", "-+5s", "1h30", ".s", "٣s"])
def test_what_is_no_duration_is_refused_with_the_text(text):
    with pytest.raises(ValueError, match=re.escape(repr(text)) + ".*30s"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, "0s"),
        (7, "7ns"),
        (1500, "1.5µs"),
        (S // 4, "250ms"),
        (S, "1s"),
        (3 * S // 2, "1.5s"),
        (90 * S, "1m30s"),
        (5400 * S, "1h30m0s"),
        (-5 * S, "-5s"),
        (3_600_000_000_001, "1h0m0.000000001s"),
    ],
)
def test_a_duration_is_written_as_go_does_and_reads_back(duration, expected):
    assert units.format_duration(duration) == expected
    assert units.parse_duration(expected) == duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-06T07:08:09Z", 1714979289 * S),
        ("2024-05-06T07:08:09.5Z", 1714979289 * S + S // 2),
        ("2024-05-06T07:08:09.123456789+02:00", 1714972089 * S + 123456789),
        ("2024-05-06T07:08:09-00:30", 1714981089 * S),
        ("1714979289", 1714979289 * S),
        ("1714979289.000000001", 1714979289 * S + 1),
        ("1714979289.12345678999999", 1714979289 * S + 123456789),
        ("10m", 1000 * S - 600 * S),
        ("-10m", 1000 * S + 600 * S),
        ("2024-05-06Z", 1714953600 * S),
        ("2024-05-06T07Z", 1714978800 * S),
    ],
)
def test_a_time_is_read_in_each_form_that_since_takes(text, expected):
    assert units.parse_time(text, now_ns=1000 * S) == expected


def test_a_date_without_a_zone_is_local_time(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC-3")
    time.tzset()
    try:
        assert units.parse_time("2024-05-06T07:08") == units.parse_rfc3339("2024-05-06T07:08:00+03:00")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "tomorrow", "2024-13-01", "2024-05-06T25:00:00Z", "1.2.3", "1714979289."])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="invalid time"):
        units.parse_time(text)


def test_log_timestamps_have_always_nine_digits_and_inspect_ones_only_what_is_needed():
    assert units.format_time(1714979289 * S) == "2024-05-06T07:08:09.000000000Z"
    assert units.format_time_short(1714979289 * S) == "2024-05-06T07:08:09Z"
    assert units.format_time_short(1714979289 * S + 120_000_000) == "2024-05-06T07:08:09.12Z"
    assert units.format_time_short(None) == "0001-01-01T00:00:00Z"
    assert units.format_time(-1) == "1969-12-31T23:59:59.999999999Z"


@pytest.mark.parametrize(
    ("text", "decimal", "binary"),
    [
        ("10m", 10_000_000, 10 << 20),
        ("1.5G", 1_500_000_000, 3 << 29),
        ("512", 512, 512),
        ("512b", 512, 512),
        ("1KiB", 1000, 1024),
        ("20 mb", 20_000_000, 20 << 20),
        ("1t", 10**12, 1 << 40),
    ],
)
def test_a_size_is_decimal_for_logs_and_binary_for_memory(text, decimal, binary):
    assert units.parse_size(text) == decimal
    assert units.parse_ram_size(text) == binary


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "1 2", "1m2", "0x10"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="invalid size"):
        units.parse_size(text)


def test_sizes_are_printed_as_docker_prints_them():
    assert [units.format_size(n) for n in (0, 999, 1_440_000, 203_000)] == ["0B", "999B", "1.44MB", "203kB"]
    assert units.format_ram_size(8_217_000_000) == "7.653GiB"
