"""One blob from a registry to a file: what is there already is not asked for again, and nothing unverified is left.

The file is the blob's beginning, however often the transfer broke off: another process may go on with it.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter, LogdError, Unavailable
from logd.registry.connection import Busy, Refused
from logd.registry.repository import LINE_ERRORS, Repository
from logd.registry.words import told

CHUNK: Final = 1 << 20
PROGRESS: Final = 1 << 20
"""Bytes that make a transfer one that gets further."""
PAUSES_S: Final = (1, 2, 4, 8, 15)
"""Before the next try; the last one holds for all further ones."""

Tell = Callable[[int], None]


async def download(
    repository: Repository, digest: str, size: int, path: Path, *, attempts: int, tell: Tell, waits: Tell
) -> None:
    """Have `path` hold the blob, verified and of this size in bytes.

    `tell` gets how many bytes there are, `waits` the seconds until the next try. Raises InvalidParameter if the blob
    is not what its digest says or of another size; then the file is gone. Unavailable if the registry fails again and
    again; then the file stays for the next time. NotFound, Refused and the like at once. NotKept if the disk does not
    take it; then the file is gone, and its room free.
    """
    fd = await asyncio.to_thread(_open_alone, path)
    try:
        partial = _Partial(fd)
        await asyncio.to_thread(partial.read)
        is_begun = partial.have > 0
        await _complete(repository, digest, size, partial, attempts, tell, waits)
        if is_begun and partial.digest != digest:  # perhaps the beginning was wrong
            partial.clear()
            await _complete(repository, digest, size, partial, attempts, tell, waits)
        if partial.digest != digest:
            raise InvalidParameter(f"filesystem layer verification failed for digest {digest}: it has {partial.digest}")
    except (InvalidParameter, NotKept):
        await asyncio.to_thread(path.unlink)
        raise
    finally:
        os.close(fd)


def _open_alone(path: Path) -> int:
    """Open the file once no other process writes to it, such as that of a pull which is being given up."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # it was removed while we waited


class NotKept(LogdError):
    """The disk does not take what the registry gives."""


class _Partial:
    """The file and the digest of what is in it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hash = hashlib.sha256()
        self.have = 0
        """Bytes."""

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self) -> None:
        """Digest what is there."""
        while chunk := os.read(self._fd, CHUNK):
            self._hash.update(chunk)
            self.have += len(chunk)

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            try:
                written = os.write(self._fd, rest)
            except OSError as error:
                raise NotKept(f"{told(error)} after {self.have} bytes") from error
            self._hash.update(rest[:written])
            self.have += written
            rest = rest[written:]

    def clear(self) -> None:
        """Begin anew."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.have = 0


async def _complete(
    repository: Repository, digest: str, size: int, partial: _Partial, attempts: int, tell: Tell, waits: Tell
) -> None:
    failed = 0
    if partial.have > size:
        partial.clear()
    while partial.have < size:
        before, asked_for = partial.have, 0
        try:
            await _continue(repository, digest, size, partial, tell)
            problem = f"the transfer ended after {partial.have} bytes of {size}"
        except Refused as error:
            if not partial.have:
                raise
            partial.clear()  # the registry does not go on in the middle
            problem = str(error)
        except (Unavailable, *LINE_ERRORS) as error:
            problem = told(error)
            asked_for = error.pause_s if isinstance(error, Busy) else 0
        if partial.have >= size:
            return
        failed = 1 if partial.have - before >= PROGRESS else failed + 1
        if failed >= attempts:
            raise Unavailable(problem)
        pause = max(asked_for, PAUSES_S[min(failed, len(PAUSES_S)) - 1])
        waits(pause)
        await asyncio.sleep(pause)


async def _continue(repository: Repository, digest: str, size: int, partial: _Partial, tell: Tell) -> None:
    """Add what the registry gives in one transfer."""
    async with repository.blob(digest, partial.have) as rest:
        if rest.start != partial.have:
            partial.clear()
        if rest.length is not None and rest.start + rest.length != size:
            has = f"the registry has {rest.start + rest.length} bytes of it, and {size} were announced"
            raise InvalidParameter(f"filesystem layer verification failed for digest {digest}: {has}")
        async for chunk in rest.chunks:
            partial.write(chunk)
            if partial.have > size:
                raise InvalidParameter(
                    f"filesystem layer verification failed for digest {digest}: it is longer than {size} bytes"
                )
            tell(partial.have)
