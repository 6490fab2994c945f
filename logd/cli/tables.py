"""Lists for people and for programs: a table on a terminal, the same plainly in a pipe, JSON on request."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from logd.cli.terminal import visible, wants_colour

UNLIMITED: Final = 4096
"""Columns: the terminal wraps a long line as a whole; rich would wrap in the cells, and break ids and names."""
GAP: Final = 3
MIN_WIDTH: Final = 10
"""Of a column, the gap before the next one with it: as docker's tables have it."""
STATE_COLOURS: Final = {
    "up": "green",
    "restarting": "yellow",
    "removal": "yellow",
    "dead": "red",
    "exited": "bright_black",
}
"""By the first word of Docker's status, in lower case."""
_SPANS: Final = (  # upper bound in seconds, unit in seconds, name: go-units' HumanDuration, as Docker shows times
    (60, 1, "second"), (3600, 60, "minute"), (48 * 3600, 3600, "hour"), (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"), (2 * 365 * 86400, 30 * 86400, "month"),
)  # fmt: skip


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, state_column: int | None = None) -> None:
    """Print the rows under their titles. On a terminal `state_column` gets the colour of its first word."""
    cells = [[visible(cell) for cell in row] for row in rows]
    if wants_colour("auto", 1):
        _print_rich(titles, cells, state_column)
        return
    widths = [max(MIN_WIDTH, *(len(cell) + GAP for cell in column)) for column in zip(titles, *cells, strict=True)]
    for row in (titles, *cells):
        line = "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, a line each, the values in one column."""
    pairs = [(name, visible(value)) for name, value in fields]
    width = max((len(name) for name, _ in pairs), default=0) + 1
    for name, value in pairs:
        sys.stdout.write(f"{f'{name}:'.ljust(width)} {value}\n")


def print_json_lines(items: Iterable[Any]) -> None:
    """Print one JSON object a line. It is ASCII, so that a terminal has nothing in it to obey."""
    for item in items:
        sys.stdout.write(f"{json.dumps(item)}\n")


def print_json(value: object) -> None:
    """Print one JSON value for a person to read."""
    sys.stdout.write(f"{json.dumps(value, indent=4)}\n")


def ago(time_s: float, now_s: float | None = None) -> str:
    """Return how long ago a Unix time was, as Docker says it: `About a minute ago`, `3 weeks ago`."""
    return f"{span((time.time() if now_s is None else now_s) - time_s)} ago"


def span(seconds: float) -> str:
    """Return a length of time in one unit: `Less than a second`, `5 minutes`, `About an hour`, `3 weeks`."""
    seconds = int(seconds)
    if seconds < 1:
        return "Less than a second"
    for bound, unit, name in _SPANS:
        if seconds < bound:
            count = seconds // unit
            if count == 1 and name in {"minute", "hour"}:
                return f"About {'an' if name == 'hour' else 'a'} {name}"
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds // (365 * 86400)} years"


def local_time(time_s: float) -> str:
    """Return a Unix time as Go prints one: `2026-01-02 15:04:05 +0100 CET`."""
    return datetime.fromtimestamp(time_s).astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


def shorten(text: str, length: int) -> str:
    """Return at most `length` characters of `text`, an ellipsis at the end where there was more."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _print_rich(titles: Sequence[str], cells: Sequence[Sequence[str]], state_column: int | None) -> None:
    from rich.console import Console  # noqa: PLC0415  # 60 ms that only a terminal pays
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    columns = [Column(title, min_width=MIN_WIDTH - GAP) for title in titles]
    table = Table(*columns, box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for row in cells:
        texts = [Text(cell) for cell in row]
        if state_column is not None:
            texts[state_column].stylize(STATE_COLOURS.get(row[state_column].partition(" ")[0].lower(), ""))
        table.add_row(*texts)
    Console(width=UNLIMITED, highlight=False, force_terminal=True).print(table)
