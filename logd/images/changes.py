"""`docker import --change`, `docker commit --change`: Dockerfile instructions that alter a config, and nothing else.

Source: the Dockerfile reference; where it is silent, what BuildKit's parser does. Messages are Docker's.
"""

import copy
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from logd import units
from logd.errors import InvalidParameter

SHELL: Final = ["/bin/sh", "-c"]
MIN_INTERVAL_NS: Final = 1_000_000
"""Docker's shortest interval of a health check."""
_PORT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)
_VARIABLE: Final = re.compile(r"\\(.)|\$(\w+)|\$\{(\w+)(?:(:?[-+])([^}]*))?\}", re.ASCII)
_FLAG: Final = re.compile(r"--([a-z-]+)=(\S*)\s*")
_DURATIONS: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def apply(changes: Sequence[str], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the config (Docker's JSON names) that these instructions make of `base`. Raises InvalidParameter."""
    config: dict[str, Any] = {key: value for key, value in copy.deepcopy(dict(base or {})).items() if value is not None}
    has_command = False
    for line in _lines("\n".join(changes)):
        word, _, rest = line.partition(" ")
        instruction = _INSTRUCTIONS.get(word.lower())
        if instruction is None:
            raise InvalidParameter(f"{word} is not a valid change command (accepted: {', '.join(_ACCEPTED)})")
        if not rest.strip():
            raise InvalidParameter(f"{word.upper()} requires at least one argument")
        instruction(config, rest.strip())
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


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidParameter(f"unexpected end of statement while looking for matching quote: {text}") from error


def _expand(text: str, config: dict[str, Any]) -> str:
    """Replace $NAME, ${NAME}, ${NAME:-word} and ${NAME:+word} by what earlier ENV instructions set."""
    known: dict[str, str] = dict(entry.split("=", 1) for entry in config.get("Env", []))

    def value(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[0] if match[1] != "$" else "$"
        name, operator, word = match[2] or match[3], match[4], match[5]
        there = bool(known.get(name)) if operator and operator[0] == ":" else name in known
        if operator and operator[-1] == "-":
            return known[name] if there else str(word)
        if operator:
            return str(word) if there else ""
        return known.get(name, "")

    return _VARIABLE.sub(value, text)


def _pairs(name: str, text: str, config: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of `NAME=value …` or of the old form `NAME value`."""
    first = text.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidParameter(f"{name} must have two arguments")
        pairs = [(first[0], _unquoted(_expand(first[1], config)))]
    else:
        pairs = []
        for word in _words(_expand(text, config)):
            key, equals, value = word.partition("=")
            if not equals:
                problem = f"can't find = in {orjson.dumps(word).decode()}. Must be of the form: name=value"
                raise InvalidParameter(f"Syntax error - {problem}")
            pairs.append((key, value))
    if any(not key for key, _ in pairs):
        raise InvalidParameter(f"{name} names can not be blank")
    return pairs


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _env(config: dict[str, Any], text: str) -> None:
    env = dict(entry.split("=", 1) for entry in config.get("Env", []))
    env.update(_pairs("ENV", text, config))
    config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _label(config: dict[str, Any], text: str) -> None:
    config.setdefault("Labels", {}).update(_pairs("LABEL", text, config))


def _cmd(config: dict[str, Any], text: str) -> None:
    words = _json_list(text)
    config["Cmd"] = [*SHELL, text] if words is None else words


def _entrypoint(config: dict[str, Any], text: str) -> None:
    words = _json_list(text)
    config["Entrypoint"] = [*SHELL, text] if words is None else words or None


def _user(config: dict[str, Any], text: str) -> None:
    words = _words(_expand(text, config))
    if len(words) != 1:
        raise InvalidParameter("USER requires exactly one argument")
    config["User"] = words[0]


def _workdir(config: dict[str, Any], text: str) -> None:
    path = posixpath.join(config.get("WorkingDir") or "/", _unquoted(_expand(text, config)))
    config["WorkingDir"] = posixpath.normpath("/" + path.lstrip("/"))


def _stopsignal(config: dict[str, Any], text: str) -> None:
    words = _words(_expand(text, config))
    if len(words) != 1:
        raise InvalidParameter("STOPSIGNAL requires exactly one argument")
    config["StopSignal"] = words[0]


def _volume(config: dict[str, Any], text: str) -> None:
    for word in _json_list(text) or text.split():
        path = _expand(word, config).strip()
        if not path:
            raise InvalidParameter("VOLUME specified can not be an empty string")
        config.setdefault("Volumes", {})[path] = {}


def _expose(config: dict[str, Any], text: str) -> None:
    for word in _words(_expand(text, config)):
        match = _PORT.fullmatch(word)
        if match is None or not 0 < int(match[1]) <= int(match[2] or match[1]) <= 65535:
            raise InvalidParameter(f"invalid containerPort: {word} (write 80, 80/udp or 8000-8010)")
        for port in range(int(match[1]), int(match[2] or match[1]) + 1):
            config.setdefault("ExposedPorts", {})[f"{port}/{match[3] or 'tcp'}"] = {}


def _onbuild(config: dict[str, Any], text: str) -> None:
    trigger = text.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in {"MAINTAINER", "FROM"}:
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    config.setdefault("OnBuild", []).append(text)


def _healthcheck(config: dict[str, Any], text: str) -> None:
    check: dict[str, Any] = {}
    while match := _FLAG.match(text):
        _healthcheck_flag(check, match[1], match[2])
        text = text[match.end() :]
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    if kind.upper() == "NONE":
        if rest:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD":
        raise InvalidParameter(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    words = _json_list(rest)
    if not rest or words == []:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    check["Test"] = ["CMD-SHELL", rest] if words is None else ["CMD", *words]
    config["Healthcheck"] = check


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


_INSTRUCTIONS: Final[dict[str, Callable[[dict[str, Any], str], None]]] = {
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
