"""What daemon, keeper and shims say to each other, and what a shim leaves on disk.

A message is a JSON object in one packet of a SOCK_SEQPACKET unix socket, descriptors beside it (SCM_RIGHTS). Every
on-disk file and the first message of a shim carry `version`; a newer daemon understands the older ones.

Daemon → keeper (`<exec-root>/keeper.sock`; the daemon that starts a keeper has the first connection):
    {"op": "launch", "launch": …}  + 1 descriptor: the shim's end of its first control connection
    {"op": "recover", "launch": …} + 1 descriptor: a new shim for a live container that nobody watches any more
    {"op": "adopt", "launch": …}   + 1 descriptor: a connection to a shim that outlived an earlier keeper, in which
                                   its "hold" may lie already, and its end
    {"op": "exec", "request": …}   + 1 descriptor: the shim of an exec (exec_shim.py), which the keeper does not watch
Keeper → daemon: {"error": …} when that is impossible, {} otherwise.

Shim → keeper: {"op": "hold", "names": […], "pid": …} + the descriptors; {"op": "let-go", "names": […]};
    {"op": "release"} once the container has ended and its output is stored.
Keeper → shim: {"op": "reaped", "status": …, "time_ns": …}: the keeper was the parent of PID 1 and has its status.

Shim → daemon, on `<exec-dir>/shim.sock` and on the first connection: events, see Event.
Daemon → shim: {"op": …, "seq": n}, answered with {"re": n} or {"re": n, "error": …, "exit_code": …}:
    start · stdin (the answer carries a descriptor) · close-stdin · lease positions · clear · keeper (+ 1 descriptor)
    store options (the fields of StoreOptions in their order; a shim that is older than this refuses it)
"""

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from socket import SocketType
from typing import Any, Final, NamedTuple

from logd.logstore.options import StoreOptions
from logd.runtime import packets

VERSION: Final = 1
EXIT_FILE: Final = "exit.json"
STATE_FILE: Final = "shim.json"
SOCKET_NAME: Final = "shim.sock"
KEEPER_SOCKET: Final = "keeper.sock"


class Event:
    """The values of "event" in what a shim tells the daemon."""

    STATE: Final = "state"
    """The first on every connection: version, run, pid, exit (or null), drained (or null), held (by a keeper)."""
    CREATED: Final = "created"
    """PID 1 exists and waits: pid."""
    FAILED: Final = "failed"
    """The container could not be created: message, exit_code. The shim ends."""
    EXIT: Final = "exit"
    """PID 1 has ended: the fields of ExitStatus."""
    DRAINED: Final = "drained"
    """No more output is expected: ends, the positions of stdout and stderr."""


class Launch(NamedTuple):
    """All that a shim needs to know of its container."""

    container_id: str
    container_dir: str
    """Holds `log/`, gets `exit.json`."""
    exec_dir: str
    """The OCI bundle, its root file system mounted; gets `shim.sock` and `shim.json`."""
    runtime: tuple[str, ...]
    """Command line of the OCI runtime up to the verb: ("/usr/sbin/runc", "--root", "/run/logd/runc")."""
    run: int
    """The how-manieth start of the container, from 1."""
    open_stdin: bool = False
    stdin_once: bool = False
    terminal: bool = False
    """Whether the runtime makes a terminal, in place of pipes."""
    memory_limit: int = 0
    """Bytes, 0 for none: the pipes are charged to it, so they are scaled to it."""
    owner: tuple[int, int] = (0, 0)
    """The host's ids of the container's root, to whom its pipes belong."""
    store: StoreOptions = StoreOptions()

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {**self._asdict(), "runtime": list(self.runtime), "store": self.store._asdict(), "version": VERSION}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Launch":
        """Read a launch; fields of a newer version are left out, missing ones get their default."""
        known: dict[str, Any] = {name: value[name] for name in cls._fields if name in value}
        store = {name: value["store"][name] for name in StoreOptions._fields if name in value["store"]}
        owner = value.get("owner", (0, 0))
        known |= {"runtime": tuple(value["runtime"]), "owner": tuple(owner), "store": StoreOptions(**store)}
        return cls(**known)


Recovery = tuple[int, dict[str, int]]
"""Of a container that all have left: when its PID 1 was started (clock ticks) and the inodes of its pipes."""


class ExitStatus(NamedTuple):
    """How PID 1 of a container ended."""

    code: int
    """Its exit code; 128 + signal when a signal ended it; 255 when it is not known."""
    signal: int | None
    oom_killed: bool
    finished_ns: int
    """Unix time."""
    known: bool = True
    run: int = 0

    @classmethod
    def from_wait_status(cls, status: int, *, oom_killed: bool, finished_ns: int, run: int) -> "ExitStatus":
        """Read a status as wait(2) gives it."""
        if os.WIFSIGNALED(status):
            signal = os.WTERMSIG(status)
            return cls(128 + signal, signal, oom_killed, finished_ns, known=True, run=run)
        return cls(os.waitstatus_to_exitcode(status), None, oom_killed, finished_ns, known=True, run=run)


def write_json(folder: str, name: str, value: dict[str, Any], *, durable: bool = False) -> None:
    """Write a file by write-then-rename; `durable` forces it to the disk before and after the rename."""
    partial = os.path.join(folder, f".{name}.new")
    with open(partial, "w", encoding="utf-8", opener=_private) as file:
        json.dump(value, file)
        file.flush()
        if durable:
            os.fdatasync(file.fileno())
    os.rename(partial, os.path.join(folder, name))
    if durable:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def read_json(folder: str, name: str) -> dict[str, Any] | None:
    """Read what `write_json` wrote; None where there is nothing."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return None
    return value if isinstance(value, dict) else None


def write_exit_status(folder: str, status: ExitStatus, *, durable: bool = False) -> None:
    """Leave the exit status in `folder`."""
    write_json(folder, EXIT_FILE, {"version": VERSION, **status._asdict()}, durable=durable)


def read_exit_status(*folders: str) -> ExitStatus | None:
    """Return the exit status of the latest run that a shim left in one of the folders (exec-dir, container-dir)."""
    found = [value for folder in folders if (value := read_json(folder, EXIT_FILE))]
    if not found:
        return None
    newest = max(found, key=lambda value: int(value["run"]))
    return ExitStatus(**{name: newest[name] for name in ExitStatus._fields if name in newest})


def start_ticks(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since boot (proc(5), stat field 22); None if it is gone.

    Together with the pid it names one process of this boot.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def listen_in(folder: str, name: str) -> socket.socket:
    """Serve a socket `name`, 0600, in a folder, in place of one that an ended process left there.

    The address goes through the folder's descriptor, since a path may be longer than the 107 bytes of sun_path
    (unix(7)).
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = f"/proc/self/fd/{descriptor}/{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
    finally:
        os.close(descriptor)
    listener.listen(8)
    return listener


def connect_in(folder: str, name: str) -> socket.socket | None:
    """Return a connection to the socket `name` in a folder, None if nobody serves it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{descriptor}/{name}")
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        return None
    return connection


def send(connection: SocketType, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError (BlockingIOError where the socket is non-blocking and full)."""
    packets.send(connection, json.dumps(message).encode(), descriptors)


def receive(connection: SocketType) -> tuple[dict[str, Any], list[int]] | None:
    """Receive one message and its descriptors (close-on-exec); None at the connection's end."""
    raw, descriptors = packets.receive(connection)
    return (json.loads(raw), descriptors) if raw else None
