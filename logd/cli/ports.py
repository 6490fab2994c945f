"""`-p` and `--expose`: which ports of a container are published where, as docker writes them.

80   8080:80   127.0.0.1:8080:80   127.0.0.1::80   [::1]:8080:80   8000-8002:80-82   8000-8010:80   53:53/udp
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from logd.errors import InvalidParameter

PROTOCOLS: Final = ("tcp", "udp", "sctp")
FORMS: Final = "write [[ADDRESS:]HOST_PORT:]PORT[/tcp|udp|sctp], ports also as FIRST-LAST"
_PUBLISH: Final = re.compile(r"(?:(?:(\[[^\]]*\]|[^:\[\]]*):)?([^:]*):)?([^:/]*)(?:/([^/]*))?")
_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
HIGHEST: Final = 65535


def port_bindings(words: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Return HostConfig's PortBindings. Raises InvalidParameter."""
    found: dict[str, list[dict[str, str]]] = {}
    for word in words:
        match = _PUBLISH.fullmatch(word)
        if match is None:
            raise InvalidParameter(f"--publish: invalid value {word!r} ({FORMS})")
        address, outside, inside, protocol = match.groups()
        first, last = _span("--publish", word, inside)
        host = _span("--publish", word, outside) if outside else None
        if host and first != last and host[1] - host[0] != last - first:
            raise InvalidParameter(f"--publish: {word!r} has ranges of different lengths")
        for port in range(first, last + 1):
            place = ""
            if host:
                place = outside if first == last else str(host[0] + port - first)
            binding = {"HostIp": (address or "").strip("[]"), "HostPort": place}
            found.setdefault(f"{port}/{_protocol('--publish', word, protocol)}", []).append(binding)
    return found


def exposed_ports(words: Iterable[str], published: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return Config's ExposedPorts: those of `--expose` and those that are published. Raises InvalidParameter."""
    found: dict[str, dict[str, str]] = {}
    for word in words:
        numbers, slash, protocol = word.partition("/")
        first, last = _span("--expose", word, numbers)
        for port in range(first, last + 1):
            found[f"{port}/{_protocol('--expose', word, protocol if slash else None)}"] = {}
    return found | {port: {} for port in published}


def _span(option: str, word: str, text: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(text)
    first = int(match[1]) if match else -1
    last = int(match[2] or first) if match else -1
    if not 0 <= first <= last <= HIGHEST:
        raise InvalidParameter(f"{option}: invalid port {text!r} in {word!r} ({FORMS})")
    return first, last


def _protocol(option: str, word: str, text: str | None) -> str:
    protocol = "tcp" if text is None else text.lower()
    if protocol not in PROTOCOLS:
        raise InvalidParameter(f"{option}: invalid protocol {text!r} in {word!r} (tcp, udp or sctp)")
    return protocol
