"""Names and ids as a command line has them, filters, and doing one thing to each of several."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from logd.errors import InvalidParameter, LogdError

SHORT_ID: Final = 12


class Several(LogdError):
    """More than one thing went wrong; `errors` has them in order."""

    def __init__(self, errors: Sequence[LogdError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


def short_id(identity: str) -> str:
    """Return the beginning of an id that docker shows."""
    return identity.removeprefix("sha256:")[:SHORT_ID]


def parse_filters(words: Iterable[str]) -> str | None:
    """Return the API's `filters` for `key=value` words. Raises InvalidParameter for one without a key."""
    filters: dict[str, list[str]] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise InvalidParameter(f"--filter: invalid value {word!r} (write key=value, such as status=exited)")
        filters.setdefault(key.strip().lower(), []).append(value.strip())
    return json.dumps(filters) if filters else None


def each(names: Sequence[str], do: Callable[[str], object], *, echo: bool = True) -> None:
    """Do it to each, printing the names of those where it went well; go on after an error, and fail at the end."""
    errors: list[LogdError] = []
    for name in names:
        try:
            do(name)
        except LogdError as error:
            errors.append(error)
        else:
            if echo:
                sys.stdout.write(f"{name}\n")
    if errors:
        sys.stdout.flush()
        raise errors[0] if len(errors) == 1 else Several(errors)
