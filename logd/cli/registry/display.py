"""How a transfer goes on, layer by layer: bars side by side on a terminal, docker's plain lines elsewhere.

Source: the messages of the Engine API (status, id, progressDetail, stream), as the docker command shows them.
"""

import os
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from logd.cli.output import write_all
from logd.cli.terminal import is_terminal, neutralise, visible

if TYPE_CHECKING:
    from logd.cli.registry.bars import Bars

Message = dict[str, Any]
DUMB: Final = "dumb"


class Display:
    """Shows messages on a descriptor. A context: the bars stay as they were at its end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_terminal = is_terminal(descriptor)
        self._draws = self._is_terminal and os.environ.get("TERM") != DUMB
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bars()

    def show(self, messages: Iterable[Message]) -> None:
        """Show them as they come. Raises what getting them raises."""
        for message in messages:
            self.take(message)

    def take(self, message: Message) -> None:
        """Show one."""
        if "stream" in message:
            self.write(str(message["stream"]))
        elif "status" not in message:
            return  # for programs: aux
        elif self._draws and message.get("id") and "progressDetail" in message:
            if self._bars is None:
                from logd.cli.registry.bars import Bars  # noqa: PLC0415  # rich: 60 ms that only a terminal pays

                self._bars = Bars(self._descriptor)
            self._bars.take(message)
        elif not any((message.get("progressDetail") or {}).get(key) for key in ("current", "total")):
            head = f"{visible(str(message['id']))}: " if message.get("id") else ""
            self.write(f"{head}{visible(str(message['status']))}\n")

    def write(self, text: str) -> None:
        """Write text below what there is, for a terminal without what it would obey but colours."""
        self._end_bars()
        data = text.encode("utf-8", "replace")
        write_all(self._descriptor, neutralise(data) if self._is_terminal else data)

    def _end_bars(self) -> None:
        if self._bars is not None:
            self._bars.close()
            self._bars = None
