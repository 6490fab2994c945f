"""A build's context on disk: the client's archive, unpacked by a process of its own into a folder of the build's.

<data-root>/builds/<id>/context   the files
<data-root>/builds/<id>/point     where a tree is mounted to be read, by processes whose root it becomes
<data-root>/builds/<id>/target    where the tree that is written to is mounted, to be looked at
<data-root>/builds/<id>/steps     empty files that are named as the build's containers, from before they are made
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter
from logd.files.request import Place
from logd.ignored import Ignored, read_patterns
from logd.images import worker
from logd.images.limits import Limits
from logd.images.trees import remove_path
from logd.runtime.inroot import open_directory, opened, read_regular

BUILDS: Final = "builds"
"""The folder below the data root."""
MAX_DOCKERFILE: Final = 256 << 10
"""Bytes."""
MAX_IGNORED: Final = 64 << 10
"""Bytes of .dockerignore, which goes to processes in their command lines."""


class Context:
    """The files of one build, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ignored: list[str] = []

    def place(self, layers: Sequence[Path] | None = None, point: str = "point") -> Place:
        """Return the context, or a tree of these layers (the top one first), as a place to read from.

        Places that one process reads are mounted on different points: "point" or "target".
        """
        return Place(
            rootfs=str(self._folder / "nowhere"),
            point=str(self._folder / point),
            layers=[str(path.absolute()) for path in layers] if layers is not None else [str(self._folder / "context")],
            upper=str(self._folder / "no-upper"),
            work=str(self._folder / "no-work"),
        )

    def read(self, name: str) -> bytes:
        """Return a small file of the context. Raises InvalidParameter if it is not there."""
        data = self._read(name)
        if data is None:
            raise InvalidParameter(
                f"failed to read dockerfile: open {name}: no such file or directory"
                if "/" not in name
                else f"Cannot locate specified Dockerfile: {name}"
            )
        if len(data) > MAX_DOCKERFILE:
            raise InvalidParameter(f"{name} is longer than {MAX_DOCKERFILE} bytes")
        return data

    async def unpack(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the archive. Raises InvalidParameter."""
        for name in ("context", "point", "target", "steps"):
            await asyncio.to_thread((self._folder / name).mkdir, mode=0o755)
        await worker.unpack_layer(self._folder / "context", chunks, [], Limits(), copy=None, any_links=True, fills=True)
        found = await asyncio.to_thread(self._read, ".dockerignore")
        if found and len(found) > MAX_IGNORED:
            raise InvalidParameter(f".dockerignore is longer than {MAX_IGNORED} bytes")
        self.ignored = read_patterns((found or b"").decode(errors="replace"))
        Ignored(self.ignored)  # so that a mistake in it is said before anything is built

    def new_step(self) -> str:
        """Return the name of a container that is to be made, by which it is found again after a crash."""
        name = f"build-{secrets.token_hex(8)}"
        (self._folder / "steps" / name).touch()
        return name

    def keep(self, name: str) -> None:
        """Let a container outlive the build."""
        (self._folder / "steps" / name).unlink()

    def _read(self, name: str) -> bytes | None:
        with opened(open_directory(self._folder / "context")) as root:
            try:
                return read_regular(root, name)
            except OSError:
                return None


@contextlib.asynccontextmanager
async def taken(root: Path, chunks: AsyncIterator[bytes]) -> AsyncIterator[Context]:
    """Give the context that comes in `chunks`; its files go with the block. Raises InvalidParameter."""
    folder = root / secrets.token_hex(8)
    await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
    try:
        context = Context(folder)
        await context.unpack(chunks)
        yield context
    finally:
        await asyncio.shield(asyncio.to_thread(remove_path, folder))


def left_behind(root: Path) -> list[str]:
    """Return the names that containers of builds may have which a crash has ended."""
    return [path.name for path in root.glob("*/steps/*")]


def forget_all(root: Path) -> None:
    """Remove what builds have left that a crash has ended."""
    if root.is_dir():
        for folder in root.iterdir():
            remove_path(folder)
