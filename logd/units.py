"""Text that people write for amounts and times, to and from numbers.

Durations are Go's (`time.ParseDuration`), sizes are those of Docker's command line, times are RFC 3339 (section 5.6)
or Unix seconds with a fraction. A time is an int of nanoseconds since 1970 (UTC). Text that can't be read raises
ValueError with a message that shows the text and what is accepted; callers put the name of the option before it.
"""

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

NS: Final = 1_000_000_000
"""Nanoseconds in a second."""

ZERO_TIME: Final = "0001-01-01T00:00:00Z"
"""What Docker shows for a time that has not come (Go's zero time)."""

_DURATION_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC, which Go takes too
    "ms": 1_000_000,
    "s": NS,
    "m": 60 * NS,
    "h": 3600 * NS,
}
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_DATE: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:T(\d{2})(?::(\d{2}))?(?::(\d{2})(?:\.(\d{1,9})\d*)?)?)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII
)
_UNIX: Final = re.compile(r"(-?\d{1,12})(?:\.(\d{1,20}))?", re.ASCII)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?([kmgtp]?)(i?b)?", re.ASCII | re.IGNORECASE)
_SIZE_LETTERS: Final = "kmgtp"


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration such as `1h30m`, `250ms`, `-5s` or `0`."""
    body = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    total, end = 0, 0
    for part in _DURATION_PART.finditer(body):
        if part.start() != end:
            break
        total += _scaled(part[1], _DURATION_UNITS[part[2]])
        end = part.end()
    if body != "0" and (not body or end != len(body)):
        raise ValueError(f"invalid duration {text!r} (write 30s, 5m, 1h30m or 250ms)")
    return -total if text.startswith("-") else total


def parse_duration_s(text: str) -> float:
    """Return the seconds of a Go duration."""
    return parse_duration(text) / NS


def format_duration(duration_ns: int) -> str:
    """Return a Go duration (`time.Duration.String`): `1h30m0s`, `1.5s`, `250ms`, `0s`."""
    sign, rest = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    if rest == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1_000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, seconds = divmod(rest, 60 * NS)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, NS)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"


def parse_unix(text: str) -> int:
    """Return the time of Unix seconds with at most 20 digits of fraction (nine of them count): `1700000000.25`."""
    match = _UNIX.fullmatch(text)
    if not match:
        raise ValueError(f"invalid timestamp {text!r} (write Unix seconds, with a fraction if need be)")
    seconds, fraction = int(match[1]), int((match[2] or "0")[:9].ljust(9, "0"))
    return seconds * NS + (-fraction if text.startswith("-") else fraction)


def parse_rfc3339(text: str) -> int:
    """Return the time of `2006-01-02T15:04:05.999999999Z` or the same with an offset."""
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError(f"invalid time {text!r} (write RFC 3339: 2006-01-02T15:04:05Z)")
    date, clock, fraction, zone = match.groups()
    moment = _datetime(f"{date}T{clock}", text).replace(tzinfo=_zone(zone))
    return _unix_ns(moment) + int((fraction or "0").ljust(9, "0"))


def parse_time(text: str, now_ns: int | None = None) -> int:
    """Return the time of whatever `--since` takes.

    That is RFC 3339, a date with as much of the clock as is wanted (local time unless it has a zone), Unix seconds
    with a fraction, or a Go duration before `now_ns` (by default the clock's).
    """
    if _UNIX.fullmatch(text):
        return parse_unix(text)
    match = _DATE.fullmatch(text)
    if match:
        date, hour, minute, second, fraction, zone = match.groups()
        moment = _datetime(f"{date}T{hour or '00'}:{minute or '00'}:{second or '00'}", text)
        moment = moment.replace(tzinfo=_zone(zone)) if zone else moment.astimezone()
        return _unix_ns(moment) + int((fraction or "0").ljust(9, "0"))
    try:
        back_ns = parse_duration(text)
    except ValueError:
        raise ValueError(
            f"invalid time {text!r} (write RFC 3339, a date, Unix seconds, or a duration such as 10m)"
        ) from None
    return (time.time_ns() if now_ns is None else now_ns) - back_ns


def format_time(time_ns: int) -> str:
    """Return RFC 3339 in UTC with always nine digits, as in Docker's `--timestamps`."""
    seconds, fraction = divmod(time_ns, NS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


def format_time_short(time_ns: int | None) -> str:
    """Return RFC 3339 in UTC without trailing zeros (Go's RFC3339Nano), as in `docker inspect`.

    No time (None or 0) is Go's zero time.
    """
    if not time_ns:
        return ZERO_TIME
    text = format_time(time_ns)[:-1].rstrip("0").rstrip(".")
    return f"{text}Z"


def parse_size(text: str) -> int:
    """Return the bytes of `10m`, `1.5GB` or `512`; k, m, g, t, p are powers of 1000 (Docker's for log sizes)."""
    return _parse_size(text, 1000)


def parse_ram_size(text: str) -> int:
    """Return the bytes of `10m`, `1.5GiB` or `512`; k, m, g, t, p are powers of 1024 (Docker's for memory)."""
    return _parse_size(text, 1024)


def format_size(size: int, digits: int = 4) -> str:
    """Return a decimal size of so many digits at most, as Docker prints it: `0B`, `1.44MB`, `203kB`."""
    return _format_size(size, 1000, ("B", "kB", "MB", "GB", "TB", "PB", "EB"), digits)


def format_ram_size(size: int) -> str:
    """Return a binary size of four digits at most, as Docker prints it: `7.653GiB`."""
    return _format_size(size, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 4)


def _parse_size(text: str, base: int) -> int:
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"invalid size: {text!r} (write bytes, or a number with k, m, g or t)")
    power = _SIZE_LETTERS.find(match[2].lower()) + 1 if match[2] else 0
    return _scaled(match[1], base**power)


def _format_size(size: int, base: int, names: tuple[str, ...], digits: int) -> str:
    value, index = float(size), 0
    while value >= base and index < len(names) - 1:
        value, index = value / base, index + 1
    if value >= 10**digits - 0.5 and index < len(names) - 1:
        value, index = value / base, index + 1  # it would be rounded to 1e+03
    return f"{value:.{digits}g}{names[index]}"


def _scaled(number: str, unit: int) -> int:
    """Return `number`, decimal text, times `unit`, exactly and cut to an int."""
    whole, _, fraction = number.partition(".")
    return int(whole or "0") * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def _decimal(amount: int, size: int) -> str:
    """Return `amount / size` with as many decimals as it needs; size is a power of ten."""
    whole, rest = divmod(amount, size)
    if not rest:
        return str(whole)
    fraction = str(rest).rjust(len(str(size)) - 1, "0").rstrip("0")
    return f"{whole}.{fraction}"


def _datetime(text: str, original: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"invalid time {original!r}: {error}") from error


def _zone(text: str) -> timezone:
    if text in {"Z", "z"}:
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return timezone(-offset if text[0] == "-" else offset)


def _unix_ns(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * NS
