"""`-v`, `--mount` and `--tmpfs`: what a container finds mounted, as docker writes it.

-v data:/var/lib/shop   -v ./conf:/etc/shop:ro   -v /cache
--mount type=bind,source=/srv,target=/srv,readonly   --mount type=volume,src=data,dst=/data,volume-nocopy
"""

import csv
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from logd.cli.words import split
from logd.errors import InvalidParameter
from logd.units import parse_ram_size

TRUE: Final = frozenset(("", "1", "t", "T", "true", "TRUE", "True"))
FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))
TARGETS: Final = frozenset(("target", "dst", "destination"))
SOURCES: Final = frozenset(("source", "src"))


def binds(words: Iterable[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return HostConfig's Binds and Config's Volumes: a path alone is a volume without a name."""
    named: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for word in words:
        if ":" not in word:
            anonymous[word] = {}
        elif word.startswith("."):
            source, rest = split(word, ":")
            named.append(f"{os.path.abspath(source)}:{rest}")
        else:
            named.append(word)
    return named, anonymous


def mounts(words: Iterable[str]) -> list[dict[str, Any]]:
    """Return HostConfig's Mounts for options `--mount KEY=VALUE,…`. Raises InvalidParameter."""
    return [_mount(word) for word in words]


def fields_of(option: str, word: str) -> list[tuple[str, str]]:
    """Return the pairs of a line of comma-separated KEY=VALUE, quoted as CSV is. Raises InvalidParameter."""
    try:
        rows = list(csv.reader([word], strict=True))
    except csv.Error as error:
        raise InvalidParameter(f"{option}: {word!r}: {error}") from error
    return [split(field) for field in (rows[0] if rows else [])]


def _mount(word: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Type": "volume"}
    for name, value in fields_of("--mount", word):
        key = name.strip().lower()
        if key == "type":
            found["Type"] = value.lower()
        elif key in TARGETS:
            found["Target"] = value
        elif key in SOURCES:
            found["Source"] = os.path.abspath(value) if value.startswith(".") else value
        elif key in {"readonly", "ro"}:
            found["ReadOnly"] = _flag(key, value)
        elif key == "consistency":
            found["Consistency"] = value
        elif key in _PARTS:
            part, field, read = _PARTS[key]
            _put(found.setdefault(part, {}), field, read(key, value))
        else:
            raise InvalidParameter(f"--mount: unknown field {name!r} in {word!r}")
    if "Target" not in found:
        raise InvalidParameter(f"--mount: target is required in {word!r} (write type=volume,source=data,target=/data)")
    if "VolumeOptions" in found:
        found["VolumeOptions"].setdefault("DriverConfig", {})  # docker's client sends it, and `inspect` shows it
    return found


def _put(part: dict[str, Any], field: str, value: Any) -> None:
    """Set a field, or add to it where it is an object; `A.B` is a field of an object in the part."""
    *path, last = field.split(".")
    for name in path:
        part = part.setdefault(name, {})
    if isinstance(value, dict):
        part.setdefault(last, {}).update(value)
    else:
        part[last] = value


def _flag(key: str, value: str) -> bool:
    if value not in TRUE | FALSE:
        raise InvalidParameter(f"--mount: invalid value for {key}: {value!r} (true or false)")
    return value in TRUE


def _text(_: str, value: str) -> str:
    return value


def _pair(_: str, value: str) -> dict[str, str]:
    return dict([split(value)])


def _recursion(key: str, value: str) -> bool:
    if value not in {"enabled", "disabled"}:
        raise InvalidParameter(f"--mount: invalid value for {key}: {value!r} (enabled or disabled)")
    return value == "disabled"


def _size(key: str, value: str) -> int:
    try:
        return parse_ram_size(value)
    except ValueError as error:
        raise InvalidParameter(f"--mount: {key}: {error}") from error


def _mode(key: str, value: str) -> int:
    try:
        return int(value, 8)
    except ValueError as error:
        raise InvalidParameter(f"--mount: invalid value for {key}: {value!r} (octal, such as 1777)") from error


_PARTS: Final[dict[str, tuple[str, str, Callable[[str, str], Any]]]] = {
    "bind-propagation": ("BindOptions", "Propagation", _text),
    "bind-nonrecursive": ("BindOptions", "NonRecursive", _flag),
    "bind-recursive": ("BindOptions", "NonRecursive", _recursion),
    "bind-create-src": ("BindOptions", "CreateMountpoint", _flag),
    "volume-nocopy": ("VolumeOptions", "NoCopy", _flag),
    "volume-subpath": ("VolumeOptions", "Subpath", _text),
    "volume-label": ("VolumeOptions", "Labels", _pair),
    "volume-driver": ("VolumeOptions", "DriverConfig.Name", _text),
    "volume-opt": ("VolumeOptions", "DriverConfig.Options", _pair),
    "tmpfs-size": ("TmpfsOptions", "SizeBytes", _size),
    "tmpfs-mode": ("TmpfsOptions", "Mode", _mode),
}
"""Docker's names: the part of the API's Mount, its field, and how the value is read."""
