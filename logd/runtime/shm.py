"""The /dev/shm of a container that others may join: a tmpfs on the host, which the runtime mounts in each of them."""

import contextlib
from pathlib import Path

from logd.runtime.mount_calls import MS_NODEV, MS_NOEXEC, MS_NOSUID, detach, mount


def mount_shm(path: Path, size: int, owner: tuple[int, int] = (0, 0)) -> None:
    """Mount it, `size` in bytes, as the host's user and group `owner` (blocks). Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    mount(
        "shm", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=1777,size={size},uid={owner[0]},gid={owner[1]}"
    )


def unmount_shm(path: Path) -> None:
    """Take it down; who has it mounted keeps it (blocks). None is fine. Raises OSError."""
    if path.exists():
        detach(path)
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()
