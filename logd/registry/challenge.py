"""The header by which a registry says how it wants to be shown who asks: WWW-Authenticate.

Source: RFC 9110 section 11; the registry's token specification (distribution.github.io/distribution/spec/auth/token).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

_SCHEME: Final = re.compile(r"(?:^|,)\s*([A-Za-z][\w-]*)(?=\s+[\w-]+\s*=|\s*$)")
_PARAMETER: Final = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Challenge(NamedTuple):
    """One way: the scheme in small letters, its parameters by name."""

    scheme: str
    parameters: Mapping[str, str]


def read_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return the ways that the values of the header offer, in their order."""
    found = []
    for header in headers:
        starts = list(_SCHEME.finditer(header))
        ends = [*(start.start() for start in starts[1:]), len(header)]
        for start, end in zip(starts, ends, strict=True):
            pairs = _PARAMETER.findall(header, start.end(), end)
            parameters = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain for name, quoted, plain in pairs}
            found.append(Challenge(start[1].lower(), parameters))
    return found
