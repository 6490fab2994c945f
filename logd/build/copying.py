"""COPY and ADD: from the context, a stage or an image, to a layer.

Nothing is resolved by the daemon: sources are found by a process whose root is the tree that they are in, and the
destination in a tree that it only looks at. What it writes is the layer. Archives are unpacked into a container of the
step, which never runs, by a process whose root is the container's.
"""

import contextlib
import posixpath
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from logd.container import Container
from logd.engine.engine import Engine
from logd.errors import InvalidParameter, NotFound, Unsupported
from logd.files.client import Answer, answered
from logd.files.request import Place, Selection

FOLDER: Final = "folder"
FILE: Final = "file"
REMOTE: Final = ("http://", "https://", "git@", "git://", "ftp://")
MAX_WORDS: Final = 32 << 10
"""Characters of all sources, which go to a process in its command line."""


@dataclass(frozen=True)
class Copying:
    """What one COPY or ADD does."""

    answer: Answer
    """Of the process that has found the sources: what follows is their tar."""
    source: Place
    destination: str
    """Where links lead."""
    archives: tuple[str, ...]
    """Sources that are to be unpacked there."""
    owner: str
    """The uid:gid that was asked for, or ""."""
    digest: str
    """Of the names and contents of the sources, and of where they go."""
    comment: str
    """What the history says: the keyword, the digest with what it is of, and the destination as it is written."""


@contextlib.asynccontextmanager
async def copying(
    keyword: str,
    source: Place,
    target: Place,
    words: list[str],
    *,
    workdir: str,
    owner: str,
    ignored: list[str] | None,
) -> AsyncIterator[Copying]:
    """Find out what an instruction means. Raises InvalidParameter in the words of Docker's builder.

    `ignored` are the patterns of .dockerignore, None for the files of an image, which keep their owners.
    """
    *sources, last = words
    if sum(map(len, words)) > MAX_WORDS:
        raise InvalidParameter(f"{keyword} failed: the names of its sources are longer than {MAX_WORDS} characters")
    if ignored is not None and (outside := [one for one in sources if posixpath.normpath(one).split("/")[0] == ".."]):
        raise InvalidParameter(f"{keyword} failed: forbidden path outside the build context: {outside[0]} ()")
    if any(one.startswith(REMOTE) for one in sources):
        raise Unsupported(f"{keyword} of a URL is not supported: fetch it with a RUN, or put it into the context")
    selection = Selection(
        target=target,
        sources=sources,
        destination=posixpath.normpath(posixpath.join("/", workdir, last)),
        into_folder=last.endswith("/"),
        unpacks=keyword == "ADD",
        owner=owner,
        keeps_owners=ignored is None and not owner,
        ignored=ignored or [],
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            answer = await stack.enter_async_context(answered("copy", source, selection=selection))
        except (InvalidParameter, NotFound) as error:
            raise InvalidParameter(f"{keyword} failed: {error}") from error
        found: dict[str, Any] = answer.result
        if found["what"] == "multi" and not last.endswith("/") and found["kind"] != FOLDER:
            raise InvalidParameter(
                f"When using {keyword} with more than one source file, the destination must be a directory and end "
                "with a /"
            )
        if found["has_folders"] and found["kind"] == FILE:
            raise InvalidParameter(f"{keyword} failed: {found['path']} is not a directory")
        owned = f"--chown={owner} " if owner else ""
        yield Copying(
            answer=answer,
            source=source,
            destination=found["path"],
            archives=tuple(found["archives"]),
            owner=found["owner"],
            digest=found["digest"],
            comment=f"{keyword} {owned}{found['what']}:{found['digest'].partition(':')[2]} in {last} ",
        )


async def unpack(engine: Engine, container: Container, copying: Copying) -> None:
    """Write all of it into the container, archives unpacked."""
    await _extract(engine, container, "/", copying.answer, "")
    for path in copying.archives:
        async with answered("raw", copying.source, path=path) as content:
            await _extract(engine, container, copying.destination, content, copying.owner)


async def _extract(engine: Engine, container: Container, path: str, answer: Answer, owner: str) -> None:
    chunks: AsyncIterator[bytes] = answer.chunks()
    await engine.files.extract(container, container.id, path, chunks, keep_kinds=False, owner=owner, with_mounts=False)
