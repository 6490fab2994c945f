"""What .dockerignore keeps out of a build's context: for who sends the context, and for who copies from it.

Source: the Docker documentation of .dockerignore files; where it is silent, what dockerd's matcher does.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import Final

from logd import globs

_SPECIAL: Final = re.compile(r"[*?\[\\]")
"""The beginning of a pattern in which nothing is special."""


class Ignored:
    """Decides by patterns; the last one that fits has its way. Raises InvalidParameter for what is no pattern."""

    def __init__(self, patterns: Sequence[str]) -> None:
        tidied = [
            (posixpath.normpath("/" + pattern.removeprefix("!").strip()).lstrip("/"), pattern.startswith("!"))
            for pattern in patterns
        ]
        self._rules = [(globs.pattern_of(pattern, deep=True), keeps) for pattern, keeps in tidied]
        self._kept = [pattern for pattern, keeps in tidied if keeps]
        self.keeps_some = any(keeps for _, keeps in self._rules)
        """Whether something in a folder that is left out may be wanted."""

    def keeps_in(self, folder: str) -> bool:
        """Say whether something in this folder, which is left out, may be wanted."""
        return any(_may_be_in(pattern, f"{folder}/") for pattern in self._kept)

    def __contains__(self, path: str) -> bool:
        """Say whether a path, relative to the context, is left out; what is in a folder shares its lot."""
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        left_out = False
        for pattern, keeps in self._rules:
            if left_out == keeps and any(pattern.fullmatch(one) for one in above):
                left_out = not keeps
        return left_out


def _may_be_in(pattern: str, folder: str) -> bool:
    """Say whether a pattern may fit something in the folder, whose name ends in a slash."""
    literal = _SPECIAL.split(pattern, maxsplit=1)[0]
    return literal.startswith(folder) or (literal != pattern and folder.startswith(literal))


def read_patterns(text: str) -> list[str]:
    """Return the patterns of a .dockerignore: a line each, without comments."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#")]
    return [line for line in lines if line not in {"", "!", ".", "/"}]
