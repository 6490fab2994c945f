"""COPY and ADD: from the context, a stage or an image, into a container of the step, which never runs.

Nothing is resolved by the daemon: sources are found by a process whose root is the tree that they are in, and written
by one whose root is the container's.
"""

import contextlib
import dataclasses
import posixpath
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from logd.container import Container
from logd.engine.engine import Engine
from logd.errors import InvalidParameter, NotFound, Unsupported
from logd.files.client import Answer, answered
from logd.files.paths import GO_KINDS
from logd.files.request import Place, Selection

ROOT: Final = "0:0"
GO_FOLDER: Final = GO_KINDS[stat.S_IFDIR]
REMOTE: Final = ("http://", "https://", "git@", "git://", "ftp://")


@dataclass(frozen=True)
class Copying:
    """What one COPY or ADD does: where the sources are, what they mean, who gets them."""

    source: Place
    selection: Selection
    owner: str
    archives: tuple[str, ...]
    digest: str
    """Of the names and contents of the sources."""
    comment: str
    """What the history says: the keyword, the digest with what it is of, and the destination as it is written."""


async def look(
    keyword: str,
    source: Place,
    target: Place,
    words: list[str],
    *,
    workdir: str,
    owner: str,
    ignored: list[str] | None,
) -> Copying:
    """Find out what an instruction means. Raises InvalidParameter in the words of Docker's builder.

    `ignored` are the patterns of .dockerignore, None for the files of an image, which keep their owners.
    """
    *sources, last = words
    if ignored is not None and (outside := [one for one in sources if posixpath.normpath(one).split("/")[0] == ".."]):
        raise InvalidParameter(f"{keyword} failed: forbidden path outside the build context: {outside[0]} ()")
    if any(one.startswith(REMOTE) for one in sources):
        raise Unsupported(f"{keyword} of a URL is not supported: fetch it with a RUN, or put it into the context")
    destination = posixpath.normpath(posixpath.join("/", workdir, last))
    destination, is_there = await _destination(target, destination)
    selection = Selection(
        sources=sources,
        destination=destination,
        is_folder=is_there or last.endswith("/"),
        is_there=is_there,
        unpacks=keyword == "ADD",
        keeps_owners=ignored is None and not owner,
        ignored=ignored or [],
    )
    try:
        async with answered("look", source, selection=selection) as it:
            found: dict[str, Any] = it.result
    except (InvalidParameter, NotFound) as error:
        raise InvalidParameter(f"{keyword} failed: {error}") from error
    matches = found["matches"]
    if len(matches) > 1 and not selection.is_folder:
        raise InvalidParameter(
            f"When using {keyword} with more than one source file, the destination must be a directory and end with a /"
        )
    if any(match["folder"] or match["archive"] for match in matches):
        selection = dataclasses.replace(selection, is_folder=True)
    archives = tuple(match["path"] for match in matches if match["archive"])
    what = "multi" if len(matches) > 1 else "dir" if matches[0]["folder"] else "file"
    owned = f"--chown={owner} " if owner else ""
    comment = f"{keyword} {owned}{what}:{found['digest'].partition(':')[2]} in {last} "
    return Copying(source, selection, owner, archives, found["digest"], comment)


async def put(engine: Engine, container: Container, copying: Copying) -> None:
    """Write it all into the container."""
    async with answered("gather", copying.source, selection=copying.selection) as gathered:
        owner = copying.owner or ("" if copying.selection.keeps_owners else ROOT)
        await _extract(engine, container, "/", gathered, owner)
    for path in copying.archives:
        async with answered("raw", copying.source, path=path) as content:
            await _extract(engine, container, copying.selection.destination, content, copying.owner)


async def _extract(engine: Engine, container: Container, path: str, answer: Answer, owner: str) -> None:
    chunks: AsyncIterator[bytes] = answer.chunks()
    await engine.files.extract(container, container.id, path, chunks, keep_kinds=False, owner=owner, with_mounts=False)


async def _destination(target: Place, path: str) -> tuple[str, bool]:
    """Return where a path of the container leads, and whether a folder is there."""
    with contextlib.suppress(NotFound):
        async with answered("stat", target, path=path) as it:
            found = it.result["found"]
        if found["linkTarget"]:
            path = found["linkTarget"]
            async with answered("stat", target, path=path) as it:
                found = it.result["found"]
        return path, bool(found["mode"] & GO_FOLDER)
    return path, False
