"""What a fault proxy may do to the connections that go through it.

PASS        as if it was not there
REFUSE      nobody listens, and what was connected is reset
STALL       connections are accepted and nothing is ever read
BLACKHOLE   everything is read, nothing reaches the destination, nothing is answered
MUTE        everything reaches the destination, its answers don't come back
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fault:
    """A way to behave. Counts are of each connection on its own."""

    listens: bool = True
    reads: bool = True
    passes: bool = True
    """Whether what a client says reaches the destination."""
    answers: bool = True
    """Whether what the destination says reaches the client."""
    reset_at: int = 0
    """Reset after so many bytes from the client have been passed; 0: never."""
    whole_answers: int | None = None
    """After so many answers pass one half of the next, then close; None: never."""
    bytes_per_s: int = 0
    """How much is read from a client in a second; 0: any."""
    restart_every_s: float = 0.0
    """How long it listens until it goes away for `away_s`, again and again; 0: always."""
    away_s: float = 0.1


PASS: Final = Fault()
REFUSE: Final = Fault(listens=False)
STALL: Final = Fault(reads=False)
BLACKHOLE: Final = Fault(passes=False)
MUTE: Final = Fault(answers=False)


def reset_at(count: int) -> Fault:
    """Reset each connection after `count` bytes from the client."""
    return Fault(reset_at=count)


def half_answer(whole: int = 0) -> Fault:
    """Pass `whole` answers and one half of the next, then close. An answer is what one read from the peer gives."""
    return Fault(whole_answers=whole)


def slow(bytes_per_s: int) -> Fault:
    """Read so many bytes in a second."""
    return Fault(bytes_per_s=bytes_per_s)


def restart_every(seconds: float, away_s: float = 0.1) -> Fault:
    """Be there for so long, then away for `away_s`, again and again."""
    return Fault(restart_every_s=seconds, away_s=away_s)
