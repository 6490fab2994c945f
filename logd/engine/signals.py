"""Signals as Docker's users write them: `SIGTERM`, `term`, `15`, `RTMIN+3`. Source: signal(7)."""

import signal
from typing import Final

from logd.errors import InvalidParameter

REAL_TIME_FIRST: Final = 34
"""SIGRTMIN for programs: glibc keeps 32 and 33 to itself."""
REAL_TIME_LAST: Final = 64


def _names() -> dict[str, int]:
    members = signal.Signals.__members__  # with aliases such as SIGCLD
    names = {name.removeprefix("SIG"): int(one) for name, one in members.items() if int(one) < REAL_TIME_FIRST}
    names |= {"RTMIN": REAL_TIME_FIRST, "RTMAX": REAL_TIME_LAST}
    names |= {f"RTMIN+{offset}": REAL_TIME_FIRST + offset for offset in range(1, 16)}
    names |= {f"RTMAX-{offset}": REAL_TIME_LAST - offset for offset in range(1, 15)}
    return names


NUMBERS: Final = _names()
"""Names without SIG, as far as signal(7) knows them on this architecture."""


def parse_signal(text: str) -> int:
    """Return the number of a signal given by name or number; raises InvalidParameter in Docker's words."""
    if text.isascii() and text.lstrip("+-").isdigit():
        number = int(text)
        if number == 0:
            raise InvalidParameter(f"invalid signal: {text}")
        if number not in NUMBERS.values():
            raise InvalidParameter(f"the linux daemon does not support signal {number}")
        return number
    number = NUMBERS.get(text.upper().removeprefix("SIG"), 0)
    if not number:
        raise InvalidParameter(f"invalid signal: {text}")
    return number


def stop_signal_of(text: str) -> int:
    """Return the signal that asks a container to stop: its own, or SIGTERM where it names none that exists."""
    try:
        return parse_signal(text) if text else signal.SIGTERM
    except InvalidParameter:  # an image's, which nobody checked
        return signal.SIGTERM


def means_stop(stop_signal: str, number: int) -> bool:
    """Tell whether who sends a container a signal means it to stop for good, which ends its restart policy.

    As for dockerd: SIGKILL, the container's own stop signal, and where it names none each signal.
    """
    return number == signal.SIGKILL or not stop_signal or number == stop_signal_of(stop_signal)
