"""Removing a tree that a stranger's archive built: however deep it is, whatever it is named."""

import os
import stat
from typing import Final

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int, name: str) -> None:
    """Remove the directory `name` in the descriptor `parent` with all that is in it; links are not followed.

    Directories are moved up to the top before they are emptied, so that depth costs neither stack, nor descriptors,
    nor path length (shutil.rmtree needs all three, and a tar can nest thousands).
    """
    top = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    try:
        moved = 0
        while entries := os.listdir(top):
            for entry in entries:
                if not _is_directory(top, entry):
                    os.unlink(entry, dir_fd=top)
                    continue
                moved = _lift(top, entry, moved)
                os.rmdir(entry, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def remove_path(path: str | os.PathLike[str]) -> None:
    """Remove the directory at `path`, which has a name of our own, and all that is in it. Absent is well."""
    folder, name = os.path.split(os.fspath(path))
    try:
        parent = os.open(folder, OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        remove_tree(parent, name)
    except FileNotFoundError:
        return
    finally:
        os.close(parent)


def _lift(top: int, name: str, moved: int) -> int:
    """Empty the directory `name` in `top`: files go, directories move to `top` under new names."""
    folder = os.open(name, OPEN_DIRECTORY, dir_fd=top)
    try:
        for entry in os.listdir(folder):
            if not _is_directory(folder, entry):
                os.unlink(entry, dir_fd=folder)
                continue
            while True:
                moved += 1
                try:
                    os.rename(entry, f".{moved}", src_dir_fd=folder, dst_dir_fd=top)
                    break
                except OSError:
                    if _absent(top, f".{moved}"):
                        raise
    finally:
        os.close(folder)
    return moved


def _is_directory(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _absent(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False
