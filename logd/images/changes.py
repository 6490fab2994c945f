"""`docker import --change`, `docker commit --change`: Dockerfile instructions that alter a config, and nothing else.

Source: the Dockerfile reference; where it is silent, what BuildKit's parser does. Messages are Docker's.
"""

import copy
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from logd import units
from logd.errors import InvalidParameter
from logd.images.shellwords import expand, expand_words, split

SHELL: Final = ["/bin/sh", "-c"]
EMPTY: Final[Mapping[str, str]] = MappingProxyType({})
MIN_INTERVAL_NS: Final = 1_000_000
"""Docker's shortest interval of a health check."""
_PORT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)
_FLAG: Final = re.compile(r"--([a-z-]+)=(\S*)\s*")
_DURATIONS: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def shell_of(config: Mapping[str, Any]) -> list[str]:
    """Return what runs a command that is given as one text."""
    return config.get("Shell") or SHELL


def apply(changes: Sequence[str], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the config (Docker's JSON names) that these instructions make of `base`. Raises InvalidParameter."""
    config = copied(base or {})
    has_command = False
    for line in _lines("\n".join(changes)):
        word, _, rest = line.partition(" ")
        keyword = word.upper()
        if keyword not in _INSTRUCTIONS:
            raise InvalidParameter(f"{word} is not a valid change command (accepted: {', '.join(_INSTRUCTIONS)})")
        if not rest.strip():
            raise InvalidParameter(f"{keyword} requires at least one argument")
        change(keyword, rest.strip(), Scope(config))
        has_command = has_command or keyword == "CMD"
        if keyword == "ENTRYPOINT" and not has_command:
            config.pop("Cmd", None)  # the command that was there was meant for the entrypoint that was there
    return config


def copied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that may be changed, without what is null."""
    return {key: value for key, value in copy.deepcopy(dict(config)).items() if value is not None}


def change(keyword: str, text: str, scope: "Scope") -> None:
    """Alter the config of `scope` by one instruction. Raises InvalidParameter."""
    _INSTRUCTIONS[keyword](scope, text)


def _lines(text: str) -> list[str]:
    """Return the instructions: comments gone, continued lines joined, the first blank a space."""
    lines, pending = [], ""
    for line in text.splitlines():
        if not pending and line.lstrip().startswith("#"):
            continue
        pending += line
        if pending.rstrip().endswith("\\"):
            pending = pending.rstrip()[:-1]
            continue
        if pending.strip():
            lines.append(" ".join(pending.strip().split(maxsplit=1)))
        pending = ""
    if pending.strip():
        lines.append(" ".join(pending.strip().split(maxsplit=1)))
    return lines


def _json_list(text: str) -> list[str] | None:
    """Return the strings of a JSON array, None if it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise InvalidParameter("when using JSON array syntax, arrays must be comprised of strings only")
    return value


class Scope(NamedTuple):
    """What instructions work on: the config, the build's arguments, over which its Env goes, what quotes a letter."""

    config: dict[str, Any]
    arguments: Mapping[str, str] = EMPTY
    escape: str = "\\"

    @property
    def variables(self) -> dict[str, str]:
        """What variables stand for."""
        return {**self.arguments, **dict(entry.split("=", 1) for entry in self.config.get("Env") or [])}

    def expand(self, text: str) -> str:
        """Return a text as one word."""
        return expand(text, self.variables, self.escape)

    def expand_words(self, text: str) -> list[str]:
        """Return a text as words."""
        return expand_words(text, self.variables, self.escape)


def pairs(name: str, text: str, scope: Scope) -> list[tuple[str, str]]:
    """Return the pairs of an ENV or LABEL as they are meant. Raises InvalidParameter."""
    found = written_pairs(name, text, scope.escape)
    expanded = [(scope.expand(key), scope.expand(value)) for key, value in found]
    if any(not key for key, _ in expanded):
        raise InvalidParameter(f"{name} names can not be blank")
    return expanded


def written_pairs(name: str, text: str, escape: str) -> list[tuple[str, str]]:
    """Return the pairs of `NAME=value …` or of the old form `NAME value`, as they are written."""
    first = text.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidParameter(f"{name} must have two arguments")
        return [(first[0], first[1])]
    found = []
    for word in split(text, escape):
        key, equals, value = word.partition("=")
        if not equals:
            problem = f"can't find = in {orjson.dumps(word).decode()}. Must be of the form: name=value"
            raise InvalidParameter(f"Syntax error - {problem}")
        found.append((key, value))
    return found


def _env(scope: Scope, text: str) -> None:
    env = dict(entry.split("=", 1) for entry in scope.config.get("Env") or [])
    env.update(pairs("ENV", text, scope))
    scope.config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _label(scope: Scope, text: str) -> None:
    scope.config.setdefault("Labels", {}).update(pairs("LABEL", text, scope))


def _cmd(scope: Scope, text: str) -> None:
    words = _json_list(text)
    scope.config["Cmd"] = [*shell_of(scope.config), text] if words is None else words


def _entrypoint(scope: Scope, text: str) -> None:
    words = _json_list(text)
    scope.config["Entrypoint"] = [*shell_of(scope.config), text] if words is None else words or None


def _user(scope: Scope, text: str) -> None:
    words = scope.expand_words(text)
    if len(words) != 1:
        raise InvalidParameter("USER requires exactly one argument")
    scope.config["User"] = words[0]


def _workdir(scope: Scope, text: str) -> None:
    path = posixpath.join(scope.config.get("WorkingDir") or "/", scope.expand(text))
    scope.config["WorkingDir"] = posixpath.normpath("/" + path.lstrip("/"))


def _stopsignal(scope: Scope, text: str) -> None:
    words = scope.expand_words(text)
    if len(words) != 1:
        raise InvalidParameter("STOPSIGNAL requires exactly one argument")
    scope.config["StopSignal"] = words[0]


def _volume(scope: Scope, text: str) -> None:
    for word in _json_list(text) or text.split():
        path = scope.expand(word).strip()
        if not path:
            raise InvalidParameter("VOLUME specified can not be an empty string")
        scope.config.setdefault("Volumes", {})[path] = {}


def _expose(scope: Scope, text: str) -> None:
    for word in scope.expand_words(text):
        match = _PORT.fullmatch(word)
        if match is None or not 0 < int(match[1]) <= int(match[2] or match[1]) <= 65535:
            raise InvalidParameter(f"invalid containerPort: {word} (write 80, 80/udp or 8000-8010)")
        for port in range(int(match[1]), int(match[2] or match[1]) + 1):
            scope.config.setdefault("ExposedPorts", {})[f"{port}/{match[3] or 'tcp'}"] = {}


def _onbuild(scope: Scope, text: str) -> None:
    trigger = text.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in {"MAINTAINER", "FROM"}:
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    scope.config.setdefault("OnBuild", []).append(text)


def _healthcheck(scope: Scope, text: str) -> None:
    check: dict[str, Any] = {}
    while match := _FLAG.match(text):
        _healthcheck_flag(check, match[1], match[2])
        text = text[match.end() :]
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    if kind.upper() == "NONE":
        if rest:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        scope.config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD":
        raise InvalidParameter(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    words = _json_list(rest)
    if not rest or words == []:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    check["Test"] = ["CMD-SHELL", rest] if words is None else ["CMD", *words]
    scope.config["Healthcheck"] = check


def _healthcheck_flag(check: dict[str, Any], flag: str, value: str) -> None:
    try:
        if flag == "retries":
            check["Retries"] = int(value)
        elif flag in _DURATIONS:
            check[_DURATIONS[flag]] = units.parse_duration(value)
        else:
            raise InvalidParameter(f"unknown flag: {flag}")
    except ValueError as error:
        raise InvalidParameter(f"--{flag}: {error}") from error
    if flag == "retries" and check["Retries"] < 0:
        raise InvalidParameter(f"--retries cannot be negative ({value})")
    if flag in _DURATIONS and check[_DURATIONS[flag]] not in {0} and check[_DURATIONS[flag]] < MIN_INTERVAL_NS:
        raise InvalidParameter(f'Interval "{flag}" cannot be less than 1ms')


_INSTRUCTIONS: Final[dict[str, Callable[[Scope, str], None]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
