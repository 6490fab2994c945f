"""Send at most so many lines a second: the log-opts `rate-limit` and `rate-limit-burst`.

A bucket of tokens, of the container's two streams together, by the times at which the lines arrived: what is let
through does not depend on how fast it is delivered. Of lines that are suppressed a marker tells, in their place, once
lines may pass again, but no more than one a second; or when nothing comes any more. It does not count itself. An
over-long line is one line.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field)

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from logd.batch import ContainerInfo
from logd.driver import whole
from logd.hookspecs import hookimpl
from logd.processor import Dropped, FirstPart, Group, Item, Processor, ProcessorFactory, keep, opt
from logd.units import NS

SUPPRESSED: Final = "rate-limit"
"""The reason of what is left out."""
MARKER_INTERVAL_NS: Final = NS
TOKENS_PER_LINE: Final = NS * NS
"""So many that none is lost to rounding: a rate has nine decimals at most, time is in nanoseconds."""
_RATE: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)


def parse_rate(text: str) -> Decimal:
    """Parse a number of lines a second, above 0."""
    if not _RATE.fullmatch(text) or not Decimal(text):
        raise ValueError(f"{text!r} is not a number of lines a second, such as 100 or 0.5")
    return Decimal(text).normalize()


@dataclass(frozen=True, kw_only=True)
class RateLimitOptions:
    """How many lines go on."""

    rate_limit: Decimal = opt(parse_rate, default=Decimal(0), help="send at most so many lines a second")
    rate_limit_burst: int = opt(whole(1), default=0, help="how many may come at once (default: those of a second)")

    def __post_init__(self) -> None:
        if self.rate_limit_burst and not self.rate_limit:
            raise ValueError("rate-limit-burst has no effect without rate-limit")


class RateLimit(Processor):
    """Drops lines beyond the rate."""

    flush_after_s = MARKER_INTERVAL_NS / NS

    def __init__(self, options: RateLimitOptions) -> None:
        self._rate = options.rate_limit
        self._tokens_per_ns = int(options.rate_limit * NS)
        self._burst = TOKENS_PER_LINE * (options.rate_limit_burst or max(1, int(options.rate_limit)))
        self._tokens = self._burst
        self._time_ns = 0
        self._since_ns = 0
        """When the first line was suppressed of which no marker has told."""
        self._suppressed: dict[int, int] = {}
        """How many of each stream's lines the next marker tells of."""
        self._ends: dict[int, int] = {}
        """Where the last item of each stream ended."""
        self._first = FirstPart()

    @property
    def held(self) -> dict[int, int]:
        """Where markers are still to come."""
        return {stream: self._ends[stream] for stream in self._suppressed}

    def feed(self, items: list[Item]) -> list[Item]:
        """Return the items, lines beyond the rate as dropped, and markers."""
        out: list[Item] = []
        for item in items:
            if type(item) is Group:
                self._take(item, out)
            else:
                out.append(item)
            self._ends[item.stream] = item.end
        return out

    def flush(self) -> list[Item]:
        """Return the markers that are still to come."""
        markers: list[Item] = [self._marker(stream) for stream in sorted(self._suppressed)]
        self._suppressed.clear()
        return markers

    def _take(self, group: Group, out: list[Item]) -> None:
        elapsed_ns = group.time_ns - self._time_ns  # below 0 where the clock was set back
        self._tokens = min(self._burst, self._tokens + max(0, elapsed_ns) * self._tokens_per_ns)
        self._time_ns = group.time_ns
        goes_on = group.partial is not None and group.partial.ordinal > 1
        is_due = group.time_ns - self._since_ns >= MARKER_INTERVAL_NS
        if self._suppressed and self._tokens >= TOKENS_PER_LINE and is_due and not goes_on:
            out += self.flush()
        if group.partial is None:
            lines = len(group.lines)
            passing = lines - self._suppress(group.stream, lines)
            out += keep(group, [number < passing for number in range(lines)], SUPPRESSED)
        elif self._first.decide(group, lambda: not self._suppress(group.stream, 1)):
            out.append(group)
        else:
            out.append(Dropped(group.stream, group.position, group.end, SUPPRESSED))

    def _suppress(self, stream: int, lines: int) -> int:
        """Spend tokens on lines; return for how many there is none, and count them."""
        passing = min(lines, self._tokens // TOKENS_PER_LINE)
        self._tokens -= passing * TOKENS_PER_LINE
        left = lines - passing
        if left:
            if not self._suppressed:
                self._since_ns = self._time_ns
            self._suppressed[stream] = self._suppressed.get(stream, 0) + left
        return left

    def _marker(self, stream: int) -> Group:
        lines, end = self._suppressed[stream], self._ends[stream]
        words = f"[logd: {lines} line{'s' if lines != 1 else ''} suppressed by rate-limit={self._rate:f}]"
        return Group(self._time_ns, stream, end, end, [words.encode()])


class RateLimitFactory(ProcessorFactory):
    """Makes them."""

    name = "rate-limit"
    options_type = RateLimitOptions
    order = 50

    def make(self, options: RateLimitOptions, container: ContainerInfo) -> RateLimit | None:
        """Return one, if there is a limit."""
        return RateLimit(options) if options.rate_limit else None


@hookimpl
def logd_line_processors() -> list[ProcessorFactory]:
    """The processors of this module."""
    return [RateLimitFactory()]
