"""The values of Go templates, how they print, and the functions that log tags may call.

Source: https://pkg.go.dev/text/template (functions), https://pkg.go.dev/fmt (printing), and Docker's own eight:
json, split, join, title, lower, upper, pad, truncate. Go counts a string's bytes, so len, index and truncate do.

A value is str, int, float, bool, a tuple or dict of values, Moment, None (Go's nil) or NO_VALUE (of a key that is not
there).
"""

import itertools
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from logd import units

Value = Any
"""One of the types above; it is checked where it is used, as in Go."""
MAX_BYTES: Final = 1 << 16
"""All the text that one evaluation may make, so that no template runs away. A tag is a line's name, not a document."""
ANY: Final = "any"
BASIC: Final = frozenset(("string", "int", "bool"))
_WORD: Final = re.compile(r"(?:[A-Za-z0-9_]|[^\x00-\x7f\s])+")
_VERB: Final = re.compile(r"%(?:([-0]?)([0-9]{0,3})(?:\.([0-9]{0,3}))?([a-zA-Z])|%)|%", re.ASCII)
_VERBS: Final = {
    "s": frozenset(("string",)),
    "v": frozenset(("string", "int", "bool", "float", "list", "map", "time", "nil", "nothing", ANY)),
    "d": frozenset(("int",)),
    "x": frozenset(("string", "int")),
    "X": frozenset(("string", "int")),
    "t": frozenset(("bool",)),
}


class Moment(int):
    """Go's time.Time in UTC, in nanoseconds since 1970; 0 is Go's zero time."""


class NoValue:
    """Go's invalid value."""


NO_VALUE: Final = NoValue()
_KINDS: Final[Mapping[type, str]] = {
    str: "string",
    int: "int",
    bool: "bool",
    float: "float",
    tuple: "list",
    dict: "map",
    Moment: "time",
    type(None): "nil",
    NoValue: "nothing",
}


def kind_of(value: Value) -> str:
    """Return the word for a value's type."""
    return _KINDS[type(value)]


def truth(value: Value) -> bool:
    """Tell whether `if` takes a value for true: it is not zero, empty or nil."""
    return type(value) is Moment or (type(value) is not NoValue and bool(value))


def show(value: Value) -> str:
    """Return a value as Go prints it (`%v`)."""
    match kind_of(value):
        case "string":
            return str(value)
        case "bool":
            return "true" if value else "false"
        case "list":
            return f"[{' '.join(map(show, value))}]"
        case "map":
            return f"map[{' '.join(f'{key}:{show(value[key])}' for key in sorted(value))}]"
        case "time":
            return units.format_time_short(value).replace("T", " ").replace("Z", " +0000 UTC")
        case "nil" | "nothing":
            return "<nil>"
    return str(value)


def encoded(text: str) -> bytes:
    """Return a string's bytes; it may hold what UTF-8 can't say."""
    return text.encode("utf-8", "replace")


class Function(NamedTuple):
    """A function: the kinds of its parameters, that of any further ones (None: there are none), and of its result."""

    parameters: tuple[str, ...]
    rest: str | None
    result: str
    call: Callable[..., Value]


def check_arguments(name: str, function: Function, kinds: Sequence[str]) -> None:
    """Raise ValueError, in Go's words, if arguments of these kinds don't suit a function. "any" is not known yet."""
    wanted = len(function.parameters)
    if len(kinds) < wanted or (len(kinds) > wanted and function.rest is None):
        least = "at least " if function.rest is not None else ""
        raise ValueError(f"wrong number of args for {name}: want {least}{wanted} got {len(kinds)}")
    expectations = itertools.chain(function.parameters, itertools.repeat(function.rest))
    for kind, expected in zip(kinds, expectations, strict=False):
        if expected != kind and ANY not in {kind, expected}:
            raise ValueError(f"wrong type for value; expected {expected}; got {kind}")


def check_format(template: str, kinds: Sequence[str]) -> None:
    """Raise ValueError if arguments of these kinds don't suit a format of printf."""
    verbs = [match for match in _VERB.finditer(template) if match[0] != "%%"]
    for match in verbs:
        flag, _, precision, verb = match.groups()
        if verb not in _VERBS or (flag == "0" and verb != "d") or (precision is not None and verb in "xXt"):
            raise ValueError(f"printf: {template[match.start() :][:8]!r} is not supported (%s, %v, %d, %x, %X, %t are)")
    if len(verbs) != len(kinds):
        raise ValueError(f"printf: {template!r} wants {len(verbs)} values, got {len(kinds)}")
    for match, kind in zip(verbs, kinds, strict=True):
        simple = kind in BASIC or match[0] == "%v"
        if kind != ANY and not (simple and kind in _VERBS[match[4]]):
            raise ValueError(f"printf: {match[0]} can't show a value of type {kind}")


