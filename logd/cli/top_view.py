"""What `logd top` shows and how it obeys keys, without a terminal: lines for a size, and a state that keys change."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from logd.cli.terminal import visible
from logd.cli.top_table import COLUMNS, GAP, Order, cells, fitting
from logd.cli.usage import Answer, Usage, chosen, compare, memory_size

STALE_S: Final = 5.0
"""Figures that are older are said to be so."""
HELP: Final = (
    ("< >", "sort by the column to the left or right"),
    *((column.key, f"sort by {column.title}") for column in COLUMNS),
    ("r", "the other way round"),
    ("/", "show those in whose name, image or id a text is found; Enter keeps it, Esc clears it"),
    ("a", "stopped containers too, or not"),
    ("Space", "hold the figures, and go on"),
    ("↑ ↓ PgUp PgDn", "scroll (j and k too)"),
    ("? or h", "this page"),
    ("q", "quit (Ctrl-C too)"),
)
FOOTER: Final = "? help   < > sort   r reverse   / filter   a all   Space pause   q quit"
SEQUENCES: Final = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"\x1b[C": ">", b"\x1bOC": ">",
    b"\x1b[D": "<", b"\x1bOD": "<", b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[H": "home",
    b"\x1b[F": "end", b"\x1b[1~": "home", b"\x1b[4~": "end",
}  # fmt: skip
"""What terminals send for keys (ECMA-48's CSI, and SS3 in application mode)."""
NAMED: Final = {"\x1b": "escape", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace"}


def keys(data: bytes) -> Iterator[str]:
    """Yield the keys in what a terminal sent: a character each, or a name of several letters; no unknown ones."""
    while data.startswith(b"\x1b") and len(data) > 1:
        length = next((len(one) for one in SEQUENCES if data.startswith(one)), 0)
        if not length:
            return  # of some other key: the rest is its own
        yield SEQUENCES[data[:length]]
        data = data[length:]
    text, found, rest = data.partition(b"\x1b")
    for character in text.decode("utf-8", "ignore"):
        yield NAMED.get(character, character)
    if rest:
        yield from keys(found + rest)
    elif found:
        yield "escape"


class View:
    """The state of the screen. `press` and `take` change it, `lines` draws it."""

    def __init__(self, order: Order, *, every: bool = False) -> None:
        self.order = order
        self.every = every
        """Whether containers that don't run are shown too."""
        self.trouble = ""
        """Why there is no answer at present."""
        self._answer: Answer | None = None
        self._taken_at = 0.0
        self._usages: list[Usage] = []
        self._filter = ""
        self._is_typing = False
        self._is_paused = False
        self._is_help = False
        self._offset = 0
        self._page = 1

    def take(self, answer: Answer) -> None:
        """Show another answer of the daemon."""
        self.trouble = ""
        if not self._is_paused:
            self._usages = compare(self._answer, answer)
            self._answer, self._taken_at = answer, time.monotonic()

    def press(self, key: str) -> bool:
        """Obey a key; false: leave."""
        if self._is_typing:
            self._type(key)
        elif self._is_help:
            self._is_help = False
            return key not in {"q", "\x03"}
        elif key in {"q", "\x03"}:
            return False
        else:
            self._command(key)
        return True

    def _type(self, key: str) -> None:
        if key in {"enter", "escape"}:
            self._is_typing = False
            self._filter = "" if key == "escape" else self._filter
        elif key == "backspace":
            self._filter = self._filter[:-1]
        elif key == "\x15":  # Ctrl-U, as a terminal's line has it
            self._filter = ""
        elif len(key) == 1 and key.isprintable():
            self._filter += key
        self._offset = 0

    def _command(self, key: str) -> None:
        by_key = {column.key: index for index, column in enumerate(COLUMNS)}
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._page, "page down": self._page}
        steps |= {"home": -len(self._usages), "end": len(self._usages)}
        if key in by_key:
            self.order = Order(by_key[key])
        elif key in {"<", ">"}:
            self.order = Order((self.order.column + (1 if key == ">" else -1)) % len(COLUMNS))
        elif key == "r":
            self.order = self.order._replace(is_reversed=not self.order.is_reversed)
        elif key == "/":
            self._is_typing = True
        elif key == "escape":
            self._filter = ""
        elif key == "a":
            self.every = not self.every
        elif key == " ":
            self._is_paused = not self._is_paused
        elif key in {"?", "h"}:
            self._is_help = True
        elif key in steps:
            self._offset = max(0, self._offset + steps[key])

    # -- drawing -----------------------------------------------------------------------------------------------------

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the screen: at most `height` lines of at most `width` cells."""
        if self._is_help:
            body = [Text.assemble((f"  {key:<16}", "bold"), text) for key, text in HELP]
        else:
            shown = [one for one in self._usages if self.every or one.state in {"running", "paused", "restarting"}]
            body = self._table(self.order.sort(chosen(shown, self._filter)), width, max(1, height - 3))
        lines = [self._head(), *body[: height - 2]]
        lines += [Text()] * (height - 1 - len(lines))
        lines.append(self._foot())
        for line in lines:
            line.truncate(width)
            line.no_wrap = True
        return lines[:height]

    def _head(self) -> Text:
        answer = self._answer
        if answer is None:
            return Text.assemble(("logd top", "bold"), "   waiting for the first figures")
        used = sum(one.cpu_percent or 0.0 for one in self._usages)
        memory = sum(one.memory for one in self._usages)
        running = sum(one.state == "running" for one in self._usages)
        head = Text.assemble(
            ("logd top", "bold"),
            time.strftime("   %H:%M:%S", time.localtime(answer["time_ns"] / 1e9)),
            f"   {running} running",
            f"   CPU {used:.1f}% of {answer['online_cpus'] * 100}%",
            f"   memory {memory_size(memory)} of {memory_size(answer['memory_total'])}",
        )
        if self._is_paused:
            head.append("   paused", "bold yellow")
        return head

    def _foot(self) -> Text:
        age_s = time.monotonic() - self._taken_at
        if self.trouble:
            return Text(visible(f"trying again: {self.trouble}"), "bold red")
        if self._answer is not None and age_s > STALE_S and not self._is_paused:
            return Text(f"the daemon has not answered for {age_s:.0f} s", "bold red")
        if self._is_typing:
            return Text.assemble(("/", "bold"), visible(self._filter), ("▏", "bold"))
        if self._filter:
            return Text.assemble("filter: ", (visible(self._filter), "bold"), "   Esc clears it", "   ", FOOTER)
        return Text(FOOTER, "bright_black")

    def _table(self, usages: Sequence[Usage], width: int, height: int) -> list[Text]:
        self._page = height
        self._offset = max(0, min(self._offset, len(usages) - height))
        titles = [column.title for column in COLUMNS]
        titles[self.order.column] += self.order.arrow
        rows = [cells(one) for one in usages]
        widths = [
            max(column.width, *(cell_len(row[index]) for row in (titles, *rows)))
            for index, column in enumerate(COLUMNS)
        ]
        columns = fitting(widths, width)
        head = Text(style="bold reverse")
        head.append(_line([(titles[index], index, "") for index in columns], columns))
        head.pad_right(max(0, width - head.cell_len))
        style = "dim" if self.trouble else ""
        body = [
            _line([(row[index], index, style or COLUMNS[index].colour(one)) for index in columns], columns, style)
            for one, row in zip(usages, rows, strict=True)
        ]
        return [head, *body[self._offset : self._offset + height]]


def _line(parts: Sequence[tuple[str, int, str]], widths: dict[int, int], style: str = "") -> Text:
    line = Text(style=style)
    for place, (text, index, colour) in enumerate(parts):
        if place:
            line.append(" " * GAP)
        short = text if cell_len(text) <= widths[index] else f"{set_cell_size(text, widths[index] - 1)}…"
        blanks = " " * (widths[index] - cell_len(short))
        line.append(f"{short}{blanks}" if COLUMNS[index].is_text else f"{blanks}{short}", colour)
    return line
