"""A container's log driver and log-opts: checked when it is created, and turned into the limits of its store.

Source: https://docs.docker.com/engine/logging/drivers/local/ for names, defaults and messages. Options that act on
what is delivered (tag, labels, env) are kept for `logs --details`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from logd import units
from logd.config import DaemonConfig
from logd.errors import InvalidParameter
from logd.logstore.options import StoreOptions
from logd.spec import LogConfig

DRIVERS: Final = ("local", "none")
MODES: Final = ("", "blocking", "non-blocking")
SYNCS: Final = ("", "1s", "always")
MIN_SEGMENT_BYTES: Final = 4096
"""A segment can't be smaller than a page."""
MIN_LINE_BYTES: Final = 1024
DEFAULT_LINE_BYTES: Final = 1 << 20


def _max_size(text: str) -> int:
    size = units.parse_size(text)
    if size < MIN_SEGMENT_BYTES:
        raise ValueError(f"{text!r}: at least {MIN_SEGMENT_BYTES} bytes")
    return size


def _max_line_size(text: str) -> int:
    size = units.parse_size(text)
    if size < MIN_LINE_BYTES:
        raise ValueError(f"{text!r}: at least {MIN_LINE_BYTES} bytes")
    return size


def _max_file(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is not a number of files, at least 1")
    return int(text)


def _max_age(text: str) -> int:
    seconds = units.parse_duration(text) // units.NS
    if seconds < 0:
        raise ValueError(f"{text!r}: an age can't be negative")
    return seconds


def _boolean(text: str) -> bool:
    if text not in {"1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"}:
        raise ValueError(f"{text!r} (accepted: true, false)")
    return text[0] in "1tT"


def _one_of(*accepted: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in accepted:
            raise ValueError(f"{text!r} (accepted: {', '.join(one for one in accepted if one)})")
        return text

    return parse


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r}: {error}") from error
    return text


EPHEMERAL: Final = {"max-size": "1m", "max-file": "2"}
"""What the driver `none` keeps, for attach only."""
OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "max-size": _max_size,
    "max-file": _max_file,
    "max-age": _max_age,
    "max-line-size": _max_line_size,
    "sync": _one_of(*SYNCS),
    "compress": _boolean,
    "mode": _one_of(*MODES),
    "max-buffer-size": units.parse_ram_size,
    "tag": str,
    "labels": str,
    "labels-regex": _regex,
    "env": str,
    "env-regex": _regex,
}
"""What each log-opt of the driver `local` is read with; a ValueError's text says what is accepted.

`compress` and `max-buffer-size` have Docker's meaning of a hint: nothing here keeps output in memory.
"""


def resolve(asked: LogConfig, config: DaemonConfig) -> LogConfig:
    """Return the driver and options that hold for a new container: what was asked, else the daemon's.

    The daemon's options are added where its driver is used. Raises InvalidParameter for an unknown driver, an
    unknown option or a wrong value.
    """
    driver = asked.type or config.log_driver
    options = dict(asked.config)
    if driver == config.log_driver:
        options = {**config.log_opts, **options}
    check(driver, options)
    return LogConfig(type=driver, config=options)


def check(driver: str, options: Mapping[str, str]) -> None:
    """Raise InvalidParameter, in Docker's words where it has them, for a driver or options that can't be used."""
    if driver == "none":
        return  # as dockerd, which lets any option pass
    mode = options.get("mode", "")
    if mode not in MODES:
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options and mode != "non-blocking":
        raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    if driver not in DRIVERS:
        raise InvalidParameter(f"logger: no log driver named '{driver}' is registered")
    for name, value in options.items():
        read_option(name, value)


def read_option(name: str, value: str) -> Any:
    """Return the typed value of one log-opt; raises InvalidParameter that names option, value and what is accepted."""
    parse = OPTIONS.get(name)
    if parse is None:
        raise InvalidParameter(f"unknown log opt '{name}' for log driver local (known: {', '.join(sorted(OPTIONS))})")
    try:
        return parse(value)
    except ValueError as error:
        raise InvalidParameter(f"invalid value for {name}: {error}") from error


def store_options(log_config: LogConfig, config: DaemonConfig) -> StoreOptions:
    """Return the limits of the store of a container with this checked driver and these options."""
    options = log_config.config if log_config.type != "none" else EPHEMERAL
    values = {name: read_option(name, value) for name, value in options.items() if name in OPTIONS}
    return StoreOptions(
        max_size=values.get("max-size", StoreOptions().max_size),
        max_file=values.get("max-file", StoreOptions().max_file),
        max_age_s=values.get("max-age", 0),
        max_total=config.max_total,
        min_free=-1 if config.min_free is None else config.min_free,
        sync=values.get("sync", config.sync),
        mode=values.get("mode", ""),
    )


def max_line_bytes(log_config: LogConfig) -> int:
    """Return beyond how many bytes a line is given out in parts."""
    text = log_config.config.get("max-line-size")
    return DEFAULT_LINE_BYTES if text is None or log_config.type == "none" else int(read_option("max-line-size", text))
