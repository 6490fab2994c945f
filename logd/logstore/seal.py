"""The seal of a closed segment: a file with the sizes and checksums of the others, so that decay on the disk shows.

    {"version": 1, "files": {"0000000001.stdout": {"bytes": 20971520, "sha256": "…"}, …}}

A file that the segment does not have is not in it. The seal is no part of the data: readers don't look at it, and
without it a segment is as good as before.
"""

import hashlib
import json
import os
from typing import Any, Final

from logd.errors import Conflict, NotFound
from logd.logstore.segment import file_names, index_name, sealed_name, segment_numbers

SEAL_VERSION: Final = 1
SEAL_MODE: Final = 0o640


def unsealed(folder: str) -> list[int]:
    """Return the numbers of the closed segments that have no seal, oldest first."""
    closed = segment_numbers(folder)[:-1]
    return [number for number in closed if not os.path.exists(os.path.join(folder, sealed_name(number)))]


def seal(folder: str, number: int) -> None:
    """Write the seal of a closed segment. Reads all of it.

    Needs no lock: a closed segment does not change any more, it can only be deleted. Raises NotFound if it is gone,
    Conflict for the newest, which is still being written.
    """
    numbers = segment_numbers(folder)
    if number not in numbers:
        raise NotFound(f"segment {number}: there is none in {folder}")
    if number == numbers[-1]:
        raise Conflict(f"segment {number}: the newest of {folder}, still being written (only closed ones are sealed)")
    files = {}
    for name in file_names(number):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            files[name] = measure(path)
    path = os.path.join(folder, sealed_name(number))
    with open(path + ".new", "w", opener=_opener) as file:
        json.dump({"version": SEAL_VERSION, "files": files}, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
    if not os.path.exists(os.path.join(folder, index_name(number))):
        os.unlink(path)  # deleted meanwhile


def measure(path: str) -> dict[str, Any]:
    """Return the size and the SHA-256 of a file, as a seal has them."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def broken_seals(folder: str, number: int) -> list[tuple[str, str]]:
    """Compare a segment with its seal, if it has one; return (file name, what is wrong) pairs. Reads all of it."""
    try:
        with open(os.path.join(folder, sealed_name(number)), "rb") as file:
            files = _sealed_files(file.read())
    except FileNotFoundError:
        return []
    except ValueError as error:
        return [(sealed_name(number), str(error))]
    found = []
    for name in file_names(number):
        problem = _difference(os.path.join(folder, name), files.get(name))
        if problem:
            found.append((name, problem))
    return found


def _sealed_files(raw: bytes) -> dict[str, dict[str, Any]]:
    """Return what a seal says of each file. Raises ValueError, worded for a finding."""
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise ValueError("the seal can't be read") from error
    if not isinstance(content, dict) or "version" not in content:
        raise ValueError("the seal can't be read")
    if content["version"] != SEAL_VERSION:
        raise ValueError(f"version {content['version']} (supported: {SEAL_VERSION})")
    files = content.get("files")
    if not isinstance(files, dict) or not all(isinstance(measured, dict) for measured in files.values()):
        raise ValueError("the seal can't be read")
    return files


def _difference(path: str, sealed: dict[str, Any] | None) -> str:
    """Return what is different about a file since it was sealed, nothing if it is as it was."""
    try:
        present = measure(path)
    except FileNotFoundError:
        return "" if sealed is None else "is missing"
    if sealed is None:
        return "is not in the seal"
    if sealed == present:
        return ""
    if sealed.get("bytes") == present["bytes"]:
        return "the bytes changed since it was sealed"
    return f"the size changed since it was sealed, from {sealed.get('bytes')} to {present['bytes']} bytes"


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, SEAL_MODE)
