"""Log drivers and log-opts, checked at create."""

import pytest

from logd.config import DaemonConfig
from logd.engine.logopts import max_line_bytes, resolve, store_options
from logd.errors import InvalidParameter
from logd.spec import LogConfig


def test_without_a_word_the_daemons_driver_and_options_hold():
    config = DaemonConfig(log_driver="local", log_opts={"max-size": "10m", "max-file": "3"})
    assert resolve(LogConfig(), config) == LogConfig(type="local", config={"max-size": "10m", "max-file": "3"})


def test_the_containers_options_come_before_the_daemons():
    config = DaemonConfig(log_opts={"max-size": "10m", "max-file": "3"})
    resolved = resolve(LogConfig(config={"max-size": "1m"}), config)
    assert resolved.config == {"max-size": "1m", "max-file": "3"}


def test_the_daemons_options_are_not_those_of_another_driver():
    assert resolve(LogConfig(type="none"), DaemonConfig(log_opts={"max-size": "10m"})).config == {}


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("fluxcapacitor", {}, 'error looking up logging plugin fluxcapacitor: plugin "fluxcapacitor" not found'),
        ("local", {"mode": "sometimes"}, "logger: logging mode not supported: sometimes"),
        (
            "local",
            {"max-buffer-size": "4m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("local", {"max-sise": "1m"}, "unknown log opt 'max-sise' for local log driver (known: "),
        ("local", {"max-size": "big"}, "max-size: invalid size"),
        ("local", {"max-line-size": "100"}, "max-line-size: '100': at least 1024 bytes"),
        ("local", {"max-file": "0"}, "max-file: '0' is not a whole number from 1 to "),
        ("local", {"max-age": "-1h"}, "max-age: '-1h': a duration can't be negative"),
        ("local", {"sync": "2s"}, "sync: '2s' (accepted: '', 1s, always)"),
        ("local", {"compress": "yes"}, "compress: 'yes' (accepted: true, false)"),
        ("local", {"labels-regex": "("}, "labels-regex: "),
        ("local", {"x:tag": "a"}, "log opt 'x:tag': no driver is named 'x' (named: local)"),
        ("local,none", {}, "log-driver: 'none' can't be combined with others (local,none)"),
        ("local,local", {}, "log-driver: two drivers are named 'local'"),
        ("a b", {}, "log-driver: 'a b' in 'a b' (write DRIVER or NAME=DRIVER, with commas)"),
    ],
)
def test_what_cannot_be_used_is_refused_with_name_value_and_what_is_accepted(driver, options, words):
    with pytest.raises(InvalidParameter) as refusal:
        resolve(LogConfig(type=driver, config=options), DaemonConfig())
    assert str(refusal.value).startswith(words)


def test_options_become_the_limits_of_the_store():
    options = {"max-size": "10m", "max-file": "3", "max-age": "1h30m", "sync": "always", "mode": "blocking"}
    store = store_options(LogConfig(type="local", config=options), DaemonConfig(max_total=1 << 30, min_free=0))
    assert store.max_size == 10_000_000  # Docker's log sizes are powers of 1000
    assert (store.max_file, store.max_age_s, store.sync, store.mode) == (3, 5400, "always", "blocking")
    assert (store.max_total, store.min_free) == (1 << 30, 0)


def test_the_defaults_are_bounded():
    store = store_options(LogConfig(type="local"), DaemonConfig())
    assert (store.max_size, store.max_file, store.max_age_s, store.min_free) == (20 << 20, 5, 0, -1)


def test_without_a_log_only_little_is_kept_for_attach():
    store = store_options(LogConfig(type="none", config={"max-size": "1g"}), DaemonConfig())
    assert store.max_size * store.max_file <= 4 << 20


def test_the_longest_line_is_an_option():
    assert max_line_bytes(LogConfig(type="local")) == 1 << 20
    assert max_line_bytes(LogConfig(type="local", config={"max-line-size": "16k"})) == 16_000
