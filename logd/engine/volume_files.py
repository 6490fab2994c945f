"""A volume on disk: the folder <data-root>/volumes/<name> with `_data`, its content, and `volume.json`, what it is.

A folder is made under a name that no volume can have and then renamed, so that there are whole volumes only. One
without volume.json is of an older logd, or was put there by hand: it counts as a volume if it has `_data`.
"""

import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from logd.container import sync_folder
from logd.errors import InvalidParameter, LogdError, NotFound
from logd.runtime.inroot import open_directory, open_in_root, opened
from logd.runtime.mount_calls import detach
from logd.runtime.mountinfo import mounts_below
from logd.runtime.mounts import VOLUME_NAME
from logd.runtime.subpaths import open_part

log = logging.getLogger(__name__)

VERSION: Final = 1
FILE_NAME: Final = "volume.json"
ANONYMOUS_LABEL: Final = "com.docker.volume.anonymous"
"""What dockerd puts on volumes that it named itself."""
HALF_MADE: Final = ".new-"
FILLING: Final = "_filling"
GENERATED_NAME: Final = re.compile(r"[0-9a-f]{64}")


class VolumeRecord(msgspec.Struct, kw_only=True, frozen=True):
    """The content of volume.json. `made_for` is the container with which an anonymous volume was made."""

    version: int = VERSION
    name: str
    created_ns: int
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    made_for: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether nobody has named it."""
        return ANONYMOUS_LABEL in self.labels


def write_volume(root: Path, record: VolumeRecord) -> None:
    """Make a volume's folder (blocks); raises OSError."""
    folder = root / f"{HALF_MADE}{secrets.token_hex(16)}"
    folder.mkdir(mode=0o701)
    try:
        (folder / "_data").mkdir(mode=0o755)
        descriptor = os.open(folder / FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
            file.flush()
            os.fsync(descriptor)
        sync_folder(folder)
        folder.rename(root / record.name)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sync_folder(root)


def read_volumes(root: Path) -> Iterator[VolumeRecord]:
    """Find all volumes, by name, and clear away what is half made (blocks)."""
    for folder in sorted(root.iterdir()):
        if folder.name.startswith(HALF_MADE):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            record = _read_volume(folder)
            shutil.rmtree(folder / FILLING, ignore_errors=True)
            yield record
        except (OSError, ValueError) as error:
            log.error("a volume is left out: %s: %s", folder, error)  # noqa: TRY400 - the reason is enough


def _read_volume(folder: Path) -> VolumeRecord:
    if not VOLUME_NAME.fullmatch(folder.name) or not (folder / "_data").is_dir():
        raise ValueError("not a volume's folder")
    try:
        data = (folder / FILE_NAME).read_bytes()
    except FileNotFoundError:
        labels = {ANONYMOUS_LABEL: ""} if GENERATED_NAME.fullmatch(folder.name) else {}
        return VolumeRecord(name=folder.name, created_ns=folder.stat().st_mtime_ns, labels=labels)
    try:
        record = msgspec.json.decode(data, type=VolumeRecord)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{FILE_NAME}: {error}") from error
    if record.name != folder.name or not 1 <= record.version <= VERSION:
        raise ValueError(f"{FILE_NAME}: version {record.version} of {record.name!r}, this logd reads {VERSION}")
    return record


def take_away(root: Path, record: VolumeRecord, trash_dir: Path) -> Path:
    """Move a volume into the trash, and return where it is (blocks); raises OSError.

    What an option mounts is unmounted first, and nothing is moved while anything is mounted in the volume: who deletes
    the trash must find nobody else's files in it.
    """
    folder = root / record.name
    if record.options:
        detach(folder / "_data")
    if mounted := mounts_below(folder):
        raise OSError(f"{mounted[0]} is still mounted")
    target = trash_dir / secrets.token_hex(32)
    folder.rename(target)
    sync_folder(root)
    return target


def is_mounted(data: Path) -> bool:
    """Tell whether something is mounted on a volume's content."""
    return str(data) in mounts_below(data)


def check_place(rootfs: Path, place: str) -> bool:
    """Say whether a container's root has a folder where a volume is to be; raises InvalidParameter for a file."""
    with opened(open_directory(rootfs)) as root:
        try:
            os.close(open_in_root(root, place, os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            return False
        except NotADirectoryError as error:
            raise InvalidParameter(f"cannot mount volume over existing file, file exists {place}") from error
    return True


def copy_up(rootfs: Path, place: str, folder: Path, subpath: str, *, in_place: bool) -> None:
    """Fill an empty volume, or the part `subpath` of it, with the folder `place` of a mounted root (blocks).

    The image's paths are followed inside its root only. Nothing is done where a part is missing or is a file. A copy
    that is not made in place is there as a whole, or not at all; nobody may use the volume then.
    """
    data = folder / "_data"
    with (
        opened(open_directory(rootfs)) as root,
        opened(open_in_root(root, place, os.O_RDONLY | os.O_DIRECTORY)) as source,
    ):
        if subpath:
            _fill_part(source, data, subpath)
        elif not os.listdir(data):
            if in_place:
                _copy_tree(source, data)
            else:
                _replace_content(source, data)


def _fill_part(source: int, data: Path, subpath: str) -> None:
    with contextlib.suppress(NotFound), opened(open_part(data, subpath)) as part:
        if stat.S_ISDIR(os.fstat(part).st_mode) and not os.listdir(target := Path(f"/proc/self/fd/{part}")):
            _copy_tree(source, target, part)


def _replace_content(source: int, data: Path) -> None:
    """Copy to a folder beside the empty one, and put it in its place."""
    filling = data.with_name(FILLING)
    shutil.rmtree(filling, ignore_errors=True)
    filling.mkdir(mode=0o755)
    _copy_tree(source, filling)
    filling.rename(data)


def _copy_tree(source: int, target: Path, *descriptors: int) -> None:
    """Copy a folder with owners, modes, times, links, devices and extended attributes; links are not followed."""
    copied = subprocess.run(
        ["cp", "--archive", "--no-target-directory", f"/proc/self/fd/{source}/.", f"{target}/."],
        pass_fds=(source, *descriptors),
        capture_output=True,
        text=True,
        check=False,
    )
    if copied.returncode:
        raise LogdError(f"failed to populate volume: {copied.stderr.strip()}")
