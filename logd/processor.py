"""What the author of a line processor needs: a step between the store and a driver, for one container and one driver.

A processor acts on what is delivered, never on the store. It is chosen by its log-opts. What it leaves out it puts in
its place as Dropped, so that every byte is accounted for.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, ClassVar

from logd.batch import ContainerInfo, Dropped, Group, Item
from logd.driver import opt, parse_options

__all__ = [
    "Dropped",
    "FirstPart",
    "Group",
    "Item",
    "Processor",
    "ProcessorFactory",
    "is_marker",
    "keep",
    "opt",
    "parse_options",
    "part",
    "positions",
]


class Processor(ABC):
    """The state of one step for one container and one driver. After a restart it begins anew at the cursor."""

    @abstractmethod
    def feed(self, items: list[Item]) -> list[Item]:
        """Return what follows from the items, in order; Dropped ones pass through.

        A group that stands for lines joined or changed has one line, and the position and end of all that it
        stands for.
        """

    def flush(self) -> list[Item]:
        """Return what is held back. Called when the output has ended, or `flush_after_s` went by without any."""
        return []

    @property
    def held(self) -> Mapping[int, int]:
        """For each stream of which lines are held back: the position of the first of them."""
        return {}

    flush_after_s: float = 0.0
    """How long lines may be held back, 0 for not at all."""


class ProcessorFactory(ABC):
    """A kind of line processor: its log-opts, and how one is made."""

    name: ClassVar[str]
    options_type: ClassVar[type[Any]]
    """A frozen dataclass of `opt` fields, all with defaults."""
    order: ClassVar[int]
    """Its place among the others, the lower first: join, parse, choose, mask, limit are 10, 20, 30, 40, 50."""

    @abstractmethod
    def make(self, options: Any, container: ContainerInfo) -> Processor | None:
        """Return a processor for a container, None if these options ask for none."""


def positions(group: Group) -> list[int]:
    """Return where each of a group's lines begins, and last where the group ends."""
    if len(group.lines) == 1:  # which may stand for more, or less, than its own length
        return [group.position, group.end]
    begins = list(accumulate((len(line) + 1 for line in group.lines), initial=group.position))
    begins[-1] = group.end  # the last line of all may lack its newline
    return begins


def part(group: Group, begins: Sequence[int], first: int, last: int) -> Group:
    """Return the lines from number `first` to before `last` of a group whose `positions` are `begins`."""
    if first == 0 and last == len(group.lines):
        return group
    fields = group.fields[first:last] if group.fields else None
    return group._replace(position=begins[first], end=begins[last], lines=group.lines[first:last], fields=fields)


def keep(group: Group, kept: Sequence[bool], reason: str) -> list[Item]:
    """Return the lines of a group for which `kept` holds, and in the place of the others that they were dropped."""
    if all(kept):
        return [group]
    begins = positions(group)
    items: list[Item] = []
    first = 0
    for is_kept, run in groupby(kept):
        last = first + len(list(run))
        dropped = Dropped(group.stream, begins[first], begins[last], reason)
        items.append(part(group, begins, first, last) if is_kept else dropped)
        first = last
    return items


def is_marker(group: Group) -> bool:
    """Tell whether a group is a line that a processor has written, which stands for nothing of the container's."""
    return group.position == group.end


class FirstPart:
    """What is decided about the first part of an over-long line holds for its other parts."""

    def __init__(self) -> None:
        self._decided: dict[int, tuple[str, bool]] = {}

    def decide(self, group: Group, decision: Callable[[], bool]) -> bool:
        """Return what was decided about an earlier part of this one's line, else decide now."""
        assert group.partial is not None
        name, decided = self._decided.pop(group.stream, ("", False))
        if name != group.partial.id:
            decided = decision()
        if not group.partial.last:
            self._decided[group.stream] = group.partial.id, decided
        return decided
