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


def apply(
    changes: Sequence[str], base: Mapping[str, Any] | None = None, arguments: Mapping[str, str] = EMPTY
) -> dict[str, Any]:
    """Return the config (Docker's JSON names) that these instructions make of `base`. Raises InvalidParameter.

    `arguments` are variables that stand for something besides those of the config's Env.
    """
    config: dict[str, Any] = {key: value for key, value in copy.deepcopy(dict(base or {})).items() if value is not None}
    has_command = False
    for line in _lines("\n".join(changes)):
        word, _, rest = line.partition(" ")
        instruction = _INSTRUCTIONS.get(word.lower())
        if instruction is None:
            raise InvalidParameter(f"{word} is not a valid change command (accepted: {', '.join(_ACCEPTED)})")
        if not rest.strip():
            raise InvalidParameter(f"{word.upper()} requires at least one argument")
        instruction(Scope(config, arguments), rest.strip())
        has_command = has_command or instruction is _cmd
        if instruction is _entrypoint and not has_command:
            config.pop("Cmd", None)  # the command that was there was meant for the entrypoint that was there
    return config


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
    """What an instruction works on: the config, and the build's arguments, over which the config's Env goes."""

    config: dict[str, Any]
    arguments: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """What variables stand for."""
        return {**self.arguments, **dict(entry.split("=", 1) for entry in self.config.get("Env") or [])}


def _pairs(name: str, text: str, scope: Scope) -> list[tuple[str, str]]:
    """Return the pairs of `NAME=value …` or of the old form `NAME value`."""
    first, variables = text.split(maxsplit=1), scope.variables
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidParameter(f"{name} must have two arguments")
        pairs = [(first[0], expand(first[1], variables))]
    else:
        pairs = []
        for word in split(text):
            key, equals, value = word.partition("=")
            if not equals:
                problem = f"can't find = in {orjson.dumps(word).decode()}. Must be of the form: name=value"
                raise InvalidParameter(f"Syntax error - {problem}")
            pairs.append((expand(key, variables), expand(value, variables)))
    if any(not key for key, _ in pairs):
        raise InvalidParameter(f"{name} names can not be blank")
    return pairs


def _env(scope: Scope, text: str) -> None:
    env = dict(entry.split("=", 1) for entry in scope.config.get("Env") or [])
    env.update(_pairs("ENV", text, scope))
    scope.config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _label(scope: Scope, text: str) -> None:
    scope.config.setdefault("Labels", {}).update(_pairs("LABEL", text, scope))


def _cmd(scope: Scope, text: str) -> None:
    words = _json_list(text)
    scope.config["Cmd"] = [*shell_of(scope.config), text] if words is None else words


def _entrypoint(scope: Scope, text: str) -> None:
    words = _json_list(text)
    scope.config["Entrypoint"] = [*shell_of(scope.config), text] if words is None else words or None


def _user(scope: Scope, text: str) -> None:
    words = expand_words(text, scope.variables)
    if len(words) != 1:
        raise InvalidParameter("USER requires exactly one argument")
    scope.config["User"] = words[0]


def _workdir(scope: Scope, text: str) -> None:
    path = posixpath.join(scope.config.get("WorkingDir") or "/", expand(text, scope.variables))
    scope.config["WorkingDir"] = posixpath.normpath("/" + path.lstrip("/"))


def _stopsignal(scope: Scope, text: str) -> None:
    words = expand_words(text, scope.variables)
    if len(words) != 1:
        raise InvalidParameter("STOPSIGNAL requires exactly one argument")
    scope.config["StopSignal"] = words[0]


def _volume(scope: Scope, text: str) -> None:
    for word in _json_list(text) or text.split():
        path = expand(word, scope.variables).strip()
        if not path:
            raise InvalidParameter("VOLUME specified can not be an empty string")
        scope.config.setdefault("Volumes", {})[path] = {}


def _expose(scope: Scope, text: str) -> None:
    for word in expand_words(text, scope.variables):
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
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "healthcheck": _healthcheck,
    "label": _label,
    "onbuild": _onbuild,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
_ACCEPTED: Final = [name.upper() for name in _INSTRUCTIONS]
