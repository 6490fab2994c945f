"""How a setting's JSON (or what a flag has gathered) becomes its value.

A parser raises ValueError: bare where the kind's `accepts` says enough, else with the reason.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from logd import units

STOCK_RUNTIMES: Final = ("runc", "crun")
"""In the order of preference: crun 1.8 refuses a host whose unified tree carries the hugetlb controller."""
ULIMITS: Final = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue"),
    *("nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)
"""The names of getrlimit(2), without RLIMIT_, as in Docker's --ulimit."""
MAX_SOCKET_PATH: Final = 107
"""unix(7): sun_path has 108 bytes, the last one NUL."""
MAX_GID: Final = (1 << 32) - 2
"""chown(2): the number above it changes nothing."""
MAX_PORT: Final = 65535
TLS_PORT: Final = 2376
"""Registered for Docker's API over TLS."""


class Runtime(NamedTuple):
    """An OCI runtime: `path` is absolute or searched for at use; `args` come before its own command line."""

    path: str
    args: tuple[str, ...] = ()


class Pool(NamedTuple):
    """Where networks get their subnets from: those of prefix length `size` in `base`."""

    base: ipaddress.IPv4Network | ipaddress.IPv6Network
    size: int


class Proxies(NamedTuple):
    """How registries are reached: URLs, and the hosts and domains that need none, separated by commas."""

    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


class Kind(NamedTuple):
    """How a setting is read. `shape`: bool, int, text, list or map, which tells a flag how to gather its values."""

    shape: str
    accepts: str
    parse: Callable[[Any], Any]


SHAPE_TYPES: Final[dict[str, tuple[str, type]]] = {
    "bool": ("true or false", bool),
    "int": ("a whole number", int),
    "text": ("a string", str),
    "list": ("a list", list),
    "map": ("an object", dict),
}
"""Shape → what to call it, the type of its JSON."""


def _typed(kind: type) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError
        return value

    return parse


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError
    return Path(os.path.normpath(value))


def _optional_path(value: Any) -> str:
    return "" if value == "" else str(_path(value))


def _socket_path(value: Any) -> str:
    path = _optional_path(value)
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError
    return path


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError
    return tuple(value)


