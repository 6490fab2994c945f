"""The table of `logd top`: its columns, what is in their cells, how they are sorted, and which of them fit."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from logd.cli.terminal import visible
from logd.cli.usage import WELL, Usage, memory_size, pair, percent, rate

GAP: Final = 2
"""Blanks between columns."""
NAME_MIN: Final = 8
"""Cells of the name that are shown in any case."""
BUSY_PERCENT: Final = 90.0
STALLED_PERCENT: Final = 10.0


class Column(NamedTuple):
    """A column. `key` chooses it for sorting; `drop`: of those for which there is no room the highest goes first."""

    title: str
    width: int
    """At least: figures that change do not make the table jump."""
    key: str
    cell: Callable[[Usage], str]
    order: Callable[[Usage], Any]
    drop: int
    is_text: bool = False
    """Sorted from A to Z and set to the left; numbers from the largest, to the right."""
    colour: Callable[[Usage], str] = lambda _: ""


def _network(one: Usage) -> str:
    return pair(rate(one.rx_rate), rate(one.tx_rate))


def _blocks(one: Usage) -> str:
    return pair(rate(one.read_rate), rate(one.write_rate))


def _pressures(one: Usage) -> str:
    return "/".join(f"{value:.0f}" for value in one.pressure)


def _state_colour(one: Usage) -> str:
    if one.state == "dead" or one.health == "unhealthy":
        return "red"
    if one.state in {"restarting", "removing", "paused"} or one.health == "starting":
        return "yellow"
    return "green" if one.state == "running" else "bright_black"


COLUMNS: Final = (
    Column("NAME", 12, "n", lambda one: one.name, lambda one: one.name.lower(), 0, is_text=True),
    Column(
        "CPU %", 7, "c", lambda one: percent(one.cpu_percent), lambda one: one.cpu_percent or 0.0, 1,
        colour=lambda one: "yellow" if (one.cpu_percent or 0) > BUSY_PERCENT else "",
    ),
    Column("MEM / LIMIT", 20, "m", lambda one: pair(memory_size(one.memory), memory_size(one.memory_limit)),
           lambda one: one.memory, 4),
    Column(
        "MEM %", 6, "M", lambda one: percent(one.memory_percent), lambda one: one.memory_percent, 2,
        colour=lambda one: "red" if one.memory_percent > BUSY_PERCENT else "",
    ),
    Column("NET RX/TX /s", 15, "t", _network, lambda one: (one.rx_rate or 0.0) + (one.tx_rate or 0.0), 8),
    Column("I/O R/W /s", 15, "i", _blocks, lambda one: (one.read_rate or 0.0) + (one.write_rate or 0.0), 7),
    Column(
        "PSI C/M/I %", 11, "u", _pressures, lambda one: max(one.pressure), 9,
        colour=lambda one: "yellow" if max(one.pressure) > STALLED_PERCENT else "",
    ),
    Column("PIDS", 4, "p", lambda one: str(one.pids), lambda one: one.pids, 10),
    Column("LOG /s", 7, "l", lambda one: rate(one.log_rate), lambda one: one.log_rate or 0.0, 3),
    Column(
        "DRIVER", 6, "d", lambda one: one.driver, lambda one: (one.driver_state not in WELL, one.driver_lag_s), 5,
        colour=lambda one: "" if one.driver_state in WELL else "red",
    ),
    Column(
        "STATE", 7, "s", lambda one: one.condition, lambda one: one.condition, 6, is_text=True, colour=_state_colour
    ),
)  # fmt: skip
TITLES: Final = tuple(column.title for column in COLUMNS)
BY_CPU: Final = 1
"""The column that the table is sorted by at first."""


class Order(NamedTuple):
    """By which column the rows are sorted, and whether the other way round than it does by itself."""

    column: int = BY_CPU
    is_reversed: bool = False

    def sort(self, usages: Sequence[Usage]) -> list[Usage]:
        """Return the rows in order; equals by name."""
        column = COLUMNS[self.column]
        by_name = sorted(usages, key=lambda one: one.name)
        return sorted(by_name, key=column.order, reverse=column.is_text == self.is_reversed)

    @property
    def arrow(self) -> str:
        """Return which way values go from the top to the bottom."""
        return "▲" if COLUMNS[self.column].is_text != self.is_reversed else "▼"


def cells(one: Usage) -> list[str]:
    """Return the texts of a row, in which nothing is left that a terminal obeys."""
    return [visible(column.cell(one)) for column in COLUMNS]


def fitting(widths: Sequence[int], room: int) -> dict[int, int]:
    """Return the columns that fit, by index, with their widths: the least needed go first, then the name is cut."""
    shown = dict(enumerate(widths))
    for index in sorted(shown, key=lambda index: -COLUMNS[index].drop):
        others = sum(width + GAP for other, width in shown.items() if other)
        if min(widths[0], NAME_MIN) + others <= room or index == 0:
            break
        del shown[index]
    shown[0] = max(1, min(widths[0], room - others))
    return shown
