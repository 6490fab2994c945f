"""A container's log drivers and log-opts → routes, one for each driver, and the limits of its store.

`--log-driver syslog,audit=fluentd` names two drivers, the second one `audit`; the first is named like its driver.
`--log-opt audit:fluentd-address=…` is for that one alone, `--log-opt tag=…` for all that know the option. Everything
is checked here, when a container is created or its logging changed, never later.
"""

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from logd import units
from logd.driver import CommonOptions, OpenOptions, boolean, duration, log_opts, one_of, opt, parse_options, whole
from logd.errors import InvalidParameter
from logd.plugins import RESERVED, Plugins

NONE: Final = "none"
LOCAL: Final = "local"
KEEPING: Final = (LOCAL, "json-file")
"""Drivers whose max-size and max-file are the store's too."""
MODES: Final = ("", "blocking", "non-blocking")
MIN_SEGMENT_BYTES: Final = 4096
"""A segment can't be smaller than a page."""
MIN_LINE_BYTES: Final = 1024
DEFAULT_LINE_BYTES: Final = 1 << 20
UNDELIVERED_BYTES: Final = 1 << 30
SEND_TIMEOUT_S: Final = 30.0
COMMON: Final = frozenset(log_opts(CommonOptions))
"""Of every driver; for `local` they say what `logs --details` shows."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


def _size(least: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        size = units.parse_size(value)
        if size < least:
            raise ValueError(f"{value!r}: at least {least} bytes")
        return size

    return parse


def _store_size(value: str) -> int:
    """Docker's json-file takes any size; a segment of the store is at least a page."""
    if value == "-1":
        return 0
    return max(MIN_SEGMENT_BYTES, _size(1)(value))


def _age(value: str) -> int:
    return int(duration(value))


@dataclass(frozen=True, kw_only=True)
class StoreLimits:
    """Log-opts about what is kept here, whatever the drivers."""

    mode: str = opt(one_of(*MODES), default="", help="blocking: the container waits where output would be dropped")
    max_buffer_size: int = opt(units.parse_ram_size, default=0, help="Docker's ring in memory: checked, not needed")
    max_age: int = opt(_age, default=0, help="closed segments older than this are removed")
    max_line_size: int = opt(_size(MIN_LINE_BYTES), default=DEFAULT_LINE_BYTES, help="longer lines come in parts")
    sync: str | None = opt(one_of("", "1s", "always"), default=None, help="when output is forced to the disk")


@dataclass(frozen=True, kw_only=True)
class KeptLimits(StoreLimits):
    """Those of `local` and `json-file`: what the driver keeps, the store keeps."""

    max_size: int = opt(_store_size, default=0, help="bytes of a segment")
    max_file: int = opt(whole(1), default=0, help="how many segments are kept")
    compress: bool = opt(boolean, default=False, help="Docker's wish to compress what is closed: checked, no effect")


@dataclass(frozen=True, kw_only=True)
class CacheLimits(StoreLimits):
    """Those of all other drivers: Docker's names for its local cache."""

    cache_disabled: bool = opt(boolean, default=False, help="docker logs is refused; the store is a buffer only")
    cache_max_size: int = opt(_store_size, default=0, help="bytes of a segment")
    cache_max_file: int = opt(whole(1), default=0, help="how many segments are kept")
    cache_compress: bool = opt(boolean, default=False, help="checked, no effect")


@dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
    """Log-opts about how a driver is served, whichever it is."""

    undelivered_max_size: int = opt(
        _size(MIN_SEGMENT_BYTES), default=UNDELIVERED_BYTES, help="what may wait for this driver; beyond, oldest first"
    )
    flush_interval: float | None = opt(duration, default=None, help="least time between two small batches")
    send_timeout: float = opt(duration, default=SEND_TIMEOUT_S, help="how long the destination may take for a batch")


@dataclass(frozen=True)
class Route:
    """One driver of one container: its name among them, and its log-opts as text (checked)."""

    name: str
    driver: str
    options: dict[str, str] = field(default_factory=dict)
    """The driver's own."""
    delivery: dict[str, str] = field(default_factory=dict)
    processing: dict[str, str] = field(default_factory=dict)
    """Those of the line processors."""


@dataclass(frozen=True)
class Logging:
    """A container's logging, checked."""

    routes: tuple[Route, ...]
    limits: StoreLimits
    drivers: tuple[str, ...]
    """All of them, `local` and `none` too."""

    @property
    def is_ephemeral(self) -> bool:
        """Whether the store is there for attach only."""
        return self.drivers == (NONE,)

    @property
    def is_readable(self) -> bool:
        """Whether `logs` may read the store."""
        return not self.is_ephemeral and not getattr(self.limits, "cache_disabled", False)


def parse_names(log_driver: str) -> dict[str, str]:
    """Return the drivers by the names that `log_driver` gives them: `syslog,audit=fluentd`."""
    named: dict[str, str] = {}
    for part in log_driver.split(","):
        name, equals, driver = part.strip().partition("=")
        driver = driver if equals else name
        if not _NAME.fullmatch(name) or not driver:
            raise InvalidParameter(f"log-driver: {part!r} in {log_driver!r} (write DRIVER or NAME=DRIVER, with commas)")
        if name in named:
            raise InvalidParameter(f"log-driver: two drivers are named {name!r} (give one another name: x={driver})")
        named[name] = driver
    for one_file in KEEPING:
        if list(named.values()).count(one_file) > 1:
            raise InvalidParameter(f"log-driver: {one_file!r} can be there once only ({log_driver})")
    if NONE in named.values() and len(named) > 1:
        raise InvalidParameter(f"log-driver: {NONE!r} can't be combined with others ({log_driver})")
    return named


