"""Content by digest: configs, manifests and the tars of layers, each in a file named after its sha256.

Configs and manifests are not read back without their digest being verified, and do not appear under a name before they
are whole and on the disk; the blobs of layers are made durable with their trees (logd.images.layers).
"""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from logd import references
from logd.errors import LogdError

MAX_BLOB: Final = 8 << 20
"""Bytes of a config or manifest; the registries' common bound for manifests is 4 MiB."""


def digest_of(data: bytes) -> str:
    """Return `sha256:<hex>` of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_id_on(beneath: str, diff_id: str) -> str:
    """Return the id of a layer together with all beneath it, whose chain id is `beneath` ("": there is none).

    Source: OCI image-spec config.md, "Layer ChainID".
    """
    return digest_of(f"{beneath} {diff_id}".encode()) if beneath else diff_id


def write_atomically(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, whole or not at all whatever happens, and durably once this has returned."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Blobs:
    """The blobs in `folder`/sha256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sha256"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, data: bytes) -> str:
        """Keep `data`; return its digest."""
        digest = digest_of(data)
        path = self.path(digest)
        if not path.exists():
            write_atomically(path, data)
        return digest

    def adopt(self, digest: str, file: Path) -> None:
        """Keep `file`, of this file system, which is known to have this digest; its name stays the caller's."""
        with contextlib.suppress(FileExistsError):
            os.link(file, self.path(digest))

    def read(self, digest: str) -> bytes:
        """Return the content. Raises LogdError if it is missing or not what its name says."""
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(MAX_BLOB + 1)
        except FileNotFoundError as error:
            raise LogdError(f"blob {digest} is missing from the image store") from error
        if digest_of(data) != digest:
            raise LogdError(f"blob {digest} is damaged in the image store")
        return data

    def remove(self, digest: str) -> None:
        """Delete a blob. Absent is well."""
        self.path(digest).unlink(missing_ok=True)

    def move(self, digest: str, to: Path) -> bool:
        """Take a blob away to the new name `to`; False if it is absent."""
        try:
            self.path(digest).rename(to)
        except FileNotFoundError:
            return False
        return True

    def keep_only(self, wanted: set[str]) -> None:
        """Remove every file that is not one of these blobs."""
        for path in self._folder.iterdir():
            if f"sha256:{path.name}" not in wanted:
                path.unlink()

    def path(self, digest: str) -> Path:
        """Return the file of a blob, whether or not it is there."""
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or not references.IDENTIFIER.fullmatch(value):
            raise LogdError(f"{digest!r} is not a sha256 digest")
        return self._folder / value
