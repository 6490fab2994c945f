"""One thing that was looked at: how it stands, what was found, what to do."""

from typing import Final, Literal, NamedTuple

Status = Literal["ok", "warn", "fail"]

OK: Final = "ok"
WARN: Final = "warn"
"""Something may fail, get lost, or let in who should not."""
FAIL: Final = "fail"
"""It does, or will."""


class Check(NamedTuple):
    """`advice` is empty where nothing is to be done."""

    name: str
    status: Status
    found: str
    advice: str = ""
