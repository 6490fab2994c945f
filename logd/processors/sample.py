"""Send some of the lines: the log-opt `sample`, one of N or a percentage.

Which ones follows from the container's id and the line's position alone, so that what is sent again after a failure
is the same lines. An over-long line goes or stays as a whole.

Source: the mixing function is that of SplitMix64, https://doi.org/10.1145/2660193.2660195.
"""

import re
from dataclasses import dataclass
from typing import Final

from logd.batch import ContainerInfo
from logd.hookspecs import hookimpl
from logd.processor import Dropped, Group, Item, Processor, ProcessorFactory, is_marker, keep, opt, positions

SAMPLED: Final = "sampled"
"""The reason of what is left out."""
_ALL: Final = 1 << 64
_MASK: Final = _ALL - 1
_SHARE: Final = re.compile(r"(?:([1-9][0-9]{0,17})|([0-9]{1,3}(?:\.[0-9]{1,12})?)%)", re.ASCII)


def parse_share(text: str) -> int:
    """Parse `10` (one of ten) or `10%`; the result is of 2**64 (which is all of the lines)."""
    match = _SHARE.fullmatch(text)
    share = 0
    if match and match[1]:
        share = _ALL // int(match[1])
    elif match:
        whole, _, fraction = match[2].partition(".")
        share = _ALL * int(whole + fraction) // (100 * 10 ** len(fraction))
    if not 0 < share <= _ALL:
        raise ValueError(f"{text!r} (write N for one of N lines, or a percentage above 0 up to 100 such as 2.5%)")
    return share


def draw(seed: int, number: int) -> int:
    """Return a number below 2**64 that looks as if it were drawn, always the same one for the same arguments."""
    x = (seed + number * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How many lines go on."""

    sample: int = opt(parse_share, default=_ALL, help="send one of N lines, or a percentage")


class Sample(Processor):
    """Drops lines by lot."""

    def __init__(self, share: int, container: ContainerInfo) -> None:
        self._share = share
        self._seed = draw(0, int(container.id[:16], 16))

    def feed(self, items: list[Item]) -> list[Item]:
        """Return the items, lines left out as dropped."""
        out: list[Item] = []
        for item in items:
            if type(item) is not Group or is_marker(item):
                out.append(item)
            elif item.partial is None:
                out += keep(item, self._wanted(item), SAMPLED)
            elif draw(self._seed, int(item.partial.id[:16], 16)) < self._share:
                out.append(item)
            else:
                out.append(Dropped(item.stream, item.position, item.end, SAMPLED))
        return out

    def _wanted(self, group: Group) -> list[bool]:
        seed, share = self._seed + group.stream, self._share
        return [draw(seed, begin) < share for begin in positions(group)[:-1]]


class SampleFactory(ProcessorFactory):
    """Makes them."""

    name = "sample"
    options_type = SampleOptions
    order = 60

    def make(self, options: SampleOptions, container: ContainerInfo) -> Sample | None:
        """Return one, if not all lines are to go."""
        return Sample(options.sample, container) if options.sample < _ALL else None


@hookimpl
def logd_line_processors() -> list[ProcessorFactory]:
    """The processors of this module."""
    return [SampleFactory()]
