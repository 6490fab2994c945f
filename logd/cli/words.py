"""Options of the form KEY=VALUE: variables, labels, options of drivers; and files of them, a word a line."""

import os
from collections.abc import Iterable

from logd.errors import InvalidParameter


def split(word: str, separator: str = "=") -> tuple[str, str]:
    """Return what stands before and behind the separator; "" for what is missing."""
    key, _, value = word.partition(separator)
    return key, value


def pairs(name: str, words: Iterable[str]) -> dict[str, str]:
    """Return what options `KEY=VALUE` say; `name` is the option's, for the message."""
    for word in words:
        if "=" not in word:
            raise InvalidParameter(f"{name}: invalid value {word!r} (write key=value)")
    return dict(map(split, words))


def labels(words: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """Return labels; one without a value has an empty one. Those of files come first."""
    found = [*(word for path in files for word in lines_of("--label-file", path)), *words]
    for word in found:
        if word.startswith("=") or not word:
            raise InvalidParameter(f"--label: invalid label {word!r} (write KEY=VALUE or KEY)")
    return dict(map(split, found))


def environment(words: Iterable[str], files: Iterable[str] = ()) -> list[str]:
    """Return the variables; one without a value has that of our own environment, or is left out."""
    found = []
    for word in [*(word for path in files for word in lines_of("--env-file", path)), *words]:
        if word.startswith("=") or not word:
            raise InvalidParameter(f"--env: invalid variable {word!r} (write KEY=VALUE or KEY)")
        if "=" in word:
            found.append(word)
        elif word in os.environ:
            found.append(f"{word}={os.environ[word]}")
    return found


def lines_of(option: str, path: str) -> list[str]:
    """Return a file's lines without comments and empty ones. Raises InvalidParameter where it can't be read."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.rstrip("\r\n").lstrip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{option}: {path}: {error}") from error
    return [line for line in lines if line and not line.startswith("#")]
