"""One exec: what was asked for, where it stands, what of it is on disk.

Source: Docker Engine API 1.47, ContainerExec and ExecInspect.
"""

import asyncio
import base64
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from logd.container import Container
from logd.runtime.exec_client import ExecSession
from logd.runtime.exec_process import Wish, make_process
from logd.runtime.exec_protocol import FOLDER_NAME, PROCESS_FILE
from logd.spec import ExecConfig

CONFIG_FILE: Final = "exec.json"
VERSION: Final = 1


class Exec:
    """One exec. Changed only in the event loop. `detach_keys` are bytes, none for the default ones."""

    def __init__(self, exec_id: str, container: Container, config: ExecConfig, detach_keys: bytes = b"") -> None:
        self.id = exec_id
        self.container = container
        self.config = config
        self.detach_keys = detach_keys
        self.running = False
        self.exit_code: int | None = None
        self.can_remove = False
        """It ended a while ago, and will be forgotten."""
        self.session: ExecSession | None = None
        self.ready = asyncio.Event()
        """The process runs, or could not be started."""

    @property
    def folder(self) -> Path:
        """Where the files of its process are."""
        return self.container.exec_dir / FOLDER_NAME / self.id

    @property
    def words(self) -> str:
        """The command as dockerd writes it into events."""
        return f"{self.config.cmd[0]} {' '.join(self.config.cmd[1:])}"

    def inspect(self) -> dict[str, Any]:
        """Return Docker's ExecInspect."""
        config = self.config
        process: dict[str, Any] = {
            "tty": config.tty,
            "entrypoint": config.cmd[0],
            "arguments": config.cmd[1:],
            "privileged": config.privileged,
        }
        if user := config.user or self.container.spec.user:
            process["user"] = user
        return ({"Log": True} if config.log else {}) | {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": process,
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": self.can_remove,
            "ContainerID": self.container.id,
            "DetachKeys": base64.b64encode(self.detach_keys).decode(),
            "Pid": self.session.pid if self.session is not None else 0,
        }


def lay_out(one: Exec, console_size: list[int]) -> None:
    """Make the folder of an exec that is about to start (blocks).

    Raises InvalidParameter for an unknown user, in Docker's words; OSError, ValueError.
    """
    config = one.config
    wish = Wish(
        argv=config.cmd,
        env=config.env,
        user=config.user,
        working_dir=config.working_dir,
        tty=config.tty,
        privileged=config.privileged,
        console_size=(console_size[0], console_size[1]) if console_size else None,
    )
    process = make_process(one.container, wish)
    one.folder.mkdir(mode=0o700, parents=True)
    saved = {"version": VERSION, "config": msgspec.to_builtins(config), "detach_keys": one.detach_keys.hex()}
    for name, content in ((CONFIG_FILE, msgspec.json.encode(saved)), (PROCESS_FILE, process)):
        with open(one.folder / name, "wb", opener=_private) as file:
            file.write(content)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def read_exec(container: Container, folder: Path) -> Exec:
    """Read an exec that an earlier daemon laid out (blocks). Raises OSError, ValueError."""
    saved = msgspec.json.decode((folder / CONFIG_FILE).read_bytes())
    try:
        config = msgspec.convert(saved["config"], ExecConfig)
        return Exec(folder.name, container, config, bytes.fromhex(saved["detach_keys"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error


def left_behind(container: Container) -> list[Path]:
    """Return the folders of the execs that an earlier daemon laid out (blocks)."""
    try:
        return sorted((container.exec_dir / FOLDER_NAME).iterdir())
    except FileNotFoundError:
        return []
