"""Where a copy goes: docker's rules for the two paths of `cp`, the same in both directions.

A path that ends in `/.` stands for what is in a folder, one that ends in `/` for a folder. Source: docker-cp(1).
"""

import posixpath
from typing import Final, Literal, NamedTuple

from logd.cli.terminal import visible
from logd.errors import InvalidParameter, LogdError

CONTENT: Final = "."
"""The name that stands for what is in a folder."""
STREAM: Final = "-"

Kind = Literal["folder", "file"] | None
"""What is at a destination already: nothing is None."""


class Side(NamedTuple):
    """One argument of `cp`; `container` is "" for a path of this machine."""

    container: str
    path: str

    def __str__(self) -> str:
        return visible(f"{self.container}:{self.path}" if self.container else self.path)


class Place(NamedTuple):
    """`name` is what the source is called in `folder`; CONTENT: what is in the source goes there."""

    folder: str
    name: str


def parse_side(what: str, word: str) -> Side:
    """Return what an argument means; a path with a colon in it is written `./PATH`. Raises InvalidParameter."""
    if not word:
        raise InvalidParameter(f"the {what} can not be empty (write CONTAINER:PATH, a path, or - for a tar)")
    container, colon, path = word.partition(":")
    if word.startswith("/") or not colon or container.startswith("."):
        return Side("", word)
    return Side(container, path)


def end_of(path: str) -> str:
    """Return what the path ends with: `/.` (what is in a folder), `/` (a folder), or nothing."""
    if posixpath.basename(path.rstrip("/")) == CONTENT:
        return f"/{CONTENT}"
    return "/" if path.endswith("/") else ""


def with_end(path: str, end: str) -> str:
    """Return a tidy absolute path with an end."""
    return (path.rstrip("/") + end) or "/"


def absolute(path: str, folder: str) -> str:
    """Return the path, from `folder` if it is relative, tidied but for its end."""
    return with_end("/" + posixpath.normpath(posixpath.join(folder, path)).lstrip("/"), end_of(path))


def name_of(path: str) -> str:
    """Return what the thing at an absolute path is called where it is copied to."""
    return posixpath.basename(path.rstrip("/")) or CONTENT


def place(name: str, *, is_folder: bool, destination: str, kind: Kind) -> Place:
    """Return where the source `name` goes for an absolute destination. Raises LogdError, in docker's words."""
    if kind == "folder":
        return Place(destination, name)
    if kind == "file" and is_folder:
        raise LogdError(f"cannot copy directory: {visible(destination)} is a file")
    if kind is None and not is_folder and end_of(destination):
        raise LogdError(f"no such directory: {visible(destination)}")
    return Place(*posixpath.split(destination.rstrip("/")))
