"""Mount a part of a volume: the part is opened inside the volume and mounted by its descriptor, never by its name.

Who writes in a volume can put a link in any place of it at any time; a name that was checked may mean something else
when the runtime mounts it. So each part is bound to a point of ours first, outside of all volumes, and that is what the
runtime gets. The points are only ever unmounted and removed one by one: whatever is below them is the user's.
"""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from logd.errors import InvalidParameter, LogdError, NotFound
from logd.runtime.idmapped import Mapped, attach, clone
from logd.runtime.inroot import open_beneath, open_directory, opened
from logd.runtime.mount_calls import MS_BIND, MS_REC, detach, mount


def open_part(volume: Path, subpath: str) -> int:
    """Open a part of a volume (O_PATH). Raises NotFound, and InvalidParameter if links or `..` lead out of it."""
    with opened(open_directory(volume)) as root:
        try:
            return open_beneath(root, subpath, os.O_PATH)
        except OSError as error:
            raise _refusal(volume, subpath, error) from error


def _refusal(volume: Path, subpath: str, error: OSError) -> LogdError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(f"cannot access path {volume / subpath}: {(error.strerror or '').lower()}")
    return InvalidParameter(f"path concatenation escapes the base directory, base: {volume}, subpath: {subpath}")


class Part(NamedTuple):
    """A part of a volume, or all of it without a `subpath`; whether its ids are to be translated."""

    volume: Path
    subpath: str
    is_mapped: bool = False


def mount_parts(folder: Path, parts: Mapping[str, Part], mapped: Mapped | None = None) -> dict[str, Path]:
    """Mount parts, given by their destination, on points in `folder`; returns these (blocks).

    `mapped` is what ids are translated to. Raises NotFound, InvalidParameter, LogdError, OSError.
    """
    points: dict[str, Path] = {}
    for number, (destination, (volume, subpath, is_mapped)) in enumerate(parts.items()):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        points[destination] = point = folder / str(number)
        with opened(open_part(volume, subpath or ".")) as part:
            if stat.S_ISDIR(os.fstat(part).st_mode):
                point.mkdir(mode=0o700)
            else:
                point.touch(mode=0o600)
            if is_mapped:
                attach(clone(f"/proc/self/fd/{part}", mapped), point)
            else:
                mount(f"/proc/self/fd/{part}", point, flags=MS_BIND | MS_REC)
    return points


def unmount_parts(folder: Path) -> None:
    """Take down what `mount_parts` made (blocks); none is fine. Raises OSError, and then nothing is deleted."""
    with contextlib.suppress(FileNotFoundError):
        for point in sorted(folder.iterdir()):
            detach(point)
            if point.is_dir():
                point.rmdir()
            else:
                point.unlink()
        folder.rmdir()
