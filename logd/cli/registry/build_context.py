"""What a build is given: a folder of this machine as a tar made while it is sent, or what comes on standard input.

Source: the docker documentation of `docker build`, "Build context", and of .dockerignore files; Docker Engine API 1.47,
ImageBuild.
"""

import os
import posixpath
import secrets
import stat
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from logd.cli.copying.packing import BLOCK_BYTES, END, Choice, content_of, padded
from logd.cli.copying.places import STREAM
from logd.cli.terminal import is_terminal, visible
from logd.errors import InvalidParameter, LogdError
from logd.ignored import Ignored, read_patterns

DOCKERFILE: Final = "Dockerfile"
IGNORE_FILE: Final = ".dockerignore"
MAX_DOCKERFILE: Final = 1 << 20
"""Bytes, as the daemon has it."""
URLS: Final = ("http://", "https://", "git://", "git@", "github.com/", "ssh://")
COMPRESSED: Final = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd begin."""
STDIN_FD: Final = 0


class Context(NamedTuple):
    """The bytes of a tar, and the Dockerfile's name in it."""

    pieces: Iterator[bytes]
    dockerfile: str


def context_of(place: str, dockerfile: str | None) -> Context:
    """Return the context at `place`, a folder or `-`. Raises InvalidParameter for what is none, LogdError."""
    if place == STREAM:
        if dockerfile == STREAM:
            raise InvalidParameter("invalid argument: can't use stdin for both build context and dockerfile")
        return _of_stdin(sys.stdin.buffer, dockerfile)
    if not os.path.isdir(place):
        if place.startswith(URLS):
            raise InvalidParameter(
                f"{visible(place)}: contexts from elsewhere are not supported; fetch it, and name the folder"
                " (or pipe a tar of it to `logd build -`)"
            )
        raise InvalidParameter(f"unable to prepare context: path {place!r} not found, or no folder")
    return _of_folder(place, dockerfile)


def _of_stdin(source: BinaryIO, dockerfile: str | None) -> Context:
    """Return a context of standard input: an archive as it is, or else a Dockerfile alone."""
    if is_terminal(STDIN_FD):
        raise InvalidParameter("standard input is a terminal (pipe a tar or a Dockerfile to `logd build -`)")
    start = source.read(tarfile.BLOCKSIZE)
    if _is_archive(start):
        return Context(_after(start, source), dockerfile or DOCKERFILE)
    data = start + source.read(MAX_DOCKERFILE)
    return Context(iter([_file(DOCKERFILE, _checked("standard input", data)), END]), DOCKERFILE)


def _is_archive(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return start.startswith(COMPRESSED)
    return True


def _after(start: bytes, source: BinaryIO) -> Iterator[bytes]:
    yield start
    while data := source.read(BLOCK_BYTES):
        yield data


def _of_folder(folder: str, dockerfile: str | None) -> Context:
    patterns = _patterns(folder)
    extra: dict[str, bytes] = {}
    if dockerfile == STREAM:
        name = _with_foreign(extra, _checked("standard input", sys.stdin.buffer.read(MAX_DOCKERFILE + 1)), patterns)
    else:
        place = os.path.realpath(dockerfile or _usual(folder))
        name = posixpath.relpath(place, os.path.realpath(folder))
        if name.startswith("../"):
            name = _with_foreign(extra, _read(place), patterns)
        elif not os.path.lexists(os.path.join(folder, name)):
            raise InvalidParameter(
                f"unable to prepare context: no {visible(name)} in {visible(folder)} (-f names another)"
            )
    # The daemon needs both files, whatever the patterns say; what they keep out of images, it knows.
    needed = [f"!{one}" for one in (IGNORE_FILE, name) if one not in extra and one in Ignored(patterns)]
    choice = Choice(Ignored([*patterns, *needed]), without=frozenset(extra), owner=(0, 0))
    return Context(_pieces(folder, extra, choice), name)


def _pieces(folder: str, extra: dict[str, bytes], choice: Choice) -> Iterator[bytes]:
    for name, data in extra.items():
        yield _file(name, data)
    yield from content_of(folder, choice)
    yield END


def _with_foreign(extra: dict[str, bytes], data: bytes, patterns: list[str]) -> str:
    """Put a Dockerfile that is not of the context in it, where no COPY finds it, and return its name."""
    name = f".dockerfile.{secrets.token_hex(10)}"
    extra[name] = data
    extra[IGNORE_FILE] = "\n".join([*(patterns or [IGNORE_FILE]), name, ""]).encode("utf-8", "surrogateescape")
    return name


def _patterns(folder: str) -> list[str]:
    try:
        with open(os.path.join(folder, IGNORE_FILE), encoding="utf-8", errors="surrogateescape") as file:
            return read_patterns(file.read())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LogdError(f"{visible(folder)}/{IGNORE_FILE}: {error.strerror}") from error


def _usual(folder: str) -> str:
    """Return where the Dockerfile is if nothing else is said; it may be written small."""
    places = [os.path.join(folder, name) for name in (DOCKERFILE, DOCKERFILE.lower())]
    return next(filter(os.path.lexists, places), places[0])


def _read(dockerfile: str) -> bytes:
    try:
        with open(dockerfile, "rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise InvalidParameter(f"--file: {dockerfile} is a folder")
            return _checked(dockerfile, file.read(MAX_DOCKERFILE + 1))
    except OSError as error:
        raise InvalidParameter(f"--file: {dockerfile}: {error.strerror}") from error


def _checked(name: str, data: bytes) -> bytes:
    if len(data) > MAX_DOCKERFILE:
        raise InvalidParameter(f"{name} is longer than {MAX_DOCKERFILE} bytes, and no Dockerfile")
    if not data.strip():
        raise InvalidParameter(f"{name}: the Dockerfile is empty")
    return data


def _file(name: str, data: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + padded(len(data))
