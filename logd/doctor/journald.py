"""journald's rate limit, which drops what a unit logs beyond it; to journald all containers are the daemon's unit.

A unit's own limit stands above that of journald.conf: systemd leaves it, in microseconds, as the target of a symbolic
link for journald to read; not if it is 0, which is unset to systemd. Sources: journald.conf(5), systemd.time(7), and of
systemd 252 src/core/unit.c (unit_export_log_ratelimit_interval), src/journal/journald-context.c, journald-rate-limit.c.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from logd.doctor.check import FAIL, OK, Check
from logd.runtime.cgroup import UNIFIED, parse_membership

NAME: Final = "journald's rate limit"
FOLDERS: Final = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd")
"""The first one that has a file hides those of the same name in the others."""
UNITS: Final = "run/systemd/units"
DEFAULTS: Final = {"RateLimitIntervalSec": "30s", "RateLimitBurst": "10000"}
NO_LIMIT: Final = 1e6
"""Entries a second: more than journald takes."""
SECONDS: Final = {
    **dict.fromkeys(("us", "usec", "µs"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
ADVICE: Final = (
    "set LogRateLimitIntervalSec=1us in logd's unit (0 counts as unset), or RateLimitIntervalSec=0 in journald.conf"
)


def rate_limit(users: int, root: Path = Path("/")) -> Check:
    """Check the limit that holds for this process's unit. `users`: how many containers log to journald."""
    if not (root / "run/systemd/journal/socket").exists():
        return Check(NAME, OK, "there is no journald here")
    settings = {**DEFAULTS, **_configured(root)}
    unit = _unit((root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace"))
    interval_s = _exported(root, "log-rate-limit-interval", unit, 1e-6)
    burst = _exported(root, "log-rate-limit-burst", unit, 1.0)
    interval_s = parse_time_span(settings["RateLimitIntervalSec"]) if interval_s is None else interval_s
    burst = float(settings["RateLimitBurst"]) if burst is None else burst
    whose = unit or "what logd runs in"
    if not interval_s or not burst or burst / interval_s >= NO_LIMIT:
        return Check(NAME, OK, f"none for {whose}")
    found = f"{burst:.0f} entries in {interval_s:g} s for {whose}, more with much free space; the rest is dropped"
    if not users:
        return Check(NAME, OK, f"{found}; no container logs to journald")
    return Check(NAME, FAIL, f"{found}; {users} containers log to journald", ADVICE)


def parse_time_span(text: str) -> float:
    """Return a time span of systemd's in seconds: `30s`, `1min 30s`, `500ms`, `infinity`. Raises ValueError."""
    if text == "infinity":
        return float("inf")
    if not re.fullmatch(r"(\s*[\d.]+\s*[a-zµ]*)+\s*", text):
        raise ValueError(f"{text!r} is no time span")
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+)\s*([a-zµ]*)", text))


def _configured(root: Path) -> dict[str, str]:
    """Return the settings about the limit, of which the last counts; what journald would not understand is left out."""
    found: dict[str, str] = {}
    for file in _files(root):
        section = ""
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if header := re.fullmatch(r"\s*\[(.*)\]\s*", line):
                section = header[1]
            name, equals, value = (part.strip() for part in line.partition("="))
            name = "RateLimitIntervalSec" if name == "RateLimitInterval" else name
            if section == "Journal" and equals and name in DEFAULTS and _is_understood(name, value):
                found[name] = value or DEFAULTS[name]
    return found


def _is_understood(name: str, value: str) -> bool:
    try:
        return not value or (
            value.isascii() and value.isdigit() if name == "RateLimitBurst" else parse_time_span(value) >= 0
        )
    except (KeyError, ValueError):
        return False


def _files(root: Path) -> Iterator[Path]:
    """Give the files of the configuration in the order in which they are read."""
    folders = [root / folder for folder in FOLDERS]
    main = [folder / "journald.conf" for folder in folders]
    yield from [file for file in main if file.is_file()][:1]
    drop_ins: dict[str, Path] = {}
    for folder in reversed(folders):
        drop_ins.update((file.name, file) for file in (folder / "journald.conf.d").glob("*.conf"))
    yield from (drop_ins[name] for name in sorted(drop_ins) if drop_ins[name].is_file())


def _unit(membership: str) -> str:
    """Return the unit that a process with this /proc/PID/cgroup belongs to for journald, "" for none."""
    paths = parse_membership(membership)
    for hierarchy in (UNIFIED, "systemd"):
        for part in paths.get(hierarchy, "").split("/"):
            if part.endswith((".service", ".scope")):
                return part
    return ""


def _exported(root: Path, name: str, unit: str, scale: float) -> float | None:
    try:
        return float(os.readlink(root / UNITS / f"{name}:{unit}")) * scale
    except (OSError, ValueError):
        return None
