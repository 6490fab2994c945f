"""Networks on the disk: <folder>/<id>.json, written whole beside it and renamed. Everything blocks."""

import logging
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from logd.network.state import Network

log = logging.getLogger(__name__)

FILE_NAME: Final = re.compile(r"[0-9a-f]{64}\.json")


def load(folder: Path) -> list[Network]:
    """Return all networks, oldest first; what can't be read is left alone and told. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = []
    for path in folder.iterdir():
        if path.suffix == ".tmp":
            path.unlink(missing_ok=True)
        elif FILE_NAME.fullmatch(path.name):
            try:
                network = msgspec.json.decode(path.read_bytes(), type=Network)
                if network.id != path.stem:
                    raise msgspec.ValidationError(f"is of network {network.id}")
            except (msgspec.MsgspecError, OSError) as error:
                log.error("a network is left out: %s: %s", path, error)  # noqa: TRY400 - the reason is enough
                continue
            found.append(network)
    return sorted(found, key=lambda one: one.created_ns)


def save(folder: Path, network: Network) -> None:
    """Replace a network's file for good. Raises OSError."""
    temporary = folder / f"{network.id}.tmp"
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(network), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / f"{network.id}.json")
    _sync(folder)


def delete(folder: Path, network_id: str) -> None:
    """Remove a network's file for good; none is fine. Raises OSError."""
    (folder / f"{network_id}.json").unlink(missing_ok=True)
    _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
