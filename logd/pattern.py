"""Regular expressions of users, in RE2's syntax, which is Go's and so Docker's. Their time is linear in the text.

Source: https://github.com/google/re2/wiki/Syntax.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, Final

import re2

_NEEDS_LINE: Final = re.compile(r"\\[ACz]|\(\?[imsU]*-")
"""What could find other things in a line among others than in it alone: text ends, bytes, flags that are taken back."""
PROBE: Final = 64
"""After how many finds it is known whether they are rare."""


@dataclass(frozen=True)
class Pattern:
    """A compiled pattern; patterns of equal text are equal. Raises ValueError with RE2's words."""

    text: str
    compiled: Any = field(init=False, repr=False, compare=False)
    flags: ClassVar[bytes] = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", self._compile())

    def found_in(self, text: str | bytes) -> bool:
        """Tell whether the pattern is found anywhere."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return self.compiled.search(data) is not None

    def _compile(self, **settings: bool) -> Any:
        options = re2.Options()
        options.log_errors = False
        for name, value in settings.items():
            setattr(options, name, value)
        try:
            return re2.compile(self.flags + self.text.encode("utf-8", "surrogatepass"), options)
        except re2.error as error:
            reason = error.args[0] if error.args else error
            words = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            raise ValueError(f"invalid regular expression {self.text!r}: {words}") from error


@dataclass(frozen=True)
class LinePattern(Pattern):
    """A pattern of lines: ^ and $ are the ends of a line, which is any bytes."""

    within_lines: Any = field(init=False, repr=False, compare=False)
    flags: ClassVar[bytes] = b"(?m)"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_by_one = _NEEDS_LINE.search(self.text)
        object.__setattr__(self, "within_lines", None if one_by_one else self._compile(never_nl=True))

    def lines_with(self, lines: Sequence[bytes]) -> list[int]:
        """Return the numbers of the lines in which the pattern is found, in their order.

        All lines are searched at once, for a pattern that can't go over a line's end.
        """
        data = b"\n".join(lines) if self.within_lines and len(lines) > 1 else b""
        if not data or data.count(b"\n") != len(lines) - 1:  # a line has newlines inside
            return [number for number, line in enumerate(lines) if self.compiled.search(line)]
        match = self.within_lines.search(data)
        if match is None:
            return []
        begins = list(accumulate((len(line) + 1 for line in lines), initial=0))
        found: list[int] = []
        while match:
            found.append(bisect_right(begins, match.start()) - 1)
            after = found[-1] + 1
            if len(found) == PROBE and after <= 2 * PROBE:  # so often that it is cheaper to look at each
                return found + [number for number in range(after, len(lines)) if self.compiled.search(lines[number])]
            match = self.within_lines.search(data, begins[after]) if after < len(lines) else None
        return found


def parse_line_pattern(text: str) -> LinePattern | None:
    """Parse a log-opt that is a pattern of lines; empty text is none."""
    return LinePattern(text) if text else None