def _string_map(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError
    return value


def one_of(*accepted: str) -> Kind:
    """Return the kind of one of a few words."""

    def parse(value: Any) -> str:
        if value not in accepted or not isinstance(value, str):
            raise ValueError
        return value

    return Kind("text", " | ".join(one or '""' for one in accepted), parse)


def whole(minimum: int, maximum: int = 1 << 31) -> Kind:
    """Return the kind of a whole number, at least `minimum` and below `maximum`."""

    def parse(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < maximum:
            raise ValueError
        return value

    return Kind("int", f"a whole number, at least {minimum}", parse)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return units.parse_ram_size(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


def _hosts(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_host(one) for one in _strings(value)))


def _host(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text
    if scheme == "unix" and (not rest or (rest.startswith("/") and len(os.fsencode(rest)) <= MAX_SOCKET_PATH)):
        return f"unix://{rest}"
    if scheme == "fd":
        return "fd://"
    if scheme == "tcp" and (match := re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*)(?::(\d{1,5}))?/?", rest)):
        return f"tcp://{match[1] or '127.0.0.1'}:{match[2] or TLS_PORT}"
    raise ValueError(f"invalid bind address ({text})")


def _labels(value: Any) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for label in _strings(value):
        name, equals, _ = label.partition("=")
        if not name or not equals:
            raise ValueError(f"bad attribute format: {label}")
        if seen.setdefault(name, label) != label:
            raise ValueError(f"conflict labels for {name}={seen[name].partition('=')[2]} and {label}")
    return tuple(dict.fromkeys(value))


def _runtimes(value: Any) -> dict[str, Runtime]:
    return {name: _runtime(name, entry) for name, entry in _typed(dict)(value).items()}


def _runtime(name: str, entry: Any) -> Runtime:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"runtime name {name!r}: letters, digits, '_', '.' and '-'")
    if name == STOCK_RUNTIMES[0]:
        raise ValueError(f"runtime name '{name}' is reserved")
    if isinstance(entry, str):  # --add-runtime NAME=PATH
        entry = {"path": entry}
    if not isinstance(entry, dict) or set(entry) - {"path", "runtimeArgs"}:
        raise ValueError(f"runtime {name!r}: only path and runtimeArgs are known (containerd's shims are not used)")
    path, args = entry.get("path"), entry.get("runtimeArgs") or []
    if not isinstance(path, str) or not path or not isinstance(args, list):
        raise ValueError(f"runtime {name!r}: path must be a string, runtimeArgs a list of strings")
    return Runtime(path, _strings(args))


def _ulimits(value: Any) -> dict[str, tuple[int, int]]:
    return {name: _ulimit(name, entry) for name, entry in _typed(dict)(value).items()}


def _ulimit(name: str, entry: Any) -> tuple[int, int]:
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    if isinstance(entry, str):  # --default-ulimit nofile=1024:2048
        soft, _, hard = entry.partition(":")
        try:
            entry = {"Soft": int(soft), "Hard": int(hard or soft)}
        except ValueError:
            raise ValueError(f"ulimit {name}={entry}: write {name}=SOFT[:HARD]") from None
    if not isinstance(entry, dict) or set(entry) - {"Name", "Soft", "Hard"} or entry.get("Name", name) != name:
        raise ValueError(f"ulimit {name}: an object of Name, Soft and Hard")
    limits = entry.get("Soft", 0), entry.get("Hard", 0)
    if any(not isinstance(one, int) or isinstance(one, bool) or one < -1 for one in limits):
        raise ValueError(f"ulimit {name}: Soft and Hard are whole numbers, -1 for no limit")
    if limits[1] != -1 and (limits[0] == -1 or limits[0] > limits[1]):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {limits[0]} > {limits[1]}")
    return limits


def _address(value: Any) -> str:
    text = str(_typed(str)(value))
    if text:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f"{text} is not an ip address") from None
    return text


def _addresses(value: Any) -> tuple[str, ...]:
    for one in _strings(value):
        if not one or not _address(one):
            raise ValueError
    return tuple(value)


def _interface(value: Any) -> str:
    """Read an address with a prefix length; it is not the subnet's own."""
    text = str(_typed(str)(value))
    if text:
        interface = ipaddress.ip_interface(text)
        if "/" not in text or interface.ip == interface.network.network_address:
            raise ValueError(f"{text} is not an address with its subnet's prefix length")
    return text


def _subnet(value: Any) -> str:
    text = str(_typed(str)(value))
    return str(ipaddress.ip_network(text, strict=False)) if text else ""


def _pools(value: Any) -> tuple[Pool, ...]:
    return tuple(_pool(one) for one in _typed(list)(value))


def _pool(value: Any) -> Pool:
    if isinstance(value, str):  # --default-address-pool base=10.10.0.0/16,size=24
        value = dict(part.partition("=")[::2] for part in value.split(","))
        if str(value.get("size", "")).isdecimal():
            value["size"] = int(value["size"])
    match value:
        case {"base": str(text), "size": int(size), **rest} if not rest and not isinstance(size, bool):
            base = ipaddress.ip_network(text, strict=False)
        case _:
            raise ValueError
    if not base.prefixlen <= size <= base.max_prefixlen - 2:
        raise ValueError(f"size {size} of {base}: from {base.prefixlen} to {base.max_prefixlen - 2}")
    return Pool(base, size)


def _url(text: str) -> SplitResult:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment or not text.isprintable():
        raise ValueError
    return url


def _mirrors(value: Any) -> tuple[str, ...]:
    for one in _strings(value):
        if _url(one).username is not None:
            raise ValueError("a mirror's URL can't have a user's name in it")
    return tuple(one.rstrip("/") for one in value)


def _insecure(value: Any) -> tuple[str, ...]:
    for one in _strings(value):
        try:
            ipaddress.ip_network(one, strict=False)
        except ValueError:
            if re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?", one) is None:
                raise ValueError(f"insecure registry {one} is not valid: host, host:port or a subnet") from None
    return tuple(value)


def _proxies(value: Any) -> Proxies:
    given = {name.replace("-", "_"): text for name, text in _string_map(value).items()}
    if unknown := given.keys() - set(Proxies._fields):
        raise ValueError(f"unknown {', '.join(sorted(name.replace('_', '-') for name in unknown))}")
    for name in given.keys() - {"no_proxy"}:
        if given[name]:
            _url(given[name])
    return Proxies(**given)


def _words(value: Any) -> tuple[str, ...]:
    if any(not one or not one.isprintable() or " " in one for one in _strings(value)):
        raise ValueError
    return tuple(value)


def _paths(value: Any) -> tuple[str, ...]:
    return tuple(str(_path(one)) for one in _strings(value))


def _listen_address(value: Any) -> str:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*):(\d{1,5})", _typed(str)(value))
    if value and (match is None or int(match[2]) > MAX_PORT):
        raise ValueError
    return str(value)


