"""Read fields out of lines, for destinations with structure: the log-opt `parse`, json or logfmt.

The line stays as it is. One that can't be read has no fields.

Source: RFC 8259; https://brandur.org/logfmt and https://pkg.go.dev/github.com/kr/logfmt for logfmt, of which a key
without a value is true. As any text is a list of such keys, a line counts as logfmt only if it has a pair.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from logd.batch import ContainerInfo
from logd.driver import one_of
from logd.hookspecs import hookimpl
from logd.processor import Group, Item, Processor, ProcessorFactory, opt

Fields = dict[str, Any]
MAX_LEVELS: Final = 32
"""Of objects and arrays inside each other. What reads fields further on, here and elsewhere, has its limits too."""
_PAIR: Final = re.compile(r"""[ \t]*([\w.\-/@$:]++)(?:=(?:"((?:[^"\\]++|\\.)*+)"|([^\s"=]*+)))?(?=[ \t\r]|$)""")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


def parse_json(line: bytes) -> Fields | None:
    """Return the members of a line that is a JSON object, else None; also for one with very many levels."""
    if not line.lstrip(b" \t").startswith(b"{"):  # most of the lines that are none, without an exception
        return None
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if line.count(b"{") + line.count(b"[") > MAX_LEVELS and _is_deep(found):
        return None
    return found if isinstance(found, dict) else None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [one for value in level for one in (value.values() if type(value) is dict else value)
                 if type(one) in {dict, list}]  # fmt: skip
    return bool(level)


def parse_logfmt(line: bytes) -> Fields | None:
    """Return the pairs of a logfmt line, values as text, else None. The last one of a key stays."""
    if b"=" not in line:
        return None
    text = line.decode("utf-8", "replace").rstrip()
    fields: Fields = {}
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            return None
        key, quoted, plain = match.groups()
        fields[key] = (True if plain is None else plain) if quoted is None else _unquoted(quoted)
        at = match.end()
    return fields if any(value is not True for value in fields.values()) else None


def _unquoted(text: str) -> str:
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub(lambda one: chr(int(one[1], 16)) if one[1] else _ESCAPES.get(one[2], one[2]), text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # \u escapes may come in pairs


PARSERS: Final[Mapping[str, Callable[[bytes], Fields | None]]] = {"json": parse_json, "logfmt": parse_logfmt}


@dataclass(frozen=True, kw_only=True)
class ParseOptions:
    """How lines are read."""

    parse: str = opt(one_of("", *PARSERS), default="", help="read fields out of lines: json or logfmt")


class Parse(Processor):
    """Gives groups fields."""

    def __init__(self, parse: Callable[[bytes], Fields | None]) -> None:
        self._parse = parse

    def feed(self, items: list[Item]) -> list[Item]:
        """Return the items, groups with what their lines say."""
        return [self._with_fields(item) if type(item) is Group else item for item in items]

    def _with_fields(self, group: Group) -> Group:
        if group.partial:  # a part of a document is none
            return group
        fields = [self._parse(line) for line in group.lines]
        if group.fields:
            fields = [{**(new or {}), **(old or {})} for new, old in zip(fields, group.fields, strict=True)]
        return group._replace(fields=fields) if any(one is not None for one in fields) else group


class ParseFactory(ProcessorFactory):
    """Makes them."""

    name = "parse"
    options_type = ParseOptions
    order = 20

    def make(self, options: ParseOptions, container: ContainerInfo) -> Parse | None:
        """Return one, if asked for."""
        return Parse(PARSERS[options.parse]) if options.parse else None


@hookimpl
def logd_line_processors() -> list[ProcessorFactory]:
    """The processors of this module."""
    return [ParseFactory()]
