"""Anonymous volumes: made with their container, filled with what the image has in their place, as Docker does."""

import os
import shutil
import subprocess
from pathlib import Path

from logd.errors import InvalidParameter, LogdError
from logd.runtime.inroot import open_directory, open_in_root, opened


def make_volume(rootfs: Path, destination: str, content: Path, *, copy: bool) -> None:
    """Make the folder `content` (and the one above it), with a copy of `destination` in the mounted root (blocks).

    The image's paths are followed inside its root only. Raises InvalidParameter for a file in that place.
    """
    content.parent.mkdir(mode=0o701, parents=True)
    content.mkdir(mode=0o755)
    with opened(open_directory(rootfs)) as root:
        try:
            source = open_in_root(root, destination, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        except NotADirectoryError as error:
            raise InvalidParameter(f"cannot mount volume over existing file, file exists {destination}") from error
        with opened(source):
            if copy:
                _copy_tree(source, content)


def _copy_tree(source: int, target: Path) -> None:
    """Copy a folder with owners, modes, times, links, devices and extended attributes; links are not followed."""
    copied = subprocess.run(
        ["cp", "--archive", "--no-target-directory", f"/proc/self/fd/{source}/.", str(target)],
        pass_fds=(source,),
        capture_output=True,
        text=True,
        check=False,
    )
    if copied.returncode:
        raise LogdError(f"failed to populate volume: {copied.stderr.strip()}")


def remove_volume(content: Path) -> None:
    """Delete a volume, whatever is left of it (blocks)."""
    shutil.rmtree(content.parent, ignore_errors=True)