def _label_names(value: Any) -> tuple[str, ...]:
    if not all(_strings(value)):
        raise ValueError
    return tuple(dict.fromkeys(value))


def _group(value: Any) -> str:
    text = str(_typed(str)(value))
    if text.isdecimal() and int(text) > MAX_GID:
        raise ValueError
    return text


def _exec_opts(value: Any) -> tuple[str, ...]:
    for one in _strings(value):
        name, _, driver = one.partition("=")
        if name != "native.cgroupdriver":
            raise ValueError(f"unknown option {name!r} (known: native.cgroupdriver)")
        if driver != "cgroupfs":
            raise ValueError(f"native.cgroupdriver={driver}: logd manages cgroups itself (accepted: cgroupfs)")
    return tuple(value)


def _cgroup_parent(value: Any) -> str:
    text = str(_typed(str)(value))
    if not text.isprintable():
        raise ValueError("only printable characters")
    if text.endswith(".slice"):
        raise ValueError("a slice needs the systemd cgroup driver, which logd does not use")
    if ".." in text.split("/"):
        raise ValueError("no '..'")
    return text


TEXT: Final = Kind("text", "a string", _typed(str))
BOOLEAN: Final = Kind("bool", "true or false", _typed(bool))
PATH: Final = Kind("text", "an absolute path", _path)
PATHS: Final = Kind("list", "a list of absolute paths", _paths)
STRINGS: Final = Kind("list", "a list of strings", _strings)
HOSTS: Final = Kind("list", "a list of unix:///path, fd:// or tcp://address:port", _hosts)
STRING_MAP: Final = Kind("map", "an object of strings", _string_map)
RAM_SIZE: Final = Kind("text", 'a size in bytes, such as 67108864 or "64m"', _size)
SOCKET_PATH: Final = Kind(
    "text", f"an absolute path of at most {MAX_SOCKET_PATH} bytes, or an empty string", _socket_path
)
FILE_PATH: Final = Kind("text", "an absolute path, or an empty string", _optional_path)
RUNTIMES: Final = Kind("map", 'an object such as {"name": {"path": "/usr/bin/crun", "runtimeArgs": []}}', _runtimes)
ULIMIT_MAP: Final = Kind(
    "map", 'an object such as {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 2048}}', _ulimits
)
LABELS: Final = Kind("list", "a list of key=value strings", _labels)
GROUP: Final = Kind("text", f"a group's name, or its number up to {MAX_GID}", _group)
LISTEN_ADDRESS: Final = Kind("text", 'address:port, [IPv6 address]:port or :port, "" for none', _listen_address)
ADDRESS: Final = Kind("text", "an IP address", _address)
ADDRESSES: Final = Kind("list", "a list of IP addresses", _addresses)
INTERFACE: Final = Kind("text", "an address with a prefix length, such as 10.10.0.1/24", _interface)
SUBNET: Final = Kind("text", "a subnet such as 10.10.0.0/24", _subnet)
POOLS: Final = Kind("list", 'a list such as [{"base": "10.10.0.0/16", "size": 24}]', _pools)
MIRRORS: Final = Kind("list", "a list of URLs such as https://mirror.example", _mirrors)
INSECURE: Final = Kind("list", "a list of host, host:port and subnets", _insecure)
PROXIES: Final = Kind(
    "map",
    'an object such as {"http-proxy": "http://proxy.example:3128", "https-proxy": …, "no-proxy": "localhost,.example"}',
    _proxies,
)
WORDS: Final = Kind("list", "a list of words without spaces", _words)
LABEL_NAMES: Final = Kind("list", "a list of labels' names", _label_names)
CGROUP: Final = Kind("text", "the path of a cgroup", _cgroup_parent)
EXEC_OPTS: Final = Kind("list", '["native.cgroupdriver=cgroupfs"]', _exec_opts)