def _printf(template: str, *values: Value) -> str:
    check_format(template, [kind_of(value) for value in values])
    remaining = iter(values)

    def fill(match: "re.Match[str]") -> str:
        if match[0] == "%%":
            return "%"
        flag, width, precision, verb = match.groups()
        value = next(remaining)
        if verb in "xX":
            text = format(value, verb) if type(value) is int else encoded(value).hex()
            text = text.upper() if verb == "X" else text
        else:
            text = show(value)
        if type(value) is int:
            digits = text.removeprefix("-").zfill(int(precision or 0))
            text = f"-{digits}" if text.startswith("-") else digits
        elif precision is not None and type(value) is str:
            text = text[: int(precision or 0)]
        if flag == "-":
            return text.ljust(int(width or 0))
        return text.zfill(int(width or 0)) if flag == "0" and precision is None else text.rjust(int(width or 0))

    return _VERB.sub(fill, template)


def _print(*values: Value) -> str:
    parts = [show(value) for value in values[:1]]
    for before, value in itertools.pairwise(values):
        parts.append(show(value) if str in {type(before), type(value)} else f" {show(value)}")
    return "".join(parts)


def _json(value: Value) -> str:
    if type(value) is Moment:
        return f'"{units.format_time_short(value)}"'
    if value is NO_VALUE:
        return "null"
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _length(value: Value) -> int:
    if type(value) is str:
        return len(encoded(value))
    if type(value) not in {tuple, dict}:
        raise ValueError(f"len of type {kind_of(value)}")
    return len(value)


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        if type(value) is dict and type(key) is str:
            value = value.get(key, "")
            continue
        if type(value) not in {str, tuple} or type(key) is not int:
            raise ValueError(f"can't index {kind_of(value)} by {kind_of(key)}")
        items = encoded(value) if type(value) is str else value
        if not 0 <= key < len(items):
            raise ValueError(f"index out of range: {key}")
        value = items[key]
    return value


def _split(text: str, separator: str) -> tuple[str, ...]:
    return tuple(text.split(separator)) if separator else tuple(text)


def _join(items: tuple[str, ...], separator: str) -> str:
    if sum(map(len, items)) + len(separator) * (len(items) - 1) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return separator.join(items)


def _pad(text: str, before: int, after: int) -> str:
    if min(before, after) < 0:
        raise ValueError("negative repeat count")
    if text and before + after > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    if length < 0:
        raise ValueError(f"slice bounds out of range [:{length}]")
    return encoded(text)[:length].decode("utf-8", "ignore")  # a character that was cut in two goes whole


def _upper(text: str) -> str:
    return "".join(_single(character, character.upper(), character.title()) for character in text)


def _lower(text: str) -> str:
    return "".join(_single(character, character.lower()[:1]) for character in text)


def _title(text: str) -> str:
    return _WORD.sub(lambda word: _single(word[0][0], word[0][0].title()) + word[0][1:], text)


def _single(character: str, *mapped: str) -> str:
    """Return the first mapping that is one character, as Go's are: the one of ß is ß, not SS."""
    return next((one for one in mapped if len(one) == 1), character)


def _equal(first: Value, second: Value) -> bool:
    for value in first, second:
        if kind_of(value) in {"list", "map"}:
            raise ValueError(f"non-comparable type {kind_of(value)}")
    if {first, second} & {None, NO_VALUE}:
        return {first, second} <= {None, NO_VALUE}
    if kind_of(first) != kind_of(second):
        raise ValueError("incompatible types for comparison")
    return bool(first == second)


def _equals_one(first: Value, *others: Value) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    return any(_equal(first, other) for other in others)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Value, Value], bool]:
    def call(first: Value, second: Value) -> bool:
        if kind_of(first) != kind_of(second) or kind_of(first) not in {"string", "int"}:
            raise ValueError("incompatible types for comparison")
        return compare(first, second)

    return call


FUNCTIONS: Final[Mapping[str, Function]] = {
    "json": Function((ANY,), None, "string", _json),
    "split": Function(("string", "string"), None, "list", _split),
    "join": Function(("list", "string"), None, "string", _join),
    "title": Function(("string",), None, "string", _title),
    "lower": Function(("string",), None, "string", _lower),
    "upper": Function(("string",), None, "string", _upper),
    "pad": Function(("string", "int", "int"), None, "string", _pad),
    "truncate": Function(("string", "int"), None, "string", _truncate),
    "index": Function((ANY,), ANY, ANY, _index),
    "len": Function((ANY,), None, "int", _length),
    "print": Function((), ANY, "string", _print),
    "printf": Function(("string",), ANY, "string", _printf),
    "not": Function((ANY,), None, "bool", lambda value: not truth(value)),
    "eq": Function((ANY,), ANY, "bool", _equals_one),
    "ne": Function((ANY, ANY), None, "bool", lambda first, second: not _equal(first, second)),
    "lt": Function((ANY, ANY), None, "bool", _ordered(operator.lt)),
    "le": Function((ANY, ANY), None, "bool", _ordered(operator.le)),
    "gt": Function((ANY, ANY), None, "bool", _ordered(operator.gt)),
    "ge": Function((ANY, ANY), None, "bool", _ordered(operator.ge)),
}
"""By name. `and` and `or`, which leave out what no longer matters, are the template's own."""
