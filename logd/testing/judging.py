"""What arrived against what was printed: what is lost, doubled without a reason, cut, forged, out of order."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from logd.record import STREAM_NAMES
from logd.testing.bench import Attempt
from logd.testing.samples import Line

SHOWN_BYTES: Final = 60


class Mismatch(AssertionError):
    """What arrived is not what should have."""


def check_equal(arrived: Sequence[Line], expected: Sequence[Line]) -> None:
    """Check that each stream arrived as it should, each line once, nothing else."""
    for stream, name in STREAM_NAMES.items():
        want, have = of_stream(expected, stream), of_stream(arrived, stream)
        if want != have:
            at = next(
                (at for at, (a, b) in enumerate(zip(want, have, strict=False)) if a != b), min(map(len, (want, have)))
            )
            raise Mismatch(
                f"{name}: {len(have)} of {len(want)} lines; the first that differs is number {at}: "
                f"expected {shown(want, at)}, got {shown(have, at)}"
            )


def check_order(arrived: Sequence[Line], expected: Sequence[Line]) -> None:
    """Check that each stream's lines, each of them unlike all others, arrived first in the order of their printing."""
    places = {line: at for at, line in enumerate(expected)}
    for stream, name in STREAM_NAMES.items():
        first_seen = list(dict.fromkeys(of_stream(arrived, stream)))
        for before, after in pairwise(first_seen):
            if places[stream, after] < places[stream, before]:
                raise Mismatch(f"{name}: {after[:SHOWN_BYTES]!r} came after {before[:SHOWN_BYTES]!r}")


def check_none_is_forged(arrived: Sequence[Line], expected: Sequence[Line]) -> None:
    """Check that only what was printed has arrived."""
    if forged := Counter(arrived).keys() - Counter(expected).keys():
        raise Mismatch(f"{len(forged)} lines that nobody printed, such as {sorted(forged)[0]!r:.200}")


def check_none_is_lost(arrived: Sequence[Line], expected: Sequence[Line]) -> None:
    """Check that every line has arrived."""
    if lost := Counter(expected) - Counter(arrived):
        raise Mismatch(f"{sum(lost.values())} of {len(expected)} lines are lost, such as {sorted(lost)[0]!r:.200}")


def check_doubles(arrived: Sequence[Line], most: Counter[Line]) -> None:
    """Check that no line came more often than it may have."""
    if doubled := Counter(arrived) - most:
        line = sorted(doubled)[0]
        raise Mismatch(f"{len(doubled)} lines came too often, such as {line!r:.200}: more than {most[line]} times")


def sent(attempts: Sequence[Attempt], container: str) -> Counter[Line]:
    """Return how often each line was given to the driver."""
    return Counter((stream, line) for one in attempts if one.container == container for stream, _, line in one.records)


def check_nothing_taken_is_sent_again(attempts: Sequence[Attempt]) -> None:
    """Check that what a driver said was taken was not given to it again."""
    taken: set[tuple[str, int, int]] = set()
    for one in attempts:
        keys = [(one.container, stream, position) for stream, position, _ in one.records]
        if again := taken.intersection(keys):
            raise Mismatch(f"{len(again)} records were sent again although the destination had them")
        taken.update(keys[: one.taken])


def of_stream(lines: Sequence[Line], stream: int) -> list[bytes]:
    """Return the lines of one stream."""
    return [line for number, line in lines if number == stream]


def shown(lines: Sequence[bytes], at: int) -> str:
    """Return a line for a message."""
    return repr(lines[at][:SHOWN_BYTES]) if at < len(lines) else "nothing"


def is_part(one: Line, lines: Sequence[Line]) -> bool:
    """Tell whether it is the begin of a line."""
    return any(one[0] == stream and line.startswith(one[1]) for stream, line in lines)
