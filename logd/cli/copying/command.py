"""`logd cp`: copy files between a container and this machine."""

import base64
import os
import posixpath
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import click

from logd.cli.client import Client, Refused, Response, quote
from logd.cli.command import Command
from logd.cli.completion import SIDE
from logd.cli.copying.packing import pack
from logd.cli.copying.places import (
    CONTENT,
    STREAM,
    Kind,
    Side,
    absolute,
    end_of,
    name_of,
    parse_side,
    place,
    with_end,
)
from logd.cli.copying.unpacking import unpack
from logd.cli.output import STDERR_FD, STDOUT_FD, write_all
from logd.cli.progress import progress
from logd.cli.terminal import is_terminal
from logd.errors import InvalidParameter, LogdError
from logd.units import format_size

GO_FOLDER: Final = 1 << 31
GO_LINK: Final = 1 << 27
GO_OTHER: Final = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21
"""Of Go's os.FileMode: devices, FIFOs, sockets."""
BLOCK_BYTES: Final = 256 * 1024
STAT_HEADER: Final = "x-docker-container-path-stat"
STDIN_FD: Final = 0
TAR: Final = {"Content-Type": "application/x-tar"}


@click.command(
    "cp",
    cls=Command,
    examples=(
        "logd cp web:/etc/nginx/nginx.conf .",
        "logd cp site/. web:/srv",
        "logd cp web:/var/log - | tar t",
        "tar c site | logd cp - web:/srv",
    ),
)
@click.option("-a", "--archive", is_flag=True, help="What goes in belongs to the container's user.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link leads to, if SOURCE is one.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.argument("source", type=SIDE, metavar="[CONTAINER:]SOURCE|-")
@click.argument("destination", type=SIDE, metavar="[CONTAINER:]DESTINATION|-")
@click.pass_obj
def cp(client: Client, *, archive: bool, follow_link: bool, quiet: bool, source: str, destination: str) -> None:
    """Copy files and folders out of a container or into it; "-" is a tar on standard input or output.

    A SOURCE that ends in "/." stands for what is in the folder. A path with a colon in it is written ./PATH.
    """
    of, to = parse_side("source", source), parse_side("destination", destination)
    copying = Copying(client, follow_link=follow_link, quiet=quiet or not is_terminal(STDERR_FD))
    if of.container and to.container:
        raise InvalidParameter("copying between containers is not supported: copy to this machine first, or use a pipe")
    if of.container:
        copying.out_of(of, to)
    elif to.container:
        copying.into(of, to, archive=archive)
    else:
        raise InvalidParameter("must specify at least one container source (write CONTAINER:PATH)")


class Stat(NamedTuple):
    """What the daemon says of a path; `mode` is Go's os.FileMode."""

    mode: int
    link_target: str

    @property
    def kind(self) -> Kind:
        """What is there, for `place`."""
        return "folder" if self.mode & GO_FOLDER else "file"


class Copying:
    """One copy."""

    def __init__(self, client: Client, *, follow_link: bool, quiet: bool) -> None:
        self._client = client
        self._follow = follow_link
        self._quiet = quiet

    def out_of(self, source: Side, destination: Side) -> None:
        """Copy from a container. Raises LogdError."""
        if destination.path == STREAM and is_terminal(STDOUT_FD):
            raise InvalidParameter("an archive is nothing for a terminal (name a DESTINATION, or use a pipe)")
        target, kind = ("", None) if destination.path == STREAM else _local_destination(destination.path)
        path = absolute(source.path, "/") if source.path else ""
        asked = self._followed(source.container, path)
        with self._client.request("GET", _archive(source.container), {"path": asked}) as response:
            found = _stat(response)
            with progress(f"Copying from {source}", quiet=self._quiet) as advance:
                reader = Reader(response, advance)
                if destination.path == STREAM:
                    reader.pass_on(STDOUT_FD)
                    return
                goes = place(name_of(path), is_folder=found.kind == "folder", destination=target, kind=kind)
                unpack(reader, goes, has_name=name_of(asked) != CONTENT)
                while reader.read(BLOCK_BYTES):
                    pass  # what fills up the archive: the daemon is not cut off
        self._say(reader.count, destination)

    def into(self, source: Side, destination: Side, *, archive: bool) -> None:
        """Copy into a container. Raises LogdError."""
        target, kind = self._destination(destination)
        if source.path == STREAM:
            if kind != "folder":
                raise LogdError(f"destination {destination} must be a directory")
            folder, content = target, iter(lambda: os.read(STDIN_FD, BLOCK_BYTES), b"")
        else:
            path = absolute(source.path, os.getcwd())
            follow = self._follow or bool(end_of(path))
            name = name_of(path)
            goes = place(name, is_folder=_is_folder(path, follow=follow), destination=target, kind=kind)
            folder, content = goes.folder, pack(path, goes.name, follow=follow)
        query = {"path": folder, "noOverwriteDirNonDir": "true", "copyUIDGID": "true" if archive else None}
        counted = Counted(content)
        with progress(f"Copying to {destination}", quiet=self._quiet) as advance:
            body = counted.pieces(advance)
            self._client.request("PUT", _archive(destination.container), query, body=body, headers=TAR).close()
        self._say(counted.count, destination)

    def _say(self, size: int, destination: Side) -> None:
        if not self._quiet:
            sys.stderr.write(f"Successfully copied {format_size(size, 3)} to {destination}\n")

    def _head(self, container: str, path: str) -> Stat | None:
        """Return what is at a path, None if nothing is, or no container."""
        try:
            with self._client.request("HEAD", _archive(container), {"path": path}) as response:
                return _stat(response)
        except Refused:
            return None  # why, the request that follows is told

    def _followed(self, container: str, path: str) -> str:
        """Return the path, or that to which it leads if it is a link and links are to be followed."""
        found = self._head(container, path) if self._follow and path else None
        return _target(path, found) if found is not None else path

    def _destination(self, side: Side) -> tuple[str, Kind]:
        """Return the path in the container, its link at the end followed, and what is there."""
        path = absolute(side.path, "/") if side.path else ""
        found = self._head(side.container, path) if path else None
        if found is not None and found.mode & GO_LINK:
            path = _target(path, found)
            found = self._head(side.container, path)
        if found is not None and found.mode & GO_OTHER:
            raise LogdError(f"destination {side} must be a directory or a regular file")
        return path, found.kind if found is not None else None


class Reader:
    """The body of an answer, to be read like a file; counts its bytes."""

    def __init__(self, response: Response, advance: Callable[[int], object]) -> None:
        self._response = response
        self._advance = advance
        self._rest = b""
        self.count = 0

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end."""
        pieces, wanted = [], size
        while wanted > 0 and (piece := self._rest or self._receive()):
            pieces.append(piece[:wanted])
            self._rest = piece[wanted:]
            wanted -= len(pieces[-1])
        return b"".join(pieces)

    def pass_on(self, descriptor: int) -> None:
        """Write all of it as it comes."""
        while piece := self._receive():
            write_all(descriptor, piece)

    def _receive(self) -> bytes:
        while not self._response.ended:
            if data := self._response.receive():
                self.count += len(data)
                self._advance(len(data))
                return data
        return b""


class Counted:
    """Pieces that are sent, and how many bytes they were."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.count = 0

    def pieces(self, advance: Callable[[int], object]) -> Iterator[bytes]:
        """Yield them."""
        for piece in self._pieces:
            self.count += len(piece)
            advance(len(piece))
            yield piece


def _archive(container: str) -> str:
    return f"/containers/{quote(container)}/archive"


def _stat(response: Response) -> Stat:
    import json  # noqa: PLC0415  # as elsewhere

    try:
        found: dict[str, Any] = json.loads(base64.b64decode(response.headers[STAT_HEADER]))
        return Stat(int(found["mode"]), str(found["linkTarget"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LogdError("the daemon's answer does not say what is at the path") from error


def _target(path: str, found: Stat) -> str:
    """Return where a link leads, with the path's own end; the path itself if it is none."""
    if not found.mode & GO_LINK:
        return path
    return with_end(absolute(found.link_target, posixpath.dirname(path.rstrip("/"))), end_of(path))


def _is_folder(path: str, *, follow: bool) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path, follow_symlinks=follow).st_mode)
    except OSError as error:
        raise LogdError(f"{Side('', path)}: {error.strerror}") from error


def _local_destination(word: str) -> tuple[str, Kind]:
    """Return the path with its links followed, and what is there. Raises LogdError for one that will not do."""
    path = absolute(word, os.getcwd())
    try:
        status = os.stat(path)
    except FileNotFoundError:
        real = with_end(os.path.realpath(path), end_of(path))
        folder = posixpath.dirname(real.rstrip("/"))
        if not os.path.isdir(folder):
            raise LogdError(f"invalid output path: directory {Side('', folder)} does not exist") from None
        return real, None
    except OSError as error:
        raise LogdError(f"{Side('', path)}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        return os.path.realpath(path), "folder"
    if stat.S_ISREG(status.st_mode):
        return os.path.realpath(path), "file"
    raise LogdError(f"invalid output path: {Side('', path)} must be a directory or a regular file")
