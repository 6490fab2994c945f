"""Patterns of file names: Go's path.Match, which Docker uses wherever a name may be a pattern."""

import re

from logd.errors import InvalidParameter


def pattern_of(pattern: str, *, deep: bool = False) -> re.Pattern[str]:
    """Return what fits the whole of a path: `*` and `?` stop at a slash, `[^a-z]` is a class, a backslash quotes.

    With `deep`, `**` stands for any number of folders, as in .dockerignore. Raises InvalidParameter.
    """
    regex, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if deep and char == "*" and pattern[at : at + 1] == "*":
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
                regex += "(?:.*/)?"
            else:
                regex += ".*"
        elif char == "*":
            regex += "[^/]*"
        elif char == "?":
            regex += "[^/]"
        elif char == "[":
            end = pattern.find("]", at + 1 + (pattern[at : at + 1] == "^"))
            if end < 0:
                raise InvalidParameter("syntax error in pattern")
            body = pattern[at:end]
            negated = body.startswith("^")
            regex += f"[{'^' if negated else ''}{re.escape(body[negated:]).replace(chr(92) + '-', '-')}]"
            at = end + 1
        elif char == "\\":
            if at == len(pattern):
                raise InvalidParameter("syntax error in pattern")
            regex += re.escape(pattern[at])
            at += 1
        else:
            regex += re.escape(char)
    try:
        return re.compile(regex)
    except re.error as error:
        raise InvalidParameter("syntax error in pattern") from error