def parse_logging(log_driver: str, values: Mapping[str, str], plugins: Plugins, *, at_create: bool = False) -> Logging:
    """Return the checked logging of a container. Raises InvalidParameter, in Docker's words where it has them.

    `at_create`: what the options name on this host, such as files, is looked at too.
    """
    named = parse_names(log_driver)
    drivers = tuple(named.values())
    if drivers == (NONE,):
        return Logging((), StoreLimits(), drivers)  # as dockerd, which lets any option pass
    _check_mode(values)
    for driver in drivers:
        if driver not in RESERVED and not (plugins.is_there(driver) if at_create else plugins.find(driver)):
            there = ", ".join(sorted({*RESERVED, *plugins.drivers}))
            raise InvalidParameter(
                f'error looking up logging plugin {driver}: plugin "{driver}" not found (known: {there})'
            )
    limits_type = KeptLimits if any(driver in KEEPING for driver in drivers) else CacheLimits
    plain, own = _split(named, values)
    kept = {name: value for name, value in plain.items() if name in log_opts(limits_type)}
    known = known_options(log_driver, plugins)
    unknown = plain.keys() - known
    if unknown and not takes_any(log_driver, plugins):
        accepted = ", ".join(sorted(known))
        raise InvalidParameter(f"unknown log opt '{min(unknown)}' for {log_driver} log driver (known: {accepted})")
    routes = []
    for name, driver in named.items():
        if driver == LOCAL:
            _check_local(own.get(name, {}), plain)
        else:
            routes.append(_route(name, driver, plain, own.get(name, {}), unknown, plugins, at_create=at_create))
    return Logging(tuple(routes), parse_options(f"{log_driver} log driver", limits_type, kept), drivers)


def _check_mode(values: Mapping[str, str]) -> None:
    mode = values.get("mode", "")
    if mode not in MODES:
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in values and mode != "non-blocking":
        raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")


def _split(named: Mapping[str, str], values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the options without a driver's name before them, and those with one, by that name."""
    plain: dict[str, str] = {}
    own: dict[str, dict[str, str]] = {}
    for key, value in values.items():
        name, colon, option = key.partition(":")
        if not colon:
            plain[key] = value
        elif name in named:
            own.setdefault(name, {})[option] = value
        else:
            raise InvalidParameter(f"log opt {key!r}: no driver is named {name!r} (named: {', '.join(named)})")
    return plain, own


def processor_opts(plugins: Plugins) -> set[str]:
    """Return the names of all line processors' log-opts."""
    return {name for factory in plugins.processors for name in log_opts(factory.options_type)}


def _check_local(own: Mapping[str, str], plain: Mapping[str, str]) -> None:
    """Check what `logs --details` shows of a container whose log stays here."""
    if unknown := own.keys() - COMMON:
        raise InvalidParameter(f"unknown log opt '{sorted(unknown)[0]}' for {LOCAL} log driver")
    chosen = {name: value for name, value in {**plain, **own}.items() if name in COMMON}
    parse_options(f"{LOCAL} log driver", CommonOptions, chosen)


def _route(
    name: str,
    driver: str,
    plain: Mapping[str, str],
    own: Mapping[str, str],
    unknown: Set[str],
    plugins: Plugins,
    *,
    at_create: bool,
) -> Route:
    """Return a driver's route, checked, with those of the plain options that it knows.

    `unknown` are those that nobody knows: they are for a driver that takes any.
    """
    whose = f"{driver} log driver"
    options_type = plugins.driver(driver).options_type
    rooms = {"options": set(log_opts(options_type)), "delivery": set(log_opts(DeliveryOptions))}
    rooms["processing"] = processor_opts(plugins) - rooms["options"]
    if issubclass(options_type, OpenOptions):
        rooms["options"] |= (unknown | own.keys()) - rooms["delivery"] - rooms["processing"]
    known = set().union(*rooms.values())
    if strange := own.keys() - known:
        raise InvalidParameter(f"unknown log opt '{min(strange)}' for {whose} (known: {', '.join(sorted(known))})")
    values = {**{option: plain[option] for option in plain.keys() & known}, **own}
    sorted_out = {room: {one: value for one, value in values.items() if one in names} for room, names in rooms.items()}
    route = Route(name, driver, **sorted_out)
    parse_options(whose, options_type, route.options, at_create=at_create)
    parse_options(whose, DeliveryOptions, route.delivery)
    for factory in plugins.processors:
        names = log_opts(factory.options_type).keys()
        parse_options(whose, factory.options_type, {k: v for k, v in route.processing.items() if k in names})
    return route


def known_options(log_driver: str, plugins: Plugins) -> set[str]:
    """Return all log-opts, without a driver's name before them, that these drivers and the store know."""
    drivers = parse_names(log_driver).values()
    limits_type = KeptLimits if any(driver in KEEPING for driver in drivers) else CacheLimits
    known = set(COMMON) | set(log_opts(limits_type))
    for driver in drivers:
        if driver not in RESERVED and (kind := plugins.find(driver)):
            known |= set(log_opts(kind.options_type))
            known |= set(log_opts(DeliveryOptions)) | processor_opts(plugins)
    return known


def takes_any(log_driver: str, plugins: Plugins) -> bool:
    """Tell whether one of these drivers takes any log-opt."""
    kinds = [plugins.find(driver) for driver in parse_names(log_driver).values() if driver not in RESERVED]
    return any(issubclass(kind.options_type, OpenOptions) for kind in kinds if kind)
