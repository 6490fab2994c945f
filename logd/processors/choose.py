"""Leave lines out by what is in them: the log-opts `include` and `exclude`, RE2 patterns.

An over-long line is judged by its first part.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field)

from dataclasses import dataclass
from typing import Final

from logd.batch import ContainerInfo
from logd.hookspecs import hookimpl
from logd.pattern import LinePattern, parse_line_pattern
from logd.processor import Dropped, FirstPart, Group, Item, Processor, ProcessorFactory, keep, opt

FILTERED: Final = "filtered"
"""The reason of what is left out."""


@dataclass(frozen=True, kw_only=True)
class ChooseOptions:
    """Which lines go on."""

    include: LinePattern | None = opt(parse_line_pattern, default=None, help="send only lines in which it is found")
    exclude: LinePattern | None = opt(parse_line_pattern, default=None, help="don't send lines in which it is found")


class Choose(Processor):
    """Drops lines that are not wanted."""

    def __init__(self, options: ChooseOptions) -> None:
        self._include = options.include
        self._exclude = options.exclude
        self._first = FirstPart()

    def feed(self, items: list[Item]) -> list[Item]:
        """Return the items, lines left out as dropped."""
        out: list[Item] = []
        for item in items:
            if type(item) is not Group:
                out.append(item)
            elif item.partial is None:
                out += keep(item, self._wanted(item.lines), FILTERED)
            else:
                is_wanted = self._first.decide(item, lambda: self._wanted(item.lines)[0])  # noqa: B023 - called at once
                out.append(item if is_wanted else Dropped(item.stream, item.position, item.end, FILTERED))
        return out

    def _wanted(self, lines: list[bytes]) -> list[bool]:
        wanted = [self._include is None] * len(lines)
        if self._include:
            for number in self._include.lines_with(lines):
                wanted[number] = True
        if self._exclude:
            for number in self._exclude.lines_with(lines):
                wanted[number] = False
        return wanted


class ChooseFactory(ProcessorFactory):
    """Makes them."""

    name = "choose"
    options_type = ChooseOptions
    order = 30

    def make(self, options: ChooseOptions, container: ContainerInfo) -> Choose | None:
        """Return one, if asked for."""
        return Choose(options) if options.include or options.exclude else None


@hookimpl
def logd_line_processors() -> list[ProcessorFactory]:
    """The processors of this module."""
    return [ChooseFactory()]
