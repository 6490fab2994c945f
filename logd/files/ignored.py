"""What .dockerignore keeps out of a build's context.

Source: the Docker documentation of .dockerignore files; where it is silent, what dockerd's matcher does.
"""

import posixpath
from collections.abc import Sequence

from logd import globs


class Ignored:
    """Decides by patterns; the last one that fits has its way. Raises InvalidParameter for what is no pattern."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._rules = [
            (
                globs.pattern_of(posixpath.normpath("/" + pattern.removeprefix("!").strip()).lstrip("/"), deep=True),
                keeps,
            )
            for pattern in patterns
            for keeps in [pattern.startswith("!")]
        ]
        self.keeps_some = any(keeps for _, keeps in self._rules)
        """Whether something in a folder that is left out may be wanted."""

    def __contains__(self, path: str) -> bool:
        """Say whether a path, relative to the context, is left out; what is in a folder shares its lot."""
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        left_out = False
        for pattern, keeps in self._rules:
            if left_out == keeps and any(pattern.fullmatch(one) for one in above):
                left_out = not keeps
        return left_out


def read_patterns(text: str) -> list[str]:
    """Return the patterns of a .dockerignore: a line each, without comments."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#")]
    return [line for line in lines if line not in {"", "!", ".", "/"}]
