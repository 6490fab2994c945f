"""How far a transfer has come, on a terminal; nothing elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

from logd.cli.output import STDERR_FD
from logd.cli.terminal import is_terminal, visible


@contextlib.contextmanager
def progress(what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Callable[[int], object]]:
    """Give a function to call with how many bytes more there are. It is shown on stderr, and goes at the end."""
    if quiet or not is_terminal(STDERR_FD):
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  # 60 ms that only a terminal pays
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(visible(what), total=total)
        yield lambda size: shown.advance(task, size)
