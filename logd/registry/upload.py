"""One blob from a file to a registry, unless the registry has it already."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from logd.errors import Unavailable
from logd.registry.repository import LINE_ERRORS, Repository
from logd.registry.words import told

CHUNK: Final = 256 << 10
PAUSE_S: Final = 2


async def upload(
    repository: Repository,
    digest: str,
    size: int,
    path: Path,
    mount_from: str,
    attempts: int,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """Have the registry hold the blob that `path` has, `size` bytes.

    Returns {"there": True} if it had it, {"mounted": repository} if it took it from `mount_from`, else
    {"uploaded": True}. Raises Unavailable if the registry fails again and again, Forbidden and the like at once.
    """
    if await repository.has_blob(digest):
        return {"there": True}
    for attempt in range(1, attempts + 1):
        try:
            where = await repository.begin_upload(digest, mount_from)
            if where is None:
                return {"mounted": mount_from} if mount_from else {"there": True}
            await repository.upload(where, digest, size, lambda goes_on: _chunks(path, tell, goes_on))
            return {"uploaded": True}
        except (Unavailable, *LINE_ERRORS) as error:
            if attempt == attempts:
                raise Unavailable(told(error)) from error
            await asyncio.sleep(PAUSE_S * attempt)
    raise AssertionError


async def _chunks(path: Path, tell: Callable[[int], None], goes_on: Callable[[], None]) -> AsyncIterator[bytes]:
    sent = 0
    with path.open("rb", buffering=0) as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
            sent += len(chunk)
            tell(sent)
            goes_on()
