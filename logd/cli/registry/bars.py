"""A row for each layer on a terminal: its id, what is done with it, how far that is. Imported where rows are drawn."""

from typing import Any, Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from logd.cli.terminal import visible

STATUS_WIDTH: Final = 18
"""Columns: of `Verifying Checksum`."""
BAR_WIDTH: Final = 30


class Bars:
    """The rows, on a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._file = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # closed in close
        self._rows: dict[str, TaskID] = {}
        self._shown = Progress(
            TextColumn("{task.fields[ident]}", markup=False),
            TextColumn("{task.description}", markup=False, table_column=Column(min_width=STATUS_WIDTH, no_wrap=True)),
            Sized(BarColumn(bar_width=BAR_WIDTH)),
            Sized(DownloadColumn()),
            console=Console(file=self._file),
        )
        self._shown.start()

    def take(self, message: dict[str, Any]) -> None:
        """Show where a layer is now."""
        ident, status = str(message["id"]), visible(str(message["status"]))
        detail = message.get("progressDetail") or {}
        current, total = detail.get("current"), detail.get("total")
        if ident not in self._rows:
            self._rows[ident] = self._shown.add_task(status, ident=visible(ident), sized=False)
        row = self._rows[ident]
        if isinstance(current, int) and isinstance(total, int) and total > 0:
            self._shown.update(row, description=status, completed=current, total=total, sized=True)
        else:
            self._shown.update(row, description=status, sized=False)

    def close(self) -> None:
        """Leave the rows as they are."""
        self._shown.stop()
        self._file.close()


class Sized(ProgressColumn):
    """A column that is empty while a row has no size."""

    max_refresh = None

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> RenderableType:
        """Return the cell of a row."""
        return self._column.render(task) if task.fields["sized"] else Text()
