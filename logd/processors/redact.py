"""Mask what must not leave the host: the log-opts `redact` (RE2 patterns), `redact-presets` and `redact-with`.

A pattern's groups are masked, the rest of what it finds stays: `password=([^ ]+)`. Without a group all of it is. What a
line was parsed into is masked too. A secret that is cut in two, by the end of a line or of an over-long line's part,
is not recognized.

Source: ISO/IEC 7812-1 annex B for card numbers' check digit (Luhn) and their first digits; RFC 6750 section 2.1 for
bearer tokens.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from logd.batch import ContainerInfo
from logd.driver import text
from logd.hookspecs import hookimpl
from logd.pattern import LinePattern
from logd.processor import Group, Item, Processor, ProcessorFactory, opt, part, positions

MASK: Final = "***"
CARD_DIGITS: Final = range(13, 20)
_CARD_NUMBER: Final = (
    r"(?:[3-6][0-9]|2[2-7])[0-9]{2}"
    r"(?:[ .-][0-9]{4}[ .-][0-9]{4}[ .-][0-9]{1,7}|[ .-][0-9]{6}[ .-][0-9]{4,5}|[0-9]{9,})"
)
_CARD: Final = re.compile(rb"(?<![0-9])(?<![0-9]\.)(?=(%s))" % _CARD_NUMBER.encode())
"""Python's, which costs a tenth for each of many finds; the pattern has nothing to go back for."""
_SEPARATORS: Final = b" .-"
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_PLAIN: Final = bytes.maketrans(b"0123456789", bytes(range(10)))


Span = tuple[int, int]


def find_cards(line: bytes) -> list[Span]:
    """Return where card numbers are: by their first digits, grouping, length and check digit.

    They may begin right after another number; nor does what only looks like one hide the next.
    """
    return [match.span(1) for match in _CARD.finditer(line) if _has_check_digit(match[1].translate(None, _SEPARATORS))]


def _has_check_digit(digits: bytes) -> bool:
    plain, doubled = digits[-1::-2].translate(_PLAIN), digits[-2::-2].translate(_DOUBLED)
    return len(digits) in CARD_DIGITS and (sum(plain) + sum(doubled)) % 10 == 0


class Rule(NamedTuple):
    """What is masked: what a pattern finds, or its groups if it has any; or, in lines with it, what `find` finds."""

    pattern: LinePattern
    find: Callable[[bytes], list[Span]] | None = None

    def spans(self, line: bytes) -> list[Span]:
        """Return the stretches of a line that are masked."""
        if self.find:
            return self.find(line)
        groups = range(1, self.pattern.compiled.groups + 1)
        spans = []
        for match in self.pattern.compiled.finditer(line):
            found = [match.span(number) for number in groups] if groups else ()
            spans += [span for span in found if span[0] >= 0] or [match.span()]
        return [span for span in spans if span[1] > span[0]]


PRESETS: Final[Mapping[str, Rule]] = {
    "cards": Rule(LinePattern(_CARD_NUMBER), find_cards),
    "emails": Rule(LinePattern(r"[\pL\pN_.%+'-]+@(?:[\pL\pN-]+\.)+\pL{2,}")),
    "bearer": Rule(LinePattern(r"(?i)\b(?:bearer[ :=]+|access_token=)([0-9a-z._~+/-]+=*)")),
}


def parse_patterns(value: str) -> tuple[LinePattern, ...]:
    """Parse patterns, one a line."""
    return tuple(LinePattern(line) for line in value.split("\n") if line)


def parse_presets(value: str) -> tuple[str, ...]:
    """Parse names of presets, with commas."""
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in names:
        if name not in PRESETS:
            raise ValueError(f"{name!r} (known: {', '.join(PRESETS)})")
    return names


@dataclass(frozen=True, kw_only=True)
class RedactOptions:
    """What is masked, and how."""

    redact: tuple[LinePattern, ...] = opt(parse_patterns, default=(), help="mask what these patterns find, one a line")
    redact_presets: tuple[str, ...] = opt(parse_presets, default=(), help="mask cards, emails, bearer (tokens)")
    redact_with: str = opt(text, default=MASK, help="what stands in the place of what was masked")


class Redact(Processor):
    """Masks in lines and fields."""

    def __init__(self, options: RedactOptions) -> None:
        self._rules = [*map(Rule, options.redact), *(PRESETS[name] for name in options.redact_presets)]
        self._mask = options.redact_with.encode("utf-8", "replace")

    def feed(self, items: list[Item]) -> list[Item]:
        """Return the items with masks in lines and fields; a line that was changed is a group of its own."""
        out: list[Item] = []
        for item in items:
            if type(item) is Group:
                self._group(item, out)
            else:
                out.append(item)
        return out

    def _group(self, group: Group, out: list[Item]) -> None:
        if group.fields and any(rule.pattern.lines_with([*_leaves(group.fields)]) for rule in self._rules):
            group = group._replace(fields=[self._value(one) for one in group.fields])
        suspects = {number for rule in self._rules for number in rule.pattern.lines_with(group.lines)}
        if not suspects:
            out.append(group)
            return
        begins = positions(group)
        first = 0
        for number in sorted(suspects):
            masked = self.masked(group.lines[number])
            if masked == group.lines[number]:
                continue
            if number > first:
                out.append(part(group, begins, first, number))
            out.append(part(group, begins, number, number + 1)._replace(lines=[masked]))
            first = number + 1
        if first < len(group.lines):
            out.append(part(group, begins, first, len(group.lines)))

    def masked(self, line: bytes) -> bytes:
        """Return a line with masks. Each rule looks at the line as it was, so that none hides anything from another."""
        spans = sorted(span for rule in self._rules for span in rule.spans(line))
        pieces = []
        at = 0
        for begin, end in spans:
            if begin >= at:
                pieces += [line[at:begin], self._mask]
            at = max(at, end)
        return b"".join((*pieces, line[at:]))

    def _value(self, value: Any) -> Any:
        """Return a field's value with masks, in names too; a number that has to be masked becomes text."""
        if isinstance(value, dict):
            return {self._value(name): self._value(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._value(one) for one in value]
        if value is None or isinstance(value, bool):
            return value
        raw = _raw(value)
        masked = self.masked(raw)
        return value if masked == raw else masked.decode("utf-8", "replace")


def _raw(value: str | float) -> bytes:
    return str(value).encode("utf-8", "replace")


def _leaves(value: Any) -> Iterator[bytes]:
    """Give the names, texts and numbers in fields."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield _raw(name)
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif value is not None and not isinstance(value, bool):
        yield _raw(value)


class RedactFactory(ProcessorFactory):
    """Makes them."""

    name = "redact"
    options_type = RedactOptions
    order = 40

    def make(self, options: RedactOptions, container: ContainerInfo) -> Redact | None:
        """Return one, if anything is to be masked."""
        return Redact(options) if options.redact or options.redact_presets else None


@hookimpl
def logd_line_processors() -> list[ProcessorFactory]:
    """The processors of this module."""
    return [RedactFactory()]
