"""What the history of an image says of the instructions that made it, in the words of Docker's builder, version 1.

Values are shown as they were understood: variables replaced, quotes gone. Lists are in the notation of Go.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from logd import units
from logd.images.changes import Scope, pairs, shell_of

NOP: Final = "#(nop) "
"""Marks what did not run."""


def created_by(config: Mapping[str, Any], comment: str) -> str:
    """Return the entry for what only changed settings; `config` has the shell that would have run a command."""
    return " ".join([*shell_of(config), NOP, comment])


def created_by_files(config: Mapping[str, Any], comment: str) -> str:
    """Return the entry for what changed files without a command."""
    return " ".join([*shell_of(config), NOP + comment])


def created_by_command(command: Sequence[str], arguments: Mapping[str, str], *, has_arguments: bool) -> str:
    """Return the entry for a RUN, with the arguments that it saw."""
    shown = [f"{name}={value}" for name, value in sorted(arguments.items())]
    return " ".join([*([f"|{len(shown)}", *shown] if has_arguments else []), *command])


def comment_on(keyword: str, text: str, before: Scope, after: Mapping[str, Any]) -> str:
    """Return what an instruction did: `before` is what it worked on, `after` the config that it made."""
    match keyword:
        case "ENV" | "LABEL":
            said = " ".join(f"{key}={value}" for key, value in pairs(keyword, text, before))
        case "CMD":
            said = _quoted_list(after["Cmd"])
        case "ENTRYPOINT":
            said = _quoted_list(after["Entrypoint"] or [])
        case "EXPOSE":
            said = " ".join(sorted(before.expand_words(text)))
        case "VOLUME":
            known = before.config.get("Volumes") or {}
            said = f"[{' '.join(path for path in after['Volumes'] if path not in known)}]"
        case "USER":
            said = after["User"]
        case "STOPSIGNAL":
            said = after["StopSignal"]
        case "WORKDIR":
            said = after["WorkingDir"]
        case "SHELL":
            said = f"[{' '.join(after['Shell'])}]"
        case "HEALTHCHECK":
            said = _health_check(after["Healthcheck"])
        case _:
            said = text
    return f"{keyword} {said}"


def _health_check(check: Mapping[str, Any]) -> str:
    times = [
        units.format_duration(check.get(name, 0)) for name in ("Interval", "Timeout", "StartPeriod", "StartInterval")
    ]
    return f"&{{{_quoted_list(check['Test'])} {_quoted(times)} '\\x{check.get('Retries', 0):02x}'}}"


def _quoted_list(words: Sequence[str]) -> str:
    return f"[{_quoted(words)}]"


def _quoted(words: Sequence[str]) -> str:
    return " ".join(orjson.dumps(word).decode() for word in words)
