"""A build's context on disk: the client's archive, unpacked by a process of its own into a folder of the build's.

<data-root>/builds/<id>/context   the files
<data-root>/builds/<id>/point     where a tree is mounted to be read, by processes whose root it becomes
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter
from logd.files.request import Place
from logd.ignored import read_patterns
from logd.images import worker
from logd.images.limits import Limits
from logd.images.trees import remove_path
from logd.runtime.inroot import open_directory, opened, read_regular

BUILDS: Final = "builds"
"""The folder below the data root."""
MAX_DOCKERFILE: Final = 1 << 20
"""Bytes."""


class Context:
    """The files of one build, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ignored: list[str] = []

    def place(self, layers: Sequence[Path] | None = None) -> Place:
        """Return the context, or a tree of these layers (the top one first), as a place to read from."""
        return Place(
            rootfs=str(self._folder / "nowhere"),
            point=str(self._folder / "point"),
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
        for name in ("context", "point"):
            await asyncio.to_thread((self._folder / name).mkdir, mode=0o755)
        await worker.unpack_layer(self._folder / "context", chunks, [], Limits(), copy=None, any_links=True, fills=True)
        found = await asyncio.to_thread(self._read, ".dockerignore")
        self.ignored = read_patterns((found or b"").decode(errors="replace"))

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


def forget_all(root: Path) -> None:
    """Remove what builds have left that a crash has ended."""
    if root.is_dir():
        for folder in root.iterdir():
            remove_path(folder)
